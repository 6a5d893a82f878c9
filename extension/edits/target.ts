/** The target of an answer's code: a workspace file, which the user chooses if it is unclear, or the terminal. */
import { realpath } from 'node:fs/promises';
import { dirname, sep } from 'node:path';
import * as vscode from 'vscode';
import type { Attachment } from '../chat/conversation.ts';
import type { Repository } from '../context/gather.ts';
import { documentSymbols, meantFile, uriOf } from '../context/workspace.ts';
import type { CodeBlock } from './drafts.ts';
import { definedNames } from './placement.ts';

// Chooses the file that an answer's code is for. Pure: gets the files as arguments and asks nothing.

/** A possible target: a file attached to the question, or open in the editor. */
export interface Candidate {
  readonly path: string;
  readonly languageId: string;
  /** Names that it defines. */
  readonly symbols: readonly string[];
}

type Choice =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'new'; readonly path: string }
  | { readonly kind: 'untitled' }
  | { readonly kind: 'terminal' };

type Destination = Choice | { readonly kind: 'ask'; readonly choices: readonly Choice[] };

interface Files {
  /** Attached files first, then those in the editor. */
  readonly candidates: readonly Candidate[];
  /** The workspace file for each path in the answer. */
  readonly found: ReadonlyMap<string, string>;
}

const families: readonly (readonly string[])[] = [
  [
    'javascript',
    'js',
    'jsx',
    'mjs',
    'cjs',
    'javascriptreact',
    'typescript',
    'ts',
    'tsx',
    'mts',
    'cts',
    'typescriptreact',
  ],
  ['python', 'py', 'pyi', 'python3'],
  ['c', 'h', 'cpp', 'c++', 'cc', 'cxx', 'hpp', 'hh'],
  ['csharp', 'cs', 'c#'],
  ['rust', 'rs'],
  ['go', 'golang'],
  ['ruby', 'rb'],
  ['kotlin', 'kt', 'kts'],
  ['json', 'jsonc', 'json5'],
  ['yaml', 'yml'],
  ['markdown', 'md'],
  ['html', 'htm'],
  ['css', 'scss', 'less'],
  ['shellscript', 'shell', 'sh', 'bash', 'zsh', 'fish', 'console', 'terminal', 'shell-session', 'shellsession'],
  ['powershell', 'ps1', 'pwsh', 'ps'],
  ['bat', 'cmd', 'batch', 'dosbatch'],
];
const shells = new Set(['shellscript', 'powershell', 'bat']);
/** Fence languages that say nothing about the file: none, or a patch. */
const noLanguage = new Set(['', 'text', 'txt', 'plaintext', 'plain', 'code', 'diff', 'patch', 'udiff']);

const family = (name: string): string => families.find((names) => names.includes(name))?.[0] ?? name;
const endingOf = (path: string): string => /\.(\w+)$/.exec(path)?.[1]?.toLowerCase() ?? '';

const isShell = (language: string): boolean => shells.has(family(language));

/** Whether a block with that fence can be code of the file; a fence without a language fits any file. */
function agrees(language: string, path: string, languageId = ''): boolean {
  const wanted = family(language);
  const ending = endingOf(path);
  return (
    noLanguage.has(language) ||
    [family(languageId), family(ending)].includes(wanted) ||
    (ending === '' && languageId === '')
  );
}

