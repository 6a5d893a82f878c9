/**
 * Keeps the index in step with the folders: one file at a time, saved files first, in short transactions. It yields
 * after each file, so that a question never waits longer than one file takes.
 */

import { isAscii, isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';
import { limits } from '../../limits.ts';
import type { IndexState } from '../../protocol/indexProtocol.ts';
import { partsOf } from '../syntax/source.ts';
import { damageMessage, isDamage, rollBack } from './database.ts';
import { type FoundFile, fileAt, isFolder, leadsThroughLink, type Root, type Roots, walk } from './ignored.ts';
import { Segments } from './segments.ts';
import { IndexWriter, type Skipped } from './writer.ts';

export class Indexer {
  readonly #database: DatabaseSync;
  readonly #roots: Roots;
  readonly #writer: IndexWriter;
  readonly #segments: Segments;
  readonly #onState: (state: IndexState) => void;
  /** Paths that were reported as changed. */
  readonly #changed = new Set<string>();
  #scanWanted = false;
  /** A scan has found all files; once they are indexed, the segments can be joined for faster searches. */
  #joinWanted = false;
  #isJoining = false;
  /** Files that a scan found new or changed. */
  #pending: { readonly root: Root; readonly file: FoundFile }[] = [];
  #phase: IndexState['phase'] = 'idle';
  #paused = false;
  #closed = false;
  #problem: string | undefined;
  #transactionStartMs: number | undefined;
  #running: Promise<void> | undefined;
  #toldMs = 0;

  readonly #onDamage: () => void;

  constructor(database: DatabaseSync, roots: Roots, onState: (state: IndexState) => void, onDamage: () => void) {
    this.#onDamage = onDamage;
    this.#database = database;
    this.#roots = roots;
    this.#writer = new IndexWriter(database);
    this.#segments = new Segments(database);
    this.#onState = onState;
  }

  get state(): IndexState {
    const pending = this.#pending.length + this.#changed.size;
    const problem = this.#problem === undefined ? {} : { problem: this.#problem };
    return { phase: this.#phase, pending, ...this.#writer.counts, ...problem };
  }

  /** Compares every file with the index. */
  rescan(): void {
    this.#scanWanted = true;
    this.#start();
  }

  /** Reports files or folders, by their index paths, that were saved, created, moved or deleted. */
  update(paths: readonly string[]): void {
    for (const path of paths) this.#changed.add(path);
    // So many changes at once are a branch switch or an installation: one scan is cheaper and misses nothing. After a
    // failure, other changes may be missing too.
    const isUnsure = this.#problem !== undefined || paths.some(isRule);
    if (this.#changed.size > limits.repository.changesBeforeScan || isUnsure) {
      this.#changed.clear();
      this.#scanWanted = true;
    }
    this.#start();
  }

  pause(): void {
    this.#paused = true;
    this.#enter('paused');
  }

  resume(): void {
    this.#paused = false;
    this.#enter('idle');
    this.#start();
  }

  /** Resolves when everything is done, or it is paused. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** Finishes the current step; the next scan finds the rest again. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // Work that arrived after the last check.
      if (this.#hasWork()) this.#start();
    });
  }

  #hasWork(): boolean {
    const hasFiles = this.#scanWanted || this.#changed.size > 0 || this.#pending.length > 0;
    return !this.#paused && !this.#closed && (hasFiles || this.#joinWanted);
  }

  async #run(): Promise<void> {
    await turn();
    try {
      while (this.#hasWork()) {
        const [changed] = this.#changed;
        if (changed !== undefined) await this.#refresh(changed);
        else if (this.#scanWanted) await this.#scan();
        else if (this.#pending.length > 0) await this.#indexNext();
        else this.#joinSegments();
        this.#commitAfter(limits.repository.transactionMs);
        await turn();
      }
      this.#commitAfter(0);
      this.#problem = undefined;
    } catch (error) {
      this.#fail(error);
    }
    this.#enter(this.#paused ? 'paused' : 'idle');
  }

  /** Committed work stays; the next scan finds the rest. */
  #fail(error: unknown): void {
    this.#pending = [];
    this.#changed.clear();
    this.#scanWanted = false;
    this.#joinWanted = false;
    const isOpen = this.#transactionStartMs !== undefined;
    this.#transactionStartMs = undefined;
    try {
      if (isDamage(error)) throw error;
      if (isOpen) rollBack(this.#database);
      this.#writer.recount();
    } catch (damage) {
      if (!isDamage(damage)) throw damage;
      this.#problem = damageMessage;
      this.#onDamage();
      return;
    }
    const reason = error instanceof Error ? error.message : String(error);
    this.#problem = `The index could not be written (${reason}). Its contents are kept; rebuild it if this happens again.`;
  }

  async #scan(): Promise<void> {
    this.#scanWanted = false;
    this.#enter('scanning');
    this.#roots.forgetRules();
    this.#pending = [];
    const seen = new Set<number>();
    for (const root of this.#roots.all) {
      for (const files of walk(root.directory, root.rules())) {
        this.#compare(root, files, seen);
        await turn();
        // The scan was cut short, so files that it did not reach must not count as deleted.
        if (this.#scanWanted || this.#paused || this.#closed) {
          this.#scanWanted = true;
          return;
        }
      }
    }
    this.#removeOthers(seen);
    this.#joinWanted = true;
  }

  #compare(root: Root, files: readonly FoundFile[], seen: Set<number>): void {
    for (const file of files) {
      const known = this.#writer.find(root.prefix + file.path);
      if (known) seen.add(known.id);
      if (known?.bytes === file.bytes && known.modifiedMs === file.modifiedMs) continue;
      if (seen.size + this.#pending.length < limits.repository.files) this.#pending.push({ root, file });
    }
  }

  #removeOthers(seen: ReadonlySet<number>): void {
    const ids = this.#database
      .prepare('SELECT id FROM files')
      .all()
      .map((row) => Number(row['id']));
    for (const id of ids) {
      if (seen.has(id)) continue;
      this.#begin();
      this.#writer.remove(id);
    }
  }

  /** Indexes a file, walks a folder, or removes a path that is gone or now excluded. */
  async #refresh(path: string): Promise<void> {
    this.#changed.delete(path);
    const place = this.#roots.locate(path);
    if (!place) return;
    const { root, inside } = place;
    const absolute = join(root.directory, inside);
    const folder = isFolder(absolute);
    const file = fileAt(root.directory, inside);
    const out = root.rules().ignoresAnywhere(inside, folder) || leadsThroughLink(root.directory, inside);
    if (out || (!file && !folder)) {
      this.#begin();
      this.#writer.removePath(path);
    } else if (file) await this.#index(root, file);
    else for (const files of walk(root.directory, root.rules(), inside)) this.#compare(root, files, new Set());
  }

  async #indexNext(): Promise<void> {
    const next = this.#pending.pop();
    if (next) await this.#index(next.root, next.file);
  }

  async #index(root: Root, file: FoundFile): Promise<void> {
    this.#enter('indexing');
    const named = { ...file, path: root.prefix + file.path };
    const content = contentOf(join(root.directory, file.path), file.bytes);
    this.#begin();
    if (content.kind === 'skipped') return this.#writer.putSkipped(named, content.why);
    const known = this.#writer.find(named.path);
    if (known?.digest === content.digest) return this.#writer.touch(known.id, named);
    this.#writer.put(named, content.digest, content.text, await partsOf(named.path, content.text));
  }

  /** Joins one step of segments. Commits indexed files first, because a step is a separate transaction. */
  #joinSegments(): void {
    this.#commitAfter(0);
    this.#joinWanted = (this.#isJoining || this.#segments.areScattered) && this.#segments.joinSome();
    this.#isJoining = this.#joinWanted;
  }

  #begin(): void {
    if (this.#transactionStartMs !== undefined) return;
    this.#database.exec('BEGIN IMMEDIATE');
    this.#transactionStartMs = performance.now();
  }

  #commitAfter(ms: number): void {
    if (this.#transactionStartMs === undefined || performance.now() - this.#transactionStartMs < ms) return;
    this.#database.exec('COMMIT');
    this.#transactionStartMs = undefined;
  }

  #enter(phase: IndexState['phase']): void {
    const now = performance.now();
    const changed = phase !== this.#phase;
    this.#phase = phase;
    if (!changed && now - this.#toldMs < limits.repository.stateMs) return;
    this.#toldMs = now;
    this.#onState(this.state);
  }
}

