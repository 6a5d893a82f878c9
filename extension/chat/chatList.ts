import * as vscode from 'vscode';
import { sentence } from '../client/failure.ts';
import { formatAge } from '../format.ts';
import { limits } from '../limits.ts';
import type { Turn } from '../messages.ts';
import { type Conversation, isQueued, titleOf } from './conversation.ts';
import type { ChatSession } from './session.ts';
import type { ChatEntry, ChatStore } from './store.ts';

interface ChatItem extends vscode.QuickPickItem {
  entry: ChatEntry;
}

const buttons = {
  rename: { iconPath: new vscode.ThemeIcon('edit'), tooltip: vscode.l10n.t('Rename') },
  export: { iconPath: new vscode.ThemeIcon('export'), tooltip: vscode.l10n.t('Export as Markdown') },
  remove: { iconPath: new vscode.ThemeIcon('trash'), tooltip: vscode.l10n.t('Delete') },
};

/** The list of conversations: full-text search, open, rename, export, delete. */
export class ChatList {
  readonly #store: ChatStore;
  readonly #session: ChatSession;

  constructor(store: ChatStore, session: ChatSession) {
    this.#store = store;
    this.#session = session;
  }

  /** Resolves when the list is shown. */
  async show(): Promise<void> {
    const picker = vscode.window.createQuickPick<ChatItem>();
    picker.title = vscode.l10n.t('Hearth: Chats');
    picker.placeholder = vscode.l10n.t('Search titles and messages');
    picker.onDidHide(() => picker.dispose());
    picker.busy = true;
    picker.show();
    const entries = await this.#entries();
    const refresh = () => {
      picker.items = chatItems(entries, picker.value, this.#store.conversation.id);
    };
    picker.onDidChangeValue(refresh);
    picker.onDidAccept(() => {
      const item = picker.selectedItems[0];
      picker.hide();
      if (item !== undefined) report(this.#session.openChat(item.entry.id));
    });
    picker.onDidTriggerItemButton(({ item, button }) => {
      picker.hide();
      report(this.#press(item.entry, button));
    });
    refresh();
    picker.busy = false;
  }

  /** Exports the conversation on screen to a file. */
  async exportCurrent(): Promise<void> {
    await this.#store.flush();
    await this.#export(this.#store.conversation.id);
  }

  async renameCurrent(): Promise<void> {
    const { conversation } = this.#store;
    if (conversation.turns.length === 0) return nothingYet();
    await this.#rename(conversation.id, titleOf(conversation));
  }

  async #entries(): Promise<ChatEntry[]> {
    await this.#store.flush();
    return this.#store.list();
  }

  async #press(entry: ChatEntry, button: vscode.QuickInputButton): Promise<void> {
    if (button === buttons.export) return this.#export(entry.id);
    if (button === buttons.remove) await this.#remove(entry);
    else await this.#rename(entry.id, entry.title);
    return this.show();
  }

  async #rename(id: string, title: string): Promise<void> {
    const wanted = await vscode.window.showInputBox({
      title: vscode.l10n.t('Rename the chat'),
      value: title,
      validateInput: (value) => (value.trim() === '' ? vscode.l10n.t('A chat needs a name.') : undefined),
    });
    if (wanted !== undefined) await this.#store.rename(id, wanted.trim().slice(0, limits.chat.titleChars));
  }

  async #remove(entry: ChatEntry): Promise<void> {
    const remove = vscode.l10n.t('Delete');
    const message = vscode.l10n.t('Delete the chat “{0}”?', entry.title);
    const detail = vscode.l10n.t('Its questions and answers are permanently deleted from this computer.');
    if ((await vscode.window.showWarningMessage(message, { modal: true, detail }, remove)) !== remove) return;
    if (entry.id === this.#store.conversation.id) await this.#session.startNew();
    await this.#store.remove(entry.id);
  }

  async #export(id: string): Promise<void> {
    const conversation = await this.#store.read(id);
    if (conversation === undefined) return nothingYet();
    const folder = vscode.workspace.workspaceFolders?.[0]?.uri;
    const name = `${fileNameOf(titleOf(conversation))}.md`;
    const target = await vscode.window.showSaveDialog({
      title: vscode.l10n.t('Export as Markdown'),
      filters: { Markdown: ['md'] },
      ...(folder === undefined ? {} : { defaultUri: vscode.Uri.joinPath(folder, name) }),
    });
    if (target === undefined) return;
    await vscode.workspace.fs.writeFile(target, new TextEncoder().encode(conversationMarkdown(conversation)));
    await vscode.window.showTextDocument(target);
  }
}

/** Entries with every word of the query in title or text. VS Code's own filter sees only the title. */
export function chatItems(entries: readonly ChatEntry[], query: string, current: string): ChatItem[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return entries.flatMap((entry) => {
    const text = `${entry.title}\n${entry.text}`;
    const lower = text.toLowerCase();
    if (!words.every((word) => lower.includes(word))) return [];
    const hit = words[0] === undefined ? -1 : entry.text.toLowerCase().indexOf(words[0]);
    return [
      {
        entry,
        label: `${entry.id === current ? '$(check) ' : ''}${entry.title}`,
        description: formatAge(Date.now() - entry.changedAt),
        ...(hit < 0 ? {} : { detail: excerpt(entry.text, hit) }),
        buttons: Object.values(buttons),
        alwaysShow: true,
      },
    ];
  });
}

/** Characters shown around a match. */
const excerptChars = 90;

function excerpt(text: string, hit: number): string {
  const start = Math.max(0, hit - excerptChars / 3);
  const line = text.slice(start, start + excerptChars).replaceAll(/\s+/g, ' ');
  return `${start > 0 ? '…' : ''}${line.trim()}${start + excerptChars < text.length ? '…' : ''}`;
}

/** Removes characters that some file systems forbid. */
const fileNameOf = (title: string): string =>
  title
    .replaceAll(/[^\p{L}\p{N} _-]+/gu, ' ')
    .trim()
    .slice(0, limits.chat.titleChars) || 'chat';

function nothingYet(): void {
  void vscode.window.showInformationMessage(vscode.l10n.t('This chat is empty.'));
}

function report(work: Promise<unknown>): void {
  work.catch((error: unknown) => void vscode.window.showErrorMessage(sentence(error)));
}

/** Exports a conversation as Markdown. Answers are unchanged; queued questions are left out. */
export function conversationMarkdown(conversation: Conversation): string {
  const parts = conversation.turns.flatMap((turn) => (isQueued(turn) ? [] : [turnMarkdown(turn.view)]));
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
