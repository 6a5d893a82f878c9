/**
 * The protocol between the extension and the indexer process: JSON-RPC over the channel that the child process inherits.
 * Paths are relative to the workspace folder and use `/`. In a multi-root workspace they start with the folder's name.
 * Lines start at 1, end inclusive.
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
  /** Absolute path of the database. Its folder is created. */
  database: z.string(),
  folders: z.array(z.object({ name: z.string(), directory: z.string() })).min(1),
  /** Globs with the syntax of `files.exclude`. */
  excludes: z.array(z.string()).default([]),
  /** Absent: keyword search only. */
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
  /** Files waiting to be indexed. */
  pending: z.number(),
  chunks: z.number(),
  symbols: z.number(),
  /** Number of files whose content was skipped, by reason. */
  skipped: z.record(z.string(), z.number()),
  /** The last error, for the user. */
  problem: z.string().optional(),
  /** Absent if no embedding model is chosen. */
  embeddings: z
    .object({
      model: z.string(),
      phase: z.enum(['idle', 'loading', 'embedding', 'paused', 'failed']),
      /** Embedded chunks, and all chunks. */
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
  /** Also searches by embeddings, if there are any; the question is embedded first. */
  meaning: z.boolean().default(false),
});
export type SearchParams = z.input<typeof searchParams>;

/** A chunk of a file found for a question, with its current text on disk. */
export const passage = z.object({
  path: z.string(),
  firstLine: z.number(),
  lastLine: z.number(),
  /** Higher is better. Comparable only within one result list. */
  score: z.number(),
  /**
   * Share of the question's words, weighted by rarity, that the chunk and its path contain; 1 for a place that the
   * question names.
   */
  coverage: z.number(),
  /** First lines of the enclosing definitions, outermost first, joined by ` › `; '' for none. */
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
  /** Names of the enclosing definitions, outermost first, joined by dots. */
  container: z.string(),
  firstLine: z.number(),
  lastLine: z.number(),
  nameLine: z.number(),
});
export type SymbolPlace = z.infer<typeof symbolPlace>;

export const reference = z.object({
  path: z.string(),
  line: z.number(),
  /** Column in UTF-16 units, starting at 0. */
  column: z.number(),
  /** The line without its indentation. */
  text: z.string(),
});
export type Reference = z.infer<typeof reference>;

export const mapParams = z.object({
  maxChars: z.number().int().min(0),
  /** Files to list first, such as those of a question. */
  focus: z.array(z.string()).optional(),
});
export type MapParams = z.input<typeof mapParams>;

export const repositoryMap = z.object({
  /** One path a line, followed by the names that the file defines. */
  text: z.string(),
  files: z.number(),
  ofFiles: z.number(),
});
export type RepositoryMap = z.infer<typeof repositoryMap>;

export const pathParams = z.object({ path: z.string() });
export const updateParams = z.object({ paths: z.array(z.string()) });

/** Requests from the client to the indexer. */
export const indexRequests = {
  /** Must be the first request; starts a scan. A later one replaces it, for example after folders were added. */
  open: { params: openParams, result: indexState },
  state: { params: none, result: indexState },
  search: { params: searchParams, result: z.array(passage) },
  /** Symbol search for a quick pick: exact matches first, then prefix matches, then word matches. */
  symbols: { params: nameParams, result: z.array(symbolPlace) },
  /** Definitions of a file, in file order. */
  outline: { params: pathParams, result: z.array(symbolPlace) },
  map: { params: mapParams, result: repositoryMap },
  /** Files or folders that were saved, created, moved or deleted. */
  update: { params: updateParams, result: done },
  rescan: { params: none, result: done },
  /** Deletes the index and rebuilds it. */
  rebuild: { params: none, result: indexState },
  pause: { params: none, result: done },
  resume: { params: none, result: done },
} satisfies Requests;
export type IndexRequests = typeof indexRequests;

/** Notifications from the indexer to the client. */
export const indexNotices = { changed: indexState } satisfies Notices;
