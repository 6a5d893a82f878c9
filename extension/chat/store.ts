import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sentence } from '../client/failure.ts';
import type { Log } from '../log.ts';
import { apply, type Conversation, emptyConversation, type JournalRecord, replay } from './conversation.ts';
import { Journal, readJournal } from './journal.ts';
import { ChatLibrary, isChatId } from './library.ts';

/** Names the conversation on screen. VS Code's workspaceState would do, but reaches the disk seconds later. */
const pointer = 'current';

/** The conversation on screen and its file, beside those of earlier ones. */
export class ChatStore {
  readonly library: ChatLibrary;
  readonly #folder: string;
  readonly #log: Log;
  #current: Conversation = emptyConversation(newId());
  #journal: Journal;
  #written = false;

  /** `folder`: where the journals of this workspace are. */
  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
    this.library = new ChatLibrary(folder);
    this.#journal = this.#journalOf(this.#current.id);
  }

  get conversation(): Conversation {
    return this.#current;
  }

  /** Takes up the conversation that was on screen before the window was closed or killed. */
  async restore(): Promise<void> {
    await this.#take(await readFile(join(this.#folder, pointer), 'utf8').catch(() => ''));
  }

  /** Puts an earlier conversation on screen. False: it is gone. */
  async open(id: string): Promise<boolean> {
    const left = this.#journal;
    await left.flush();
    if (!(await this.#take(id))) return false;
    await left.close();
    await this.#point(id);
    return true;
  }

  /** An empty conversation. Its file comes with the first question. */
  async startNew(): Promise<void> {
    const left = this.#journal;
    this.#current = emptyConversation(newId());
    this.#journal = this.#journalOf(this.#current.id);
    this.#written = false;
    await left.close();
    await this.#point('');
  }

  /** Names a conversation, on screen or not. */
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

  /** Everything that was said so far is in its file. */
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
    if (found.skipped > 0) this.#log.warn(`Chat history: ${found.skipped} line(s) were not readable and left out.`);
    this.#current = replay(id, found.records);
    this.#journal = this.#journalOf(id);
    this.#written = true;
    return true;
  }

  async #point(id: string): Promise<void> {
    try {
      await mkdir(this.#folder, { recursive: true });
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
