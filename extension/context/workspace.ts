import * as vscode from 'vscode';
import type { Place } from '../chat/citations.ts';
import type { Attachment } from '../chat/conversation.ts';
import { limits } from '../limits.ts';
import type { Citation } from '../messages.ts';
import type { Repository } from './gather.ts';

/** A named place in a file; lines from 0, end inclusive. */
export interface FoundSymbol {
  name: string;
  container: string;
  uri: vscode.Uri;
  start: number;
  end: number;
}

type Outlines = Pick<Repository, 'outline'>;

/** The URI of a workspace path; undefined if no folder has that file. */
export async function uriOf(path: string): Promise<vscode.Uri | undefined> {
  const folders = vscode.workspace.workspaceFolders ?? [];
  for (const folder of folders) {
    for (const inside of insideOf(path, folder, folders.length)) {
      const uri = vscode.Uri.joinPath(folder.uri, inside);
      // Rejects paths that leave the folder.
      if (vscode.workspace.getWorkspaceFolder(uri) !== undefined && (await isFile(uri))) return uri;
    }
  }
  return undefined;
}

/** The only file whose path ends with `path`; undefined if there is none or more than one. */
export async function meantFile(path: string): Promise<vscode.Uri | undefined> {
  const exact = await uriOf(path);
  if (exact !== undefined) return exact;
  const found = await vscode.workspace.findFiles(`**/${escapeGlob(path.replace(/^\.?\//, ''))}`, hidden, 2);
  return found.length === 1 ? found[0] : undefined;
}

/** With several folders, workspace paths start with the folder's name. */
function insideOf(path: string, folder: vscode.WorkspaceFolder, folders: number): string[] {
  const clean = path.replace(/^\.?\//, '');
  const named = folders > 1 && clean.startsWith(`${folder.name}/`) ? [clean.slice(folder.name.length + 1)] : [];
  return [...named, clean];
}

const isFile = (uri: vscode.Uri): Promise<boolean> =>
  Promise.resolve(vscode.workspace.fs.stat(uri)).then(
    ({ type }) => (type & vscode.FileType.File) !== 0,
    () => false,
  );

/** Files below a folder, without `files.exclude` and common build folders. '' is the workspace. */
export async function filesIn(folder: string): Promise<vscode.Uri[]> {
  const below = folder === '' || folder === '.' ? '**/*' : `${escapeGlob(folder)}/**/*`;
  return vscode.workspace.findFiles(below, hidden, limits.context.listedFiles);
}

const hidden = '**/{node_modules,.git,dist,out,build,target,__pycache__,.venv}/**';

const escapeGlob = (path: string): string => path.replaceAll(/[[\]{}*?]/g, '[$&]');

/** Symbols with that name or a similar one, with all their lines, from language extensions and otherwise from the index. */
export async function findSymbols(name: string, repository: Repository | undefined): Promise<FoundSymbol[]> {
  const { suggestions } = limits.context;
  const found = await vscode.commands.executeCommand<vscode.SymbolInformation[] | undefined>(
    'vscode.executeWorkspaceSymbolProvider',
    name,
  );
  const known = await Promise.all((found ?? []).slice(0, suggestions).map(withBody));
  const files = new Set(known.map(({ uri }) => uri.toString()));
  const indexed = name === '' ? [] : ((await repository?.symbols(name, suggestions)) ?? []);
  const located = indexed.map(async ({ path, name: defined, container, firstLine, lastLine }) => {
    const uri = await uriOf(path);
    if (uri === undefined || files.has(uri.toString())) return [];
    return [{ name: defined, container, uri, start: firstLine - 1, end: lastLine - 1 }];
  });
  return [...known, ...(await Promise.all(located)).flat()];
}

/** A workspace symbol's range often covers only its name. */
async function withBody(symbol: vscode.SymbolInformation): Promise<FoundSymbol> {
  const { uri, range } = symbol.location;
  const enclosing = (await documentSymbols(uri)).find(
    ({ name, start, end }) => name === symbol.name && start <= range.start.line && range.start.line <= end,
  );
  const lines = enclosing ?? { start: range.start.line, end: range.end.line };
  return { name: symbol.name, container: symbol.containerName, uri, start: lines.start, end: lines.end };
}

/** All symbols of a document in line order, from its language extension or otherwise from the index. */
export async function documentSymbols(uri: vscode.Uri, repository?: Outlines): Promise<FoundSymbol[]> {
  const found = await vscode.commands.executeCommand<(vscode.DocumentSymbol | vscode.SymbolInformation)[] | undefined>(
    'vscode.executeDocumentSymbolProvider',
    uri,
  );
  const flat = (symbol: vscode.DocumentSymbol | vscode.SymbolInformation, container: string): FoundSymbol[] => {
    const range = 'range' in symbol ? symbol.range : symbol.location.range;
    const own = { name: symbol.name, container, uri, start: range.start.line, end: range.end.line };
    const children = 'children' in symbol ? symbol.children : [];
    return [own, ...children.flatMap((child) => flat(child, symbol.name))];
  };
  const known = (found ?? []).flatMap((symbol) => flat(symbol, ''));
  const symbols = known.length > 0 || repository === undefined ? known : await indexedSymbols(uri, repository);
  return symbols.sort((a, b) => a.start - b.start);
}

/** The index only knows saved files. */
async function indexedSymbols(uri: vscode.Uri, repository: Outlines): Promise<FoundSymbol[]> {
  if ((await vscode.workspace.openTextDocument(uri)).isDirty) return [];
  const outline = await repository.outline(vscode.workspace.asRelativePath(uri));
  return outline.map(({ name, container, firstLine, lastLine }) => ({
    ...{ name, container, uri },
    ...{ start: firstLine - 1, end: lastLine - 1 },
  }));
}

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

/** Cited lines are highlighted instead of selected, because a selection is attached to the next question. */
let mark: vscode.TextEditorDecorationType | undefined;
let marked: vscode.Disposable | undefined;

/** Shows the lines and puts the cursor before them. The highlight ends when the cursor moves or the text changes. Lines count from 0, end inclusive. */
async function revealLines(document: vscode.TextDocument, first: number, last: number): Promise<void> {
  const place = new vscode.Position(first, 0);
  const editor = await vscode.window.showTextDocument(document, { selection: new vscode.Range(place, place) });
  const range = new vscode.Range(place, document.lineAt(Math.min(last, document.lineCount - 1)).range.end);
  editor.revealRange(range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
  unmark();
  mark ??= markStyle();
  const style = mark;
  editor.setDecorations(style, [range]);
  marked = vscode.Disposable.from(
    vscode.window.onDidChangeTextEditorSelection(({ textEditor, selections }) => {
      const [selection] = selections;
      if (textEditor === editor && !(selection?.isEmpty && selection.active.isEqual(place))) unmark();
    }),
    vscode.workspace.onDidChangeTextDocument((event) => {
      if (event.document === document && event.contentChanges.length > 0) unmark();
    }),
    new vscode.Disposable(() => editor.setDecorations(style, [])),
  );
}

const markStyle = (): vscode.TextEditorDecorationType =>
  vscode.window.createTextEditorDecorationType({
    isWholeLine: true,
    backgroundColor: new vscode.ThemeColor('editor.rangeHighlightBackground'),
    // High contrast themes have no background colour for it.
    borderStyle: 'solid',
    borderWidth: '0 0 0 2px',
    borderColor: new vscode.ThemeColor('focusBorder'),
  });

function unmark(): void {
  marked?.dispose();
  marked = undefined;
}
