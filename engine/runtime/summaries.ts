/** Summaries of files and folders, from the cache or from the model. */

import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { usedOrder } from '../fileTimes.ts';
import { partsOf } from '../index/syntax/source.ts';
import { limits } from '../limits.ts';
import type { SummariseResult } from '../protocol/engineProtocol.ts';
import type { SymbolRange } from '../tasks/sections.ts';
import {
  type FolderFile,
  type Summariser,
  type SummaryRequest,
  summarise,
  summariseFolder,
} from '../tasks/summarise.ts';

export interface SummariesRequest extends SummaryRequest {
  /** Not empty for a folder. */
  readonly files: readonly FolderFile[];
  /** Ignores a cached summary; a folder still uses the cached summaries of its files. */
  readonly fresh: boolean;
}

/** The caller's symbols, or else the file's top-level definitions by its syntax. */
async function symbolsOf({ path, text, symbols }: SummaryRequest): Promise<readonly SymbolRange[]> {
  if (symbols.length > 0) return symbols;
  const { definitions } = await partsOf(path, text);
  return definitions
    .filter(({ container }) => container === '')
    .map(({ name, firstLine, lastLine }) => ({ name, startLine: firstLine - 1, endLine: lastLine - 1 }));
}

const nothing = { promptTokens: 0, cachedTokens: 0, generatedTokens: 0, timeToFirstTokenMs: 0, tokensPerSecond: 0 };

/** `model`: part of the cache key. */
export class Summaries {
  readonly #summariser: Summariser;
  readonly #cache: SummaryCache;
  readonly #model: string;

  constructor(summariser: Summariser, cache: SummaryCache, model: string) {
    this.#summariser = summariser;
    this.#cache = cache;
    this.#model = model;
  }

  make({ files, fresh, ...request }: SummariesRequest): Promise<SummariseResult> {
    const { path, text, languageId, symbols, maxTokens } = request;
    const ingredients = [path, text, languageId, symbols, maxTokens, files];
    return this.#kept(ingredients, fresh, request.onText, async () =>
      files.length === 0
        ? summarise(this.#summariser, { ...request, symbols: await symbolsOf(request) })
        : summariseFolder(this.#summariser, { ...request, files, summariseFile: (...of) => this.#note(...of) }),
    );
  }

  #note(file: FolderFile, maxTokens: number): Promise<SummariseResult> {
    const silent = { onText: () => {}, onProgress: () => {} };
    return this.#kept([file, maxTokens], false, silent.onText, () =>
      summarise(this.#summariser, { ...file, symbols: [], maxTokens, ...silent }),
    );
  }

  async #kept(
    ingredients: unknown,
    fresh: boolean,
    onText: (text: string) => void,
    run: () => Promise<SummariseResult>,
  ): Promise<SummariseResult> {
    const key = [this.#model, this.#summariser.contextTokens, ingredients];
    const found = fresh ? undefined : await this.#cache.get(key);
    if (found) {
      onText(found.text);
      return { ...found, statistics: nothing };
    }
    const summary = await run();
    // The length limit is part of the key, so a summary that reached it is cached; one cut off by a full context is not.
    const { finish } = summary;
    if (finish === 'stop' || finish === 'length') await this.#cache.put(key, { ...summary, finish });
    return summary;
  }
}

// Cache of summaries on disk, keyed by content, model and length.

const kept = z.object({ text: z.string(), parts: z.number(), finish: z.enum(['stop', 'length']) });
type KeptSummary = z.infer<typeof kept>;
/** With the CRC-32 of the text, to detect accidental damage. */
const stored = kept.extend({ sum: z.number() }).refine(({ text, sum }) => crc32(text) === sum);

/** Increment it when the prompts change, which makes cached summaries stale. */
const version = 3;

export class SummaryCache {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** An unreadable or damaged file counts as absent. */
  async get(ingredients: unknown): Promise<KeptSummary | undefined> {
    const json = await readFile(this.#path(ingredients), 'utf8').catch(() => '');
    try {
      return stored.transform(({ sum: _, ...summary }) => summary).safeParse(JSON.parse(json)).data;
    } catch {
      return undefined;
    }
  }

  /** A full or read-only disk only loses the cached copy, so it is not an error. */
  async put(ingredients: unknown, { text, parts, finish }: KeptSummary): Promise<void> {
    const path = this.#path(ingredients);
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await writeFile(`${path}.new`, JSON.stringify({ text, parts, finish, sum: crc32(text) }), { mode: 0o600 });
      await rename(`${path}.new`, path);
      await this.#prune();
    } catch {
      return;
    }
  }

  /** Removes the oldest quarter. */
  async #prune(): Promise<void> {
    const names = await readdir(this.#directory);
    if (names.length <= limits.store.summaries) return;
    const aged = await Promise.all(
      names.map(async (name) => ({ name, ms: (await stat(join(this.#directory, name))).mtimeMs })),
    );
    const oldest = aged.sort((a, b) => usedOrder(a.ms) - usedOrder(b.ms)).slice(0, Math.ceil(names.length / 4));
    await Promise.all(oldest.map(({ name }) => rm(join(this.#directory, name), { force: true })));
  }

  #path(ingredients: unknown): string {
    const digest = createHash('sha256')
      .update(JSON.stringify([version, ingredients]))
      .digest('hex');
    return join(this.#directory, `${digest}.json`);
  }
}
