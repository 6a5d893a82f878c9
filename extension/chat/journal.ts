import { type FileHandle, mkdir, open, readFile, stat } from 'node:fs/promises';
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

/** Reads a journal; undefined where there is none. */
export async function readJournal(path: string): Promise<{ records: JournalRecord[]; skipped: number } | undefined> {
  try {
    if ((await stat(path)).size > limits.chat.journalBytes) return { records: [], skipped: 1 };
    return parseJournal(await readFile(path, 'utf8'));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Appends events to a conversation's file, one JSON object a line, in order. Buffers streamed text for a short time and
 * writes everything else at once. A killed process loses at most the buffered text.
 */
export class Journal {
  readonly #path: string;
  readonly #onError: (error: unknown) => void;
  #file: Promise<FileHandle> | undefined;
  #writing: Promise<void> = Promise.resolve();
  #gathered: Extract<JournalRecord, { type: 'delta' }> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(path: string, onError: (error: unknown) => void) {
    this.#path = path;
    this.#onError = onError;
  }

  append(record: JournalRecord): void {
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
    const file = await this.#file?.catch(() => undefined);
    this.#file = undefined;
    await file?.close();
  }

  #gather(record: Extract<JournalRecord, { type: 'delta' }>): void {
    const gathered = this.#gathered;
    if (gathered !== undefined && gathered.turn === record.turn && gathered.kind === record.kind) {
      gathered.text += record.text;
      return;
    }
    this.#release();
    this.#gathered = { ...record };
    this.#timer = setTimeout(() => this.#release(), limits.chat.journalFlushMs);
  }

  #release(): void {
    clearTimeout(this.#timer);
    const record = this.#gathered;
    this.#gathered = undefined;
    if (record !== undefined) this.#write(record);
  }

  #write(record: JournalRecord): void {
    const line = `${JSON.stringify(record)}\n`;
    this.#writing = this.#writing
      .then(async () => {
        this.#file ??= openForAppend(this.#path);
        await (await this.#file).appendFile(line);
      })
      .catch((error: unknown) => {
        this.#file = undefined;
        this.#onError(error);
      });
  }
}

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
