import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as vscode from 'vscode';
import { limits } from '../limits.ts';
import type { Turn } from '../messages.ts';
import { type Conversation, replay } from './conversation.ts';
import { readJournal } from './journal.ts';

/** A stored conversation, as the list shows it. */
export interface ChatEntry {
  id: string;
  /** Empty before the first question. */
  title: string;
  questions: number;
  /** Milliseconds since 1970, of its last line. */
  changedAt: number;
  /** Full text of the conversation, for searching. */
  text: string;
}

/** It becomes part of a path. */
const validId = /^[a-z0-9-]{1,64}$/;
export const isChatId = (id: string): boolean => validId.test(id);

/** The conversations of a workspace: one journal each in one folder. */
export class ChatLibrary {
  readonly #folder: string;
  readonly #known = new Map<string, { stamp: string; entry: ChatEntry }>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  pathOf(id: string): string {
    return join(this.#folder, `${id}.jsonl`);
  }

  /** Latest first. Reads only journals that changed since the last call. */
  async list(): Promise<ChatEntry[]> {
    const names = await readdir(this.#folder).catch(() => []);
    const ids = names.flatMap((name) => (name.endsWith('.jsonl') ? [name.slice(0, -'.jsonl'.length)] : []));
    const entries = await Promise.all(ids.filter(isChatId).map((id) => this.#entry(id)));
    const filled = entries.flatMap((entry) => (entry === undefined || entry.questions === 0 ? [] : [entry]));
    return filled.sort((a, b) => b.changedAt - a.changedAt);
  }

  async read(id: string): Promise<Conversation | undefined> {
    const found = isChatId(id) ? await readJournal(this.pathOf(id)) : undefined;
    return found && replay(id, found.records);
  }

  async remove(id: string): Promise<void> {
    if (!isChatId(id)) return;
    this.#known.delete(id);
    await rm(this.pathOf(id), { force: true });
  }

  async #entry(id: string): Promise<ChatEntry | undefined> {
    const file = await stat(this.pathOf(id)).catch(() => undefined);
    if (file === undefined) return undefined;
    const stamp = `${file.mtimeMs} ${file.size}`;
    const known = this.#known.get(id);
    if (known?.stamp === stamp) return known.entry;
    const conversation = await this.read(id);
    if (conversation === undefined) return undefined;
    const entry = entryOf(conversation, file.mtimeMs);
    this.#known.set(id, { stamp, entry });
    return entry;
  }
}

function entryOf(conversation: Conversation, changedAt: number): ChatEntry {
  const views = conversation.turns.map(({ view }) => view);
  return {
    id: conversation.id,
    title: titleOf(conversation),
    questions: views.length,
    changedAt,
    text: views.map(({ question, answer }) => `${question}\n${answer}`).join('\n'),
  };
}

/** The user's title, or the beginning of the first question. */
export function titleOf({ title, turns }: Conversation): string {
  if (title !== '') return title;
  const [line = ''] = (turns[0]?.view.question ?? '').trim().split('\n', 1);
  const { titleChars } = limits.chat;
  return line.length > titleChars ? `${line.slice(0, titleChars)}…` : line;
}

/** Exports a conversation as Markdown. Answers are unchanged. */
export function conversationMarkdown(conversation: Conversation): string {
  const parts = conversation.turns.map(({ view }) => turnMarkdown(view));
  return `${[`# ${titleOf(conversation)}`, ...parts].join('\n\n')}\n`;
}

function turnMarkdown(turn: Turn): string {
  const attached = turn.chips.map(({ label, detail }) => (detail === '' ? label : `${label} (${detail})`)).join(', ');
  return [
    `## ${vscode.l10n.t('You')}`,
    turn.question,
    ...(attached === '' ? [] : [`*${vscode.l10n.t('With: {0}', attached)}*`]),
    `## ${turn.model === '' ? vscode.l10n.t('Hearth') : turn.model}`,
    ...(turn.thinking.trim() === '' ? [] : [quoted(turn.thinking.trim())]),
    turn.answer.trim() === '' ? `*${vscode.l10n.t('There is no answer.')}*` : turn.answer.trim(),
  ].join('\n\n');
}

const quoted = (text: string): string =>
  text
    .split('\n')
    .map((line) => `> ${line}`.trimEnd())
    .join('\n');
