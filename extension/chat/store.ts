import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { usedOrder } from '../../engine/fileTimes.ts';
import { sentence } from '../client/failure.ts';
import type { Log } from '../parts.ts';
import {
  apply,
  type Conversation,
  emptyConversation,
  isWhole,
  type JournalRecord,
  recordsUpTo,
  replay,
  titleOf,
  wholeRecords,
} from './conversation.ts';
import { Journal, type Rebuilt, readJournal } from './journal.ts';

/** File with the id of the conversation on screen. VS Code writes workspaceState to disk only seconds later. */
const pointer = 'current';
/** Ids become part of a path. */
const validId = /^[a-z0-9-]{1,64}$/;
const extension = '.jsonl';

/** A stored conversation, as the list shows it. */
export interface ChatEntry {
  id: string;
  title: string;
  questions: number;
  /** Milliseconds since 1970 of its last event. */
  changedAt: number;
  /** Full text of the conversation, for searching. */
  text: string;
}

/** The conversations of a workspace: one journal each in one folder. One of them is on screen. */
export class ChatStore {
  readonly #folder: string;
  readonly #log: Log;
  readonly #known = new Map<string, { stamp: string; entry: ChatEntry }>();
  #current: Conversation = emptyConversation(newId());
  #journal: Journal;
  #written = false;

  /** `folder`: the journals of this workspace. */
  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
    this.#journal = this.#journalOf(this.#current);
  }

  get conversation(): Conversation {
    return this.#current;
  }

  /** Restores the conversation that was on screen before the window closed. */
  async restore(): Promise<void> {
    await this.#take(await readFile(join(this.#folder, pointer), 'utf8').catch(() => ''));
  }

  /** Opens an earlier conversation. False if it no longer exists. */
  async open(id: string): Promise<boolean> {
    const left = this.#journal;
    await left.flush();
    if (!(await this.#take(id))) return false;
    await left.close();
    await this.#point(id);
    return true;
  }

  /** Starts an empty conversation. The first question creates its file. */
  async startNew(): Promise<void> {
    await this.#begin();
    await this.#point('');
  }

  /** Starts a conversation with copies of the turns up to one of those on screen. */
  async fork(turn: string, title: string): Promise<void> {
    const records = recordsUpTo(this.#current, turn);
    const left = this.#begin();
    for (const record of [...records, { type: 'title', title } as const]) this.record(record);
    await left;
    await this.#journal.flush();
  }

  /** Shows an empty conversation at once. Resolves when the previous one is on disk. */
  #begin(): Promise<void> {
    const left = this.#journal;
    this.#current = emptyConversation(newId());
    this.#journal = this.#journalOf(this.#current);
    this.#written = false;
    return left.close();
  }

  /** Applies an event and journals it. */
  record(record: JournalRecord): void {
    if (!this.#written) {
      this.#written = true;
      this.#journal.append({ type: 'chat', version: 1, id: this.#current.id, at: Date.now() });
      void this.#point(this.#current.id);
    }
    apply(this.#current, record);
    this.#journal.append(record);
  }

  /** Resolves when all events are in the journal. */
  flush(): Promise<void> {
    return this.#journal.flush();
  }

  close(): Promise<void> {
    return this.#journal.close();
  }

  /** Latest first. Reads only journals that changed since the last call. */
  async list(): Promise<ChatEntry[]> {
    const names = await readdir(this.#folder).catch(() => []);
    const ids = names.flatMap((name) => (name.endsWith(extension) ? [name.slice(0, -extension.length)] : []));
    const entries = await Promise.all(ids.map((id) => this.#entry(id)));
    const filled = entries.flatMap((entry) => (entry === undefined || entry.questions === 0 ? [] : [entry]));
    return filled.sort((a, b) => usedOrder(b.changedAt) - usedOrder(a.changedAt));
  }

  async read(id: string): Promise<Conversation | undefined> {
    const found = validId.test(id) ? await this.#journalAt(id) : undefined;
    if (found === undefined) return undefined;
    if (found.skipped > 0) this.#log.warn(`Chat history: skipped ${found.skipped} unreadable line(s).`);
    return replay(id, found.records);
  }

  /** Renames a conversation, on screen or not. */
  async rename(id: string, title: string): Promise<void> {
    if (id === this.#current.id) {
      this.record({ type: 'title', title });
      return this.#journal.flush();
    }
    const journal = new Journal(this.#pathOf(id), (error) => this.#notSaved(error));
    journal.append({ type: 'title', title });
    await journal.close();
  }

  async remove(id: string): Promise<void> {
    if (!validId.test(id)) return;
    this.#known.delete(id);
    await rm(this.#pathOf(id), { force: true });
  }

  async #take(id: string): Promise<boolean> {
    const found = await this.read(id);
    if (found === undefined) return false;
    this.#current = found;
    this.#journal = this.#journalOf(found);
    await this.#journal.remember();
    this.#written = true;
    return true;
  }

  async #entry(id: string): Promise<ChatEntry | undefined> {
    const file = await stat(this.#pathOf(id)).catch(() => undefined);
    if (file === undefined) return undefined;
    const stamp = `${file.mtimeMs} ${file.size}`;
    const known = this.#known.get(id);
    if (known?.stamp === stamp) return known.entry;
    const conversation = await this.read(id);
    if (conversation === undefined) return undefined;
    const views = conversation.turns.map(({ view }) => view);
    const text = views.map(({ question, answer }) => `${question}\n${answer}`).join('\n');
    const entry = { id, title: titleOf(conversation), questions: views.length, changedAt: file.mtimeMs, text };
    this.#known.set(id, { stamp, entry });
    return entry;
  }

  async #point(id: string): Promise<void> {
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      const file = join(this.#folder, pointer);
      await writeFile(`${file}.new`, id);
      await rename(`${file}.new`, file);
    } catch (error) {
      this.#notSaved(error);
    }
  }

  #pathOf(id: string): string {
    return join(this.#folder, `${id}${extension}`);
  }

  /** Skips one that cannot be read and leaves it in place, so that the others still open. */
  async #journalAt(id: string): ReturnType<typeof readJournal> {
    try {
      return await readJournal(this.#pathOf(id));
    } catch (error) {
      this.#log.warn(`Chat history: ${id} could not be read and is kept as it is: ${sentence(error)}`);
      return undefined;
    }
  }

  /** It rewrites the file from the conversation if another program changed it. */
  #journalOf(conversation: Conversation): Journal {
    const rebuilt: Rebuilt = (stored, waiting) => {
      if (waiting !== undefined && isWhole(conversation, [...stored, ...waiting])) return undefined;
      this.#log.warn(`Chat history: the file of ${conversation.id} was changed or removed and is written again.`);
      if (conversation === this.#current) void this.#point(conversation.id);
      return wholeRecords(conversation, stored);
    };
    return new Journal(this.#pathOf(conversation.id), (error) => this.#notSaved(error), rebuilt);
  }

  #notSaved(error: unknown): void {
    this.#log.error(`Chat history was not saved: ${sentence(error)}`);
  }
}

/** Sorts by time. */
const newId = (): string => `${Date.now().toString(36)}-${randomUUID().slice(0, 8)}`;
