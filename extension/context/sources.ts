import * as vscode from 'vscode';
import { lineRange, type Source } from '../../engine/index/question/planner.ts';
import { type Failure, failureLabel, failureText } from '../failures.ts';
import { changesOf, gitRepository } from '../git.ts';
import { limits } from '../limits.ts';
import type { Repository } from './gather.ts';
import type { Mention } from './mentions.ts';
import { type Focus, focusId } from './tracker.ts';
import { filesIn, findSymbols, uriOf } from './workspace.ts';

/** The focus as a source. A selection was made for this question; a file may merely be open. */
export function focusSource(focus: Focus): Source {
  const { selection, visible } = focus;
  const name = nameOf(focus.path);
  const start = selection?.start ?? 0;
  return {
    id: focusId(focus),
    tier: selection ? 'asked' : 'editor',
    label: selection ? `${name}:${lineRange(selection.start + 1, selection.end + 1)}` : name,
    path: focus.path,
    languageId: focus.languageId,
    lines: selection ? focus.lines.slice(start, selection.end + 1) : focus.lines,
    firstLine: start + 1,
    fileLines: focus.lines.length,
    centre: selection ? 0 : Math.floor((visible.start + visible.end) / 2),
    divisible: true,
  };
}

/** The sources of a mention; empty if nothing has that name. The planner handles `repository`. */
export async function mentionSources(
  mention: Mention,
  focus: Focus | undefined,
  repository: Repository | undefined,
  failure: Failure | undefined,
): Promise<Source[]> {
  switch (mention.kind) {
    case 'file':
      return fileSources(mention.value);
    case 'folder':
      return folderSources(mention.value);
    case 'symbol':
      return symbolSources(mention.value, repository);
    case 'selection':
      return focus?.selection === undefined ? [] : [focusSource(focus)];
    case 'problems':
      return textSources('problems', vscode.l10n.t('Problems'), problems(focus));
    case 'diff':
      return textSources('diff', vscode.l10n.t('Changes'), await changes(focus), 'diff');
    case 'terminal':
      return textSources('terminal', vscode.l10n.t('Terminal'), await terminalSelection());
    case 'failure':
      return failure === undefined ? [] : [textSource('failure', failureLabel(failure), failureText(failure))];
    case 'repository':
      return [];
  }
}

async function fileSources(path: string): Promise<Source[]> {
  const uri = await uriOf(path);
  const document = uri && (await textDocument(uri));
  return document === undefined ? [] : [documentSource(document, { start: 0, end: document.lineCount - 1 })];
}

/** The folder's file names, and file contents while they fit, top level first. */
async function folderSources(path: string): Promise<Source[]> {
  const folder = path.replace(/\/+$/, '');
  const files = await filesIn(folder);
  if (files.length === 0) return [];
  const depth = (uri: vscode.Uri) => uri.path.split('/').length;
  const nearest = files.sort((a, b) => depth(a) - depth(b)).slice(0, limits.context.folderFiles);
  const documents = await Promise.all(nearest.map(textDocument));
  const contents = documents.flatMap((document) => {
    if (document === undefined || document.getText().trim() === '') return [];
    return [
      {
        ...documentSource(document, { start: 0, end: document.lineCount - 1 }),
        tier: 'found',
        divisible: false,
      } as const,
    ];
  });
  const names = files.map((uri) => vscode.workspace.asRelativePath(uri)).sort();
  return [{ ...textSource('folder', `${folder}/`, names.join('\n')), path: `${folder}/` }, ...contents];
}

async function symbolSources(name: string, repository: Repository | undefined): Promise<Source[]> {
  const found = await findSymbols(name, repository);
  const exact = found.filter((symbol) => symbol.name === name);
  const sources = (exact.length > 0 ? exact : found).slice(0, limits.context.symbols).map(async (symbol) => {
    const document = await textDocument(symbol.uri);
    if (document === undefined) return [];
    return [{ ...documentSource(document, symbol), label: symbol.name }];
  });
  return (await Promise.all(sources)).flat();
}

export function documentSource(document: vscode.TextDocument, { start, end }: { start: number; end: number }): Source {
  const path = vscode.workspace.asRelativePath(document.uri);
  const lines = document.getText().split(/\r?\n/);
  return {
    id: `mention:${document.uri.toString()}:${start}`,
    tier: 'asked',
    label: nameOf(path),
    path,
    languageId: document.languageId,
    lines: lines.slice(start, end + 1),
    firstLine: start + 1,
    fileLines: lines.length,
    centre: 0,
    divisible: true,
  };
}

export function textSource(id: string, label: string, text: string, languageId = ''): Source {
  const lines = text.split(/\r?\n/);
  const about = { path: label, languageId, firstLine: 0, fileLines: lines.length, centre: 0, divisible: true };
  return { id: `mention:${id}`, tier: 'asked', label, lines, ...about };
}

const textSources = (id: string, label: string, text: string, languageId = ''): Source[] =>
  text.trim() === '' ? [] : [textSource(id, label, text, languageId)];

/** Problems of the file in focus, or of all files if it has none. */
function problems(focus: Focus | undefined): string {
  const all = vscode.languages.getDiagnostics();
  const own = all.filter(([uri]) => uri.toString() === focus?.uri);
  const shown = own.some(([, found]) => found.length > 0) ? own : all;
  return shown
    .flatMap(([uri, found]) => found.map((problem) => problemLine(vscode.workspace.asRelativePath(uri), problem)))
    .slice(0, limits.context.problems)
    .join('\n');
}

export function problemLine(path: string, { range, severity, message }: vscode.Diagnostic): string {
  const kind = severity === vscode.DiagnosticSeverity.Error ? 'error' : 'warning';
  return `${path}:${range.start.line + 1}: ${kind}: ${message}`;
}

async function changes(focus: Focus | undefined): Promise<string> {
  const repository = await gitRepository(focus && vscode.Uri.parse(focus.uri, true));
  return repository === undefined ? '' : changesOf(repository);
}

/** VS Code has no API for this: copies the selection and then restores the clipboard. */
async function terminalSelection(): Promise<string> {
  if (vscode.window.activeTerminal === undefined) return '';
  const { clipboard } = vscode.env;
  const before = await clipboard.readText();
  await clipboard.writeText('');
  await vscode.commands.executeCommand('workbench.action.terminal.copySelection');
  const selection = await clipboard.readText();
  await clipboard.writeText(before);
  return selection;
}

/** Undefined if it is not text or cannot be read. */
export async function textDocument(uri: vscode.Uri): Promise<vscode.TextDocument | undefined> {
  return vscode.workspace.openTextDocument(uri).then(
    (document) => document,
    () => undefined,
  );
}

export const nameOf = (path: string): string => path.split('/').at(-1) ?? path;
