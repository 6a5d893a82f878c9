import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sentence } from '../client/failure.ts';
import type { Log } from '../log.ts';
import { apply, type Conversation, emptyConversation, type JournalRecord, replay } from './conversation.ts';
import { Journal, readJournal } from './journal.ts';
import { ChatLibrary, isChatId } from './library.ts';

/** File with the id of the conversation on screen. VS Code's workspaceState reaches the disk seconds later. */
const pointer = 'current';

/** The conversation on screen and its journal. */
export class ChatStore {
  readonly library: ChatLibrary;
  readonly #folder: string;
  readonly #log: Log;
  #current: Conversation = emptyConversation(newId());
  #journal: Journal;
  #written = false;

  /** `folder`: the journals of this workspace. */
  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
    this.library = new ChatLibrary(folder);
    this.#journal = this.#journalOf(this.#current.id);
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
    const left = this.#journal;
    this.#current = emptyConversation(newId());
    this.#journal = this.#journalOf(this.#current.id);
    this.#written = false;
    await left.close();
    await this.#point('');
  }

  /** Renames a conversation, on screen or not. */
  async rename(id: string, title: string): Promise<void> {
    if (id === this.#current.id) {
      this.record({ type: 'title', title });
      return this.#journal.flush();
    }
    const journal = this.#journalOf(id);
    journal.append({ type: 'title', title });
    await journal.close();
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

  async #take(id: string): Promise<boolean> {
    if (!isChatId(id)) return false;
    const found = await readJournal(this.library.pathOf(id));
    if (found === undefined) return false;
    if (found.skipped > 0) this.#log.warn(`Chat history: skipped ${found.skipped} unreadable line(s).`);
    this.#current = replay(id, found.records);
    this.#journal = this.#journalOf(id);
    this.#written = true;
    return true;
  }

  async #point(id: string): Promise<void> {
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      const file = join(this.#folder, pointer);
      await writeFile(`${file}.new`, id);
      await rename(`${file}.new`, file);
    } catch (error) {
      this.#log.error(`Chat history was not saved: ${sentence(error)}`);
    }
  }

  #journalOf(id: string): Journal {
    const failed = (error: unknown) => this.#log.error(`Chat history was not saved: ${sentence(error)}`);
    return new Journal(this.library.pathOf(id), failed);
  }
}

/** Sorts by time. */
const newId = (): string => `${Date.now().toString(36)}-${randomUUID().slice(0, 8)}`;
