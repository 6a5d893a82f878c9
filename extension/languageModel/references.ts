import * as vscode from 'vscode';
import { contextBudget } from '../../engine/index/question/budget.ts';
import type { Source } from '../../engine/index/question/found.ts';
import { plan } from '../../engine/index/question/planner.ts';
import type { ModelCard } from '../../engine/protocol/engineProtocol.ts';
import type { Attachment } from '../chat/conversation.ts';
import type { EngineHost } from '../client/host.ts';
import { countTokens } from '../context/budget.ts';
import { attachmentOf } from '../context/gather.ts';
import { documentSource, focusSource, textDocument, textSource } from '../context/sources.ts';
import { focusOf } from '../context/tracker.ts';

/**
 * What the user put into a question by # or by the paper clip, as far as the model has room; where that is nothing and
 * `active` says so, what the active editor shows.
 */
export async function attachmentsOf(
  engine: EngineHost,
  card: ModelCard,
  references: readonly vscode.ChatPromptReference[],
  active: boolean,
): Promise<Attachment[]> {
  // The host lists the last one first.
  const referenced = (await Promise.all([...references].reverse().map(sourcesOf))).flat();
  const sources = referenced.length === 0 && active ? activeSources() : referenced;
  const counts = await countTokens(
    engine,
    sources.map(({ lines }) => lines.join('\n')),
  );
  const candidates = sources.map((source, index) => ({ ...source, tokens: counts[index] ?? 0 }));
  return plan(candidates, contextBudget(card, 0)).chosen.map(attachmentOf);
}

function activeSources(): Source[] {
  const focus = focusOf(vscode.window.activeTextEditor);
  return focus === undefined || focus.lines.every((line) => line.trim() === '') ? [] : [focusSource(focus)];
}

/** None for what is no text: folders, pictures, files that are gone. */
async function sourcesOf({ id, value }: vscode.ChatPromptReference): Promise<Source[]> {
  if (typeof value === 'string') return [textSource(id, id, value)];
  const uri = value instanceof vscode.Location ? value.uri : value;
  if (!(uri instanceof vscode.Uri)) return [];
  const document = await textDocument(uri);
  if (document === undefined) return [];
  const range = value instanceof vscode.Location ? value.range : undefined;
  return [documentSource(document, { start: range?.start.line ?? 0, end: range?.end.line ?? document.lineCount - 1 })];
}