/** Whether ignore rules changed, which may include or exclude any file. */
const isRule = (path: string): boolean => /(^|\/)\.gitignore$/.test(path);

// Reads the text of a file, unless it isn't worth indexing.

type Content =
  | { readonly kind: 'text'; readonly text: string; readonly digest: string }
  | { readonly kind: 'skipped'; readonly why: Skipped };

const skipped = (why: Skipped): Content => ({ kind: 'skipped', why });

function contentOf(path: string, bytes: number): Content {
  if (bytes > limits.repository.fileBytes) return skipped('too-large');
  const content = bytesOf(path);
  if (content === undefined) return skipped('unreadable');
  // Git uses the same test for binary files.
  if (content.subarray(0, 8000).includes(0)) return skipped('binary');
  const text = textOf(content);
  if (isGenerated(text)) return skipped('generated');
  return { kind: 'text', text, digest: createHash('sha1').update(content).digest('hex') };
}

function bytesOf(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    // Deleted in the meantime or not readable; the state counts it.
    return undefined;
  }
}

/** Minified code and data have very long lines. */
function isGenerated(text: string): boolean {
  let lines = 1;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines++;
  return text.length > limits.repository.generatedChars && text.length / lines > limits.repository.meanLineChars;
}

const latin1 = new TextDecoder('windows-1252');

/** Decodes UTF-8 without a byte-order mark; other bytes as Windows-1252, which old Western sources use. */
export function textOf(content: Buffer): string {
  if (isAscii(content)) return content.toString('latin1');
  return isUtf8(content) ? content.toString('utf8').replace(/^\uFEFF/, '') : latin1.decode(content);
}
