/** Licences and fields that several catalogue entries share. */
import type { CatalogueEntryInput } from './catalogue.ts';

export const apache = { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0', open: true };
export const mit = { name: 'MIT', url: 'https://opensource.org/license/mit', open: true };
export const both: CatalogueEntryInput['roles'] = ['completion', 'chat'];

export interface HubGguf {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly parameters: number;
  readonly quantisation: string;
  readonly cacheBytesPerToken: number;
  readonly rank: number;
  readonly repository: string;
  readonly revision: string;
  readonly file: { readonly name: string; readonly bytes: number; readonly sha256: string };
}

/** A file whose size and digest the hub announces at the download; `bytes` is computed from the architecture. */
export interface EstimatedGguf extends Omit<HubGguf, 'file' | 'revision'> {
  readonly file: string;
  readonly bytes: number;
}

/** Fields of an entry with a single GGUF file from the hub. */
export function hubGguf(model: HubGguf) {
  return {
    id: model.id,
    name: model.name,
    description: model.description,
    licence: apache,
    parameters: model.parameters,
    activeParameters: model.parameters,
    quantisation: model.quantisation,
    downloadBytes: model.file.bytes,
    bytesPerToken: model.file.bytes,
    cacheBytesPerToken: model.cacheBytesPerToken,
    rank: model.rank,
    files: [model.file],
    sources: [{ kind: 'hub' as const, repository: model.repository, revision: model.revision }],
  };
}

/** Fields of an entry whose revision, size and digest are the hub's of the day. */
export function estimatedGguf({ file, bytes, ...model }: EstimatedGguf) {
  return {
    ...hubGguf({ ...model, revision: 'main', file: { name: file, bytes, sha256: '' } }),
    downloadEstimated: true,
    files: [{ name: file }],
  };
}
