import * as vscode from 'vscode';
import type { Turn } from '../messages.ts';
import type { Conversation } from './conversation.ts';
import { titleOf } from './library.ts';

/** A conversation as a document to keep or send; answers are as the model wrote them. */
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
