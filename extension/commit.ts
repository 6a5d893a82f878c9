import * as vscode from 'vscode';
import { contextBudget, plan } from '../engine/index/question/planner.ts';
import type { ChatResult } from '../engine/protocol/engineProtocol.ts';
import type { StreamHandlers } from './client/client.ts';
import type { EngineHost } from './client/host.ts';
import { DraftedMessage, type MessageBox, messageOf } from './commitMessage.ts';
import { countTokens } from './context/gather.ts';
import { changesOf, gitRepository } from './git.ts';

const maxTokens = 200;

/** Writes a message for what is staged, or else for what has changed, into the box of source control. */
export async function writeCommitMessage(engine: EngineHost, view: unknown): Promise<void> {
  const repository = await gitRepository(rootOf(view));
  const diff = repository === undefined ? '' : await changesOf(repository);
  if (repository === undefined || diff.trim() === '') {
    void vscode.window.showInformationMessage(vscode.l10n.t('No changes to describe.'));
    return;
  }
  const location = vscode.ProgressLocation.Notification;
  const title = vscode.l10n.t('Writing a commit message');
  await vscode.window.withProgress({ location, title, cancellable: true }, async (_progress, token) => {
    const client = await engine.client();
    await client.ready();
    const messages = [{ role: 'user' as const, content: question(await fitting(engine, diff)) }];
    await writeInto(repository.inputBox, (handlers) => client.chat({ messages, maxTokens }, handlers, token));
  });
}

/** Streams the message into the box. Restores the user's draft if it is cancelled, fails or is empty. */
async function writeInto(box: MessageBox, chat: (handlers: StreamHandlers) => Promise<ChatResult>): Promise<void> {
  const drafted = new DraftedMessage(box);
  let text = '';
  try {
    const answer = await chat({
      onDelta: (delta) => {
        if (delta.kind !== 'text') return;
        text += delta.text;
        drafted.write(messageOf(text));
      },
    });
    const message = answer.finish === 'cancelled' ? '' : messageOf(answer.text);
    if (message === '') drafted.restore();
    else drafted.write(message);
  } catch (error) {
    drafted.restore();
    throw error;
  }
}

const rootOf = (view: unknown): vscode.Uri | undefined =>
  typeof view === 'object' && view !== null && 'rootUri' in view && view.rootUri instanceof vscode.Uri
    ? view.rootUri
    : undefined;

/** As much of the diff as fits, from its beginning. */
async function fitting(engine: EngineHost, diff: string): Promise<string> {
  const [tokens = 0] = await countTokens(engine, [diff]);
  const lines = diff.split('\n');
  const shape = { firstLine: 0, fileLines: 0, centre: 0, divisible: true, languageId: 'diff' } as const;
  const candidate = { id: 'diff', tier: 'asked', label: '', path: '', lines, tokens, ...shape } as const;
  return plan([candidate], contextBudget(engine.current?.warmModel, 0)).chosen[0]?.text ?? '';
}

const question = (diff: string): string =>
  `${diff}\n\nWrite the message of the commit with these changes: one line of at most 72 characters in the imperative, and nothing else.`;