/** Whether a path may be created: inside the workspace folder, and not inside `.git`. */
export function mayCreate(path: string): boolean {
  const parts = path.replace(/^\.\//, '').split(/[\\/]/);
  return (
    !/^([\\/~]|[A-Za-z]:)/.test(path) && parts.every((part) => part !== '' && part !== '..' && !/^\.git$/i.test(part))
  );
}

export function destination(block: CodeBlock, { candidates, found }: Files): Destination {
  const { language, path } = block;
  const named = path !== undefined && agrees(language, path) ? choiceOf(path, found) : undefined;
  if (named !== undefined) return named;
  const mentioned = block.mentioned.flatMap((known) => {
    const choice = agrees(language, known) ? choiceOf(known, found) : undefined;
    return choice?.kind === 'file' ? [choice] : [];
  });
  const near = distinct(mentioned);
  if (near.length === 1 && near[0] !== undefined) return near[0];
  const fitting = candidates.filter((candidate) => agrees(language, candidate.path, candidate.languageId));
  if (isShell(language))
    return fitting.length === 0 ? { kind: 'terminal' } : ask({ kind: 'terminal' }, ...asFiles(fitting));
  const names = definedNames(block.code);
  const defining = fitting.filter(({ symbols }) => symbols.some((name) => names.includes(name)));
  const best = defining.length > 0 ? defining : fitting;
  const choices = distinct([...near, ...asFiles(best)]);
  const [only] = choices;
  if (choices.length === 1 && only !== undefined) return only;
  return ask(...choices, ...(choices.length === 0 ? asFiles(candidates) : []));
}

function choiceOf(path: string, found: ReadonlyMap<string, string>): Choice | undefined {
  const known = found.get(path);
  if (known !== undefined) return { kind: 'file', path: known };
  return mayCreate(path) ? { kind: 'new', path: path.replace(/^\.\//, '') } : undefined;
}

const asFiles = (candidates: readonly Candidate[]): Choice[] => candidates.map(({ path }) => ({ kind: 'file', path }));

const ask = (...choices: Choice[]): Destination => ({ kind: 'ask', choices: [...choices, { kind: 'untitled' }] });

const distinct = (choices: readonly Choice[]): Choice[] => [
  ...new Map(choices.map((choice) => [JSON.stringify(choice), choice])).values(),
];

type Outlines = Pick<Repository, 'outline'>;

/** Asks the user if the target is unclear. Undefined: the user chose nothing. */
export async function chosenTarget(
  block: CodeBlock,
  attachments: readonly Attachment[],
  repository: Outlines,
): Promise<Choice | undefined> {
  const decided = await targetOf(block, attachments, repository);
  return decided.kind === 'ask' ? pick(decided.choices) : decided;
}

/** The target, without asking the user. */
export async function targetOf(
  block: CodeBlock,
  attachments: readonly Attachment[],
  repository: Outlines,
): Promise<Destination> {
  const paths = [...new Set([...(block.path === undefined ? [] : [block.path]), ...block.mentioned])];
  const found = new Map<string, string>();
  for (const path of paths) {
    const uri = await meantFile(path);
    if (uri !== undefined && (await staysInside(uri))) found.set(path, vscode.workspace.asRelativePath(uri));
  }
  const named = destination(block, { candidates: [], found });
  // Looking at the candidates takes time.
  if (named.kind === 'file' || named.kind === 'new') return named;
  return destination(block, { candidates: await candidates(attachments, repository), found });
}

/** Where a file of that path would be created; undefined if the path or a link leaves the workspace. */
export async function newFileUri(path: string): Promise<vscode.Uri | undefined> {
  const folders = vscode.workspace.workspaceFolders ?? [];
  const named = folders.find(({ name }) => folders.length > 1 && path.startsWith(`${name}/`));
  const folder = named ?? folders[0];
  if (folder === undefined) return undefined;
  const uri = vscode.Uri.joinPath(folder.uri, named === undefined ? path : path.slice(named.name.length + 1));
  return vscode.workspace.getWorkspaceFolder(uri) !== undefined && (await staysInside(uri)) ? uri : undefined;
}

/** Whether an answer may change, create or delete that file: inside the workspace after following links, and not in `.git`. */
export async function isChangeable(uri: vscode.Uri): Promise<boolean> {
  const folder = vscode.workspace.getWorkspaceFolder(uri);
  const root = folder?.uri.path.replace(/\/$/, '') ?? '';
  if (folder === undefined || !uri.path.startsWith(`${root}/`)) return false;
  return mayCreate(uri.path.slice(root.length + 1)) && (await staysInside(uri));
}

/** Whether the file, or its nearest existing parent folder, is inside the workspace after following links. */
async function staysInside(uri: vscode.Uri): Promise<boolean> {
  const folder = vscode.workspace.getWorkspaceFolder(uri);
  if (folder === undefined) return false;
  return uri.scheme !== 'file' || staysBelow(folder.uri.fsPath, uri.fsPath);
}

/** @param path lexically below `root`; neither file nor folders need to exist. */
export async function staysBelow(root: string, path: string): Promise<boolean> {
  const real = await realpath(root);
  for (let at = path; at !== dirname(at); at = dirname(at)) {
    const found = await realpath(at).catch((error: NodeJS.ErrnoException) => error.code ?? 'unknown');
    if (found === 'ENOENT') continue;
    const inside = found === real || found.startsWith(real + sep);
    return inside && !found.slice(real.length).split(sep).includes('.git');
  }
  return false;
}

async function candidates(attachments: readonly Attachment[], repository: Outlines): Promise<Candidate[]> {
  const attached = attachments.filter(({ id, firstLine }) => firstLine > 0 && !id.startsWith('found:'));
  const uris = await Promise.all(attached.map(({ path }) => uriOf(path)));
  const shown = vscode.window.visibleTextEditors.find(({ document }) => document.uri.scheme === 'file');
  const editor = vscode.window.activeTextEditor ?? shown;
  const own = editor?.document.uri.scheme === 'file' ? editor.document.uri : undefined;
  const known = uris.filter((uri) => uri !== undefined);
  const all = known.length > 0 ? known : own === undefined ? [] : [own];
  const distinct = new Map(all.map((uri) => [uri.toString(), uri]));
  return Promise.all(
    [...distinct.values()].map(async (uri) => ({
      path: vscode.workspace.asRelativePath(uri),
      languageId: (await vscode.workspace.openTextDocument(uri)).languageId,
      symbols: (await documentSymbols(uri, repository)).map(({ name }) => name),
    })),
  );
}

async function pick(choices: readonly Choice[]): Promise<Choice | undefined> {
  const items = choices.map((choice) => ({ ...itemOf(choice), choice }));
  const placeHolder = vscode.l10n.t('Where does this code belong?');
  return (await vscode.window.showQuickPick(items, { placeHolder }))?.choice;
}

function itemOf(choice: Choice): { label: string; description?: string } {
  switch (choice.kind) {
    case 'file':
      return { label: `$(file) ${choice.path}`, description: vscode.l10n.t('change this file') };
    case 'new':
      return { label: `$(new-file) ${choice.path}`, description: vscode.l10n.t('new file') };
    case 'untitled':
      return { label: `$(new-file) ${vscode.l10n.t('New File')}`, description: vscode.l10n.t('without a name yet') };
    case 'terminal':
      return {
        label: `$(terminal) ${vscode.l10n.t('Run in Terminal')}`,
        description: vscode.l10n.t('puts it there without running it'),
      };
  }
}

/**
 * The code as one line without prompts and comments. Undefined if it has several lines, because a terminal runs each line
 * at its end, or control characters, which are keys to a terminal.
 */
export function terminalLine(code: string): string | undefined {
  const lines = code
    .replaceAll(/\s*\\\r?\n\s*/g, ' ')
    .split(/\r?\n/)
    .map((line) => line.trim().replace(/^(?:\$|>|PS [^>]*>)\s+/, ''))
    .filter((line) => line !== '' && !line.startsWith('#'));
  const [only] = lines;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finds them.
  return lines.length === 1 && only !== undefined && !/[\u0000-\u001f\u007f-\u009f]/.test(only) ? only : undefined;
}

/** Puts a command into the terminal, where the user can read and run it. Runs nothing. */
export async function putIntoTerminal(code: string): Promise<void> {
  const line = terminalLine(code);
  const terminal = vscode.window.activeTerminal ?? vscode.window.createTerminal();
  terminal.show();
  if (line !== undefined) {
    terminal.sendText(line, false);
    return;
  }
  await vscode.env.clipboard.writeText(code);
  void vscode.window.showInformationMessage(
    vscode.l10n.t(
      'These are several lines, which a terminal would run at once. They were copied; paste what you need.',
    ),
  );
}

export async function insertAtCursor(text: string): Promise<void> {
  const editor = vscode.window.activeTextEditor ?? vscode.window.visibleTextEditors[0];
  if (editor === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Open the file to insert the code into.'));
    return;
  }
  await editor.edit((edit) => {
    for (const selection of editor.selections) edit.replace(selection, text);
  });
  await vscode.window.showTextDocument(editor.document, editor.viewColumn);
}
