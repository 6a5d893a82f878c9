import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sentence } from '../client/failure.ts';
import type { Log } from '../log.ts';
import { apply, type Conversation, type JournalRecord, replay } from './conversation.ts';
import { Journal, readJournal } from './journal.ts';

/** Names the conversation on screen. VS Code's workspaceState would do, but reaches the disk seconds later. */
const pointer = 'current';
/** It becomes part of a path. */
const validId = /^[a-z0-9-]{1,64}$/;

/** The conversation on screen and its file. Earlier ones stay in the folder. */
export class ChatStore {
  private readonly folder: string;
  private readonly log: Log;
  private current: Conversation = { id: newId(), turns: [] };
  private journal: Journal;
  private written = false;

  /** `folder`: where the journals of this workspace are. */
  constructor(folder: string, log: Log) {
    this.folder = folder;
    this.log = log;
    this.journal = this.journalOf(this.current.id);
  }

  get conversation(): Conversation {
    return this.current;
  }

  /** Takes up the conversation that was on screen before the window was closed or killed. */
  async restore(): Promise<void> {
    const id = await readFile(join(this.folder, pointer), 'utf8').catch(() => '');
    if (!validId.test(id)) return;
    const found = await readJournal(this.pathOf(id));
    if (found === undefined) return;
    if (found.skipped > 0) this.log.warn(`Chat history: ${found.skipped} line(s) were not readable and left out.`);
    this.current = replay(id, found.records);
    this.journal = this.journalOf(id);
    this.written = true;
  }

  /** An empty conversation. Its file comes with the first question. */
  async startNew(): Promise<void> {
    const left = this.journal;
    this.current = { id: newId(), turns: [] };
    this.journal = this.journalOf(this.current.id);
    this.written = false;
    await left.close();
    await this.point('');
  }

  /** Applies an event and journals it. */
  record(record: JournalRecord): void {
    if (!this.written) {
      this.written = true;
      this.journal.append({ type: 'chat', version: 1, id: this.current.id, at: Date.now() });
      void this.point(this.current.id);
    }
    apply(this.current, record);
    this.journal.append(record);
  }

  close(): Promise<void> {
    return this.journal.close();
  }

  private async point(id: string): Promise<void> {
    try {
      await mkdir(this.folder, { recursive: true });
      const file = join(this.folder, pointer);
      await writeFile(`${file}.new`, id);
      await rename(`${file}.new`, file);
    } catch (error) {
      this.log.error(`Chat history was not saved: ${sentence(error)}`);
    }
  }

  private pathOf(id: string): string {
    return join(this.folder, `${id}.jsonl`);
  }

  private journalOf(id: string): Journal {
    return new Journal(this.pathOf(id), (error) => this.log.error(`Chat history was not saved: ${sentence(error)}`));
  }
}

/** Sorts by time. */
const newId = (): string => `${Date.now().toString(36)}-${randomUUID().slice(0, 8)}`;
