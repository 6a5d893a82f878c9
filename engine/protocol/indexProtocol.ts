/**
 * Everything that is said between the extension and the indexer process: JSON-RPC over the channel the child inherits.
 * Paths are relative to the workspace's folder, with `/`; where there are several folders they begin with the folder's
 * name. Lines count from 1, both ends included.
 */
import * as z from 'zod';
import { limits } from '../limits.ts';
import { done, type Notices, none, type Requests } from './rpc.ts';

export const symbolKinds = [
  'class',
  'constant',
  'enum',
  'field',
  'function',
  'interface',
  'method',
  'module',
  'struct',
  'type',
  'variable',
] as const;
export type SymbolKind = (typeof symbolKinds)[number];

const limit = z.number().int().min(1).max(limits.repository.results);

export const openParams = z.object({
  /** Absolute path of the database, whose folder is made. */
  database: z.string(),
  folders: z.array(z.object({ name: z.string(), directory: z.string() })).min(1),
  /** Globs as in `files.exclude`. */
  excludes: z.array(z.string()).default([]),
  /** Absent: search is by words alone. */
  embeddings: z
    .object({
      /** Catalogue id, GGUF file or folder. */
      model: z.string(),
    })
    .optional(),
});
export type OpenParams = z.input<typeof openParams>;

export const indexState = z.object({
  phase: z.enum(['idle', 'scanning', 'indexing', 'paused']),
  files: z.number(),
  /** Files that wait to be read. */
  pending: z.number(),
  chunks: z.number(),
  symbols: z.number(),
  /** Files whose content is left out, by reason. */
  skipped: z.record(z.string(), z.number()),
  /** What went wrong last, as a sentence. */
  problem: z.string().optional(),
  /** Absent: no embedding model was chosen. */
  embeddings: z
    .object({
      model: z.string(),
      phase: z.enum(['idle', 'loading', 'embedding', 'paused', 'failed']),
      /** Chunks that have a vector, and all. */
      done: z.number(),
      total: z.number(),
      problem: z.string().optional(),
    })
    .optional(),
});
export type IndexState = z.infer<typeof indexState>;

export const searchParams = z.object({
  question: z.string(),
  limit,
  /** Also by meaning, where there are vectors: takes the time of computing the question's. */
  meaning: z.boolean().default(false),
});
export type SearchParams = z.input<typeof searchParams>;

/** A stretch of a file that answers a question, with its lines as they are on disk now. */
export const passage = z.object({
  path: z.string(),
  firstLine: z.number(),
  lastLine: z.number(),
  /** Greater is better; comparable within one answer. */
  score: z.number(),
  /** Share of the question's words, each by its rarity, that the passage and its path hold; 1 for a place the question names. */
  coverage: z.number(),
  /** First lines of the definitions that enclose it, from outside in, joined by ` › `; '' for none. */
  within: z.string(),
  text: z.string(),
});
export type Passage = z.infer<typeof passage>;

export const nameParams = z.object({ name: z.string(), limit });
export type NameParams = z.input<typeof nameParams>;

export const symbolPlace = z.object({
  path: z.string(),
  name: z.string(),
  kind: z.enum(symbolKinds),
  /** What it stands in, from outside in, joined by dots. */
  container: z.string(),
  firstLine: z.number(),
  lastLine: z.number(),
  nameLine: z.number(),
});
export type SymbolPlace = z.infer<typeof symbolPlace>;

export const reference = z.object({
  path: z.string(),
  line: z.number(),
  /** From 0, in UTF-16 units. */
  column: z.number(),
  /** The line, without its indentation. */
  text: z.string(),
});
export type Reference = z.infer<typeof reference>;

export const mapParams = z.object({
  maxChars: z.number().int().min(0),
  /** Files to put first, say those of a question. */
  focus: z.array(z.string()).optional(),
});
export type MapParams = z.input<typeof mapParams>;

export const repositoryMap = z.object({
  /** A path a line, below it the names that it defines. */
  text: z.string(),
  files: z.number(),
  ofFiles: z.number(),
});
export type RepositoryMap = z.infer<typeof repositoryMap>;

export const pathParams = z.object({ path: z.string() });
export const updateParams = z.object({ paths: z.array(z.string()) });

/** From the client to the indexer. */
export const indexRequests = {
  /** First of all; starts a scan. A second one replaces the first, say after other folders were added. */
  open: { params: openParams, result: indexState },
  state: { params: none, result: indexState },
  search: { params: searchParams, result: z.array(passage) },
  /** For a box that one types into: exact names first, then those that begin so, then those of these words. */
  symbols: { params: nameParams, result: z.array(symbolPlace) },
  /** What a file defines, in its order. */
  outline: { params: pathParams, result: z.array(symbolPlace) },
  map: { params: mapParams, result: repositoryMap },
  /** Files or folders that were saved, made, moved or deleted. */
  update: { params: updateParams, result: done },
  rescan: { params: none, result: done },
  /** Throws the index away and makes it anew. */
  rebuild: { params: none, result: indexState },
  pause: { params: none, result: done },
  resume: { params: none, result: done },
} satisfies Requests;
export type IndexRequests = typeof indexRequests;

/** From the indexer to the client. */
export const indexNotices = { changed: indexState } satisfies Notices;
