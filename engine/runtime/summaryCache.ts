/** Summaries that were made before, by what they were made of: content, model and length. They outlive the process. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { limits } from '../limits.ts';

const kept = z.object({ text: z.string(), parts: z.number(), finish: z.enum(['stop', 'length']) });
export type KeptSummary = z.infer<typeof kept>;

/** Another one: prompts have changed, and what was kept is no longer what would be written. */
const version = 2;

export class SummaryCache {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** What does not read back is as good as absent. */
  async get(ingredients: unknown): Promise<KeptSummary | undefined> {
    const json = await readFile(this.#path(ingredients), 'utf8').catch(() => '');
    try {
      return kept.safeParse(JSON.parse(json)).data;
    } catch {
      return undefined;
    }
  }

  /** A full or read-only disk costs the next reader time, and is no failure of this one. */
  async put(ingredients: unknown, { text, parts, finish }: KeptSummary): Promise<void> {
    const path = this.#path(ingredients);
    try {
      await mkdir(this.#directory, { recursive: true });
      await writeFile(`${path}.new`, JSON.stringify({ text, parts, finish }));
      await rename(`${path}.new`, path);
      await this.#prune();
    } catch {
      return;
    }
  }

  /** The oldest go, a quarter at a time. */
  async #prune(): Promise<void> {
    const names = await readdir(this.#directory);
    if (names.length <= limits.store.summaries) return;
    const aged = await Promise.all(
      names.map(async (name) => ({ name, ms: (await stat(join(this.#directory, name))).mtimeMs })),
    );
    const oldest = aged.sort((a, b) => a.ms - b.ms).slice(0, Math.ceil(names.length / 4));
    await Promise.all(oldest.map(({ name }) => rm(join(this.#directory, name), { force: true })));
  }

  #path(ingredients: unknown): string {
    const digest = createHash('sha256')
      .update(JSON.stringify([version, ingredients]))
      .digest('hex');
    return join(this.#directory, `${digest}.json`);
  }
}
