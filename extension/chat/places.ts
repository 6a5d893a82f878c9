import * as vscode from 'vscode';
import { meantFile, uriOf } from '../context/workspace.ts';
import type { Citation } from '../messages.ts';
import type { Place } from './citations.ts';
import type { Attachment } from './conversation.ts';
import { revealLines } from './reveal.ts';

/** Models shorten paths. Prefers attached files, then the only workspace file with that suffix. */
export async function findPlace(path: string, attachments: readonly Attachment[]): Promise<Place | undefined> {
  const attached = attachments.find((known) => known.firstLine > 0 && `/${known.path}`.endsWith(`/${path}`));
  const uri = attached === undefined ? await meantFile(path) : await uriOf(attached.path);
  if (uri === undefined) return undefined;
  const document = await vscode.workspace.openTextDocument(uri);
  return { path: vscode.workspace.asRelativePath(uri), lines: document.lineCount };
}

/** Opens the lines in an editor beside the chat. */
export async function openPlace({ path, line, endLine }: Omit<Citation, 'text'>): Promise<void> {
  const uri = await uriOf(path);
  if (uri === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('{0} no longer exists.', path));
    return;
  }
  const document = await vscode.workspace.openTextDocument(uri);
  await revealLines(document, Math.min(line, document.lineCount) - 1, endLine - 1);
}
