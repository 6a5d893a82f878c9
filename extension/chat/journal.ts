/** A conversation's file: one JSON object a line. */
import { type FileHandle, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { limits } from '../limits.ts';
import { type JournalRecord, journalRecord } from './conversation.ts';

/** Parses a journal. Skips and counts lines that a crash cut or that are invalid. */
export function parseJournal(text: string): { records: JournalRecord[]; skipped: number } {
  const records: JournalRecord[] = [];
  let skipped = 0;
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    const record = parseLine(line);
    if (record === undefined) skipped += 1;
    else records.push(record);
  }
  return { records, skipped };
}

function parseLine(line: string): JournalRecord | undefined {
  let raw: unknown;
  try {
    raw = JSON.parse(line);
  } catch {
    return undefined;
  }
  const parsed = journalRecord.safeParse(raw);
  return parsed.success ? parsed.data : undefined;
}

/** Reads a journal; undefined if there is none. */
export async function readJournal(path: string): Promise<{ records: JournalRecord[]; skipped: number } | undefined> {
  try {
    if ((await stat(path)).size > limits.chat.journalBytes) return { records: [], skipped: 1 };
    return parseJournal(await readFile(path, 'utf8'));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** State of a file after the journal's last write. */
interface FileState {
  readonly ino: number;
  readonly size: number;
  readonly mtimeMs: number;
}

/**
 * What a conversation's file should hold.
 * @param stored the file's events
 * @param waiting events that are not written yet; undefined if one could not be written, which the file then lacks
 * @returns all events of the conversation, plus those that only the file has; undefined if the file and the waiting events
 * contain the whole conversation.
 */
export type Rebuilt = (
  stored: readonly JournalRecord[],
  waiting: readonly JournalRecord[] | undefined,
) => readonly JournalRecord[] | undefined;

/**
 * Appends events to a conversation's file in order. Buffers streamed text for a short time and writes everything else at once.
 * A killed process loses at most the buffered text. If another program removed, replaced, truncated or changed the file, or a write
 * failed, and the file lacks part of the conversation, writes the whole file again.
 */
export class Journal {
  readonly #path: string;
  readonly #onError: (error: unknown) => void;
  readonly #rebuilt: Rebuilt | undefined;
  #file: FileHandle | undefined;
  #left: FileState | undefined;
  #hasFailed = false;
  /** Another program changed it other than by appending. */
  #isSuspect = false;
  #writing: Promise<void> = Promise.resolve();
  /** Not yet written. */
  #waiting: JournalRecord[] = [];
  #gathered: Extract<JournalRecord, { type: 'delta' }> | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** Without `rebuilt` the file is never repaired. */
  constructor(path: string, onError: (error: unknown) => void, rebuilt?: Rebuilt) {
    this.#path = path;
    this.#onError = onError;
    this.#rebuilt = rebuilt;
  }

  /** Call after reading the file: later changes are then noticed. */
  async remember(): Promise<void> {
    this.#left = await stat(this.#path).catch(() => undefined);
  }

  append(record: JournalRecord): void {
    if (record.type === 'progress') return;
    if (record.type === 'delta') this.#gather(record);
    else {
      this.#release();
      this.#write(record);
    }
  }

  /** Resolves when everything appended so far is in the file. */
  async flush(): Promise<void> {
    this.#release();
    await this.#writing;
  }

  async close(): Promise<void> {
    await this.flush();
    if (this.#rebuilt !== undefined && (this.#hasFailed || (await this.#isReplaced())))
      await this.#mend(this.#rebuilt).catch(this.#onError);
    await this.#closeFile();
  }

  #gather(record: Extract<JournalRecord, { type: 'delta' }>): void {
    const gathered = this.#gathered;
    if (gathered !== undefined && gathered.turn === record.turn && gathered.kind === record.kind) {
      gathered.text += record.text;
      return;
    }
    this.#release();
    const { tokens: _, ...stored } = record;
    this.#gathered = stored;
    this.#timer = setTimeout(() => this.#release(), limits.chat.journalFlushMs);
  }

  #release(): void {
    const record = this.#taken();
    if (record !== undefined) this.#write(record);
  }

  #taken(): JournalRecord | undefined {
    clearTimeout(this.#timer);
    const record = this.#gathered;
    this.#gathered = undefined;
    return record;
  }

  #write(record: JournalRecord): void {
    this.#waiting.push(record);
    this.#writing = this.#writing.then(() => this.#writeNext());
  }

  async #writeNext(): Promise<void> {
    const [record] = this.#waiting;
    // Rewriting the file has written it already.
    if (record === undefined) return;
    // Only at milestones: a full disk would otherwise be written to for every delta.
    if (this.#hasFailed && this.#rebuilt !== undefined && !isMilestone(record)) return void this.#waiting.shift();
    try {
      if (
        this.#rebuilt !== undefined &&
        !(await this.#isAsLeft(isMilestone(record))) &&
        (await this.#mend(this.#rebuilt))
      )
        return;
      this.#waiting.shift();
      this.#file ??= await openForAppend(this.#path);
      await this.#file.appendFile(lineOf(record));
      // Of the open file: another file may have its name by now.
      this.#left = await this.#file.stat();
    } catch (error) {
      this.#hasFailed = true;
      await this.#closeFile();
      this.#onError(error);
    }
  }

  /** By another window, which may not have read the last events. A file that was removed stays so until the next event. */
  async #isReplaced(): Promise<boolean> {
    const now = await stat(this.#path).catch(() => undefined);
    return this.#left !== undefined && now !== undefined && now.ino !== this.#left.ino;
  }

  /** True even if another window appended. `isThorough`: false also if only the date differs. */
  async #isAsLeft(isThorough: boolean): Promise<boolean> {
    if (this.#hasFailed) return false;
    if (this.#left === undefined) return true;
    const { ino, size, mtimeMs } = this.#left;
    const now = await stat(this.#path).catch(() => undefined);
    if (now === undefined || now.ino !== ino || now.size < size) return false;
    if (now.size === size && now.mtimeMs !== mtimeMs) this.#isSuspect = true;
    // Some file systems update the date late, so the file is not read again for every delta.
    return !(isThorough && this.#isSuspect);
  }

  /**
   * Writes the whole file again, with the waiting events, if it lacks something.
   * @returns whether it lacked something
   */
  async #mend(rebuilt: Rebuilt): Promise<boolean> {
    await this.remember();
    const stored = await readJournal(this.#path).catch(() => undefined);
    const waiting = this.#gathered === undefined ? this.#waiting : [...this.#waiting, this.#gathered];
    const records = rebuilt(stored?.records ?? [], this.#hasFailed ? undefined : waiting);
    // The name may be another file's by now.
    await this.#closeFile();
    if (records !== undefined) await this.#writeWhole(records);
    this.#hasFailed = false;
    this.#isSuspect = false;
    return records !== undefined;
  }

  async #writeWhole(records: readonly JournalRecord[]): Promise<void> {
    // The rewritten file contains these.
    this.#waiting = [];
    this.#taken();
    // True until the write succeeds.
    this.#hasFailed = true;
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    const fresh = `${this.#path}.${process.pid}.new`;
    try {
      await writeFile(fresh, records.map(lineOf).join(''), { mode: 0o600 });
      this.#left = await stat(fresh);
      await rename(fresh, this.#path);
    } catch (error) {
      await rm(fresh, { force: true });
      throw error;
    }
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => undefined);
  }
}

const isMilestone = ({ type }: JournalRecord): boolean => type === 'ask' || type === 'end';

const lineOf = (record: JournalRecord): string => `${JSON.stringify(record)}\n`;

/** Ends a line that a crash cut, so that the next record starts on its own line. */
async function openForAppend(path: string): Promise<FileHandle> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, 'a+', 0o600);
  const { size } = await file.stat();
  if (size === 0) return file;
  const last = Buffer.alloc(1);
  await file.read(last, 0, 1, size - 1);
  if (last[0] !== '\n'.charCodeAt(0)) await file.appendFile('\n');
  return file;
}
