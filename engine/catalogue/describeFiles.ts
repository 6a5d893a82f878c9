/** Describes a model that isn't in the catalogue from its own files, by opening it. */
import { basename } from 'node:path';
import { openCheckpoint } from '../model/open.ts';
import { describeModel, inspectSpec } from '../model/spec/describe.ts';
import type { CatalogueEntry, HubSource } from './catalogue.ts';
import { quantisationOf } from './hub.ts';

export interface KnownAbout {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  /** As the publisher states it; default: the file's own statement. */
  readonly licence?: string;
  readonly quantisation?: string;
  readonly files?: CatalogueEntry['files'];
  readonly sources?: readonly HubSource[];
  /** Opens the tokenizer too, which takes up to a second. */
  readonly readTokenizer?: boolean;
}

/**
 * @param path a GGUF, or a folder with config.json and safetensors
 * @throws HearthError as `openCheckpoint` does.
 */
export async function describeFiles(path: string, known: KnownAbout): Promise<CatalogueEntry> {
  const { spec, weights, embedding, file, licence: stated, readTokenizer } = await openCheckpoint(path);
  try {
    const described = describeModel({ spec, weights });
    const { cache, weights: sizes } = inspectSpec(spec, described.groups, []);
    const licence = known.licence ?? stated ?? 'not stated';
    const largest = Object.entries(described.bytesByType).sort(([, a], [, b]) => b - a)[0]?.[0] ?? '';
    // Of a model that is used in place, no list of files is needed.
    const files = known.files ?? [{ name: 'model.gguf', bytes: sizes.bytes }];
    const tokenizer = known.readTokenizer ? await readTokenizer() : undefined;
    return {
      id: known.id,
      name: known.name,
      family: described.family,
      description: known.description,
      licence: { name: licence, url: 'https://spdx.org/licenses/', open: false },
      parameters: described.parameters,
      activeParameters: described.activeParameters,
      quantisation: known.quantisation ?? quantisationOf(basename(path).replace(/\.gguf$/, '')) ?? largest,
      downloadBytes: files.reduce((sum, { bytes = 0 }) => sum + bytes, 0),
      downloadEstimated: false,
      bytesPerToken: sizes.bytesPerToken,
      // A model whose layers all have a sliding window doesn't grow; the schema wants a number above 0.
      cacheBytesPerToken: Math.max(1, cache.bytesPerToken),
      contextTokens: described.contextTokens,
      fillInTheMiddle: tokenizer?.fillInTheMiddle !== undefined,
      roles: embedding ? ['embedding'] : ['completion', 'chat'],
      rank: 0,
      files,
      sources: [...(known.sources ?? [])],
    };
  } finally {
    await file.close();
  }
}
