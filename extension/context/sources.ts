import ignore from 'ignore';
import * as vscode from 'vscode';
import { lineRange, type Source } from '../../engine/index/question/planner.ts';
import { rulesId } from '../chat/conversation.ts';
import { changesOf, gitRepository } from '../git.ts';
import { limits } from '../limits.ts';
import { type Failure, failureLabel, failureText } from '../terminal.ts';
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

/** The sources of a mention; empty if nothing matches. The planner handles `repository`. */
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

// The repository's rules for assistants, and its named prompts. Formats: https://agents.md (AGENTS.md, the nearest
// wins) and VS Code's custom instructions and prompt files (code.visualstudio.com/docs/copilot/customization).

/** Reads the rules' files. Paths are relative to the workspace folder. */
export interface RuleFiles {
  /** The text; undefined if there is no such file. */
  read(path: string): Promise<string | undefined>;
  /** Files below a folder whose names have that ending. */
  list(folder: string, ending: string): Promise<readonly string[]>;
}

export interface Rule {
  readonly path: string;
  readonly text: string;
}

/** Rules for `file` (absent: for the whole folder): the general ones first, the nearest last. */
export async function rulesFor(file: string | undefined, files: RuleFiles): Promise<Rule[]> {
  const rules: Rule[] = [];
  const add = (path: string, text: string | undefined): void => {
    if (text !== undefined && text.trim() !== '') rules.push({ path, text: text.trim() });
  };
  const general = '.github/copilot-instructions.md';
  add(general, await files.read(general));
  for (const path of [...(await files.list('.github/instructions', '.instructions.md'))].sort()) {
    const { fields, body } = withoutFrontMatter((await files.read(path)) ?? '');
    if (file !== undefined && appliesTo(fields.get('applyTo') ?? '', file)) add(path, body);
  }
  for (const folder of foldersOf(file ?? '')) {
    const agents = `${folder}AGENTS.md`;
    const text = await files.read(agents);
    if (text !== undefined) add(agents, text);
    else add(`${folder}CLAUDE.md`, await files.read(`${folder}CLAUDE.md`));
  }
  return rules;
}

/** `''`, `src/`, `src/a/` of `src/a/b.ts`. */
const foldersOf = (file: string): string[] => [
  '',
  ...[...file.matchAll(/\//g)].map(({ index }) => file.slice(0, index + 1)),
];

/** Comma-separated globs. */
function appliesTo(globs: string, file: string): boolean {
  const patterns = splitOutsideBraces(globs).flatMap(withoutBraces);
  return patterns.length > 0 && ignore().add(patterns).ignores(file);
}

const splitOutsideBraces = (globs: string): string[] =>
  globs
    .split(/,(?![^{]*\})/)
    .map((glob) => glob.trim().replace(/^\.?\//, ''))
    .filter((glob) => glob !== '');

/** `*.{ts,tsx}` as `*.ts` and `*.tsx`, because gitignore patterns have no braces. */
function withoutBraces(glob: string): string[] {
  const braces = /\{([^{}]*)\}/.exec(glob);
  if (braces === null) return [glob];
  const [all, options = ''] = braces;
  return options.split(',').flatMap((option) => withoutBraces(glob.replace(all, option.trim())));
}

/** The fields of a leading `---` block, as text without quotes, and what follows it. */
function withoutFrontMatter(text: string): { fields: ReadonlyMap<string, string>; body: string } {
  const block = /^\uFEFF?---\r?\n([\s\S]*?)\r?\n---[ \t]*(?:\r?\n|$)/.exec(text);
  if (block === null) return { fields: new Map(), body: text };
  const fields = [...(block[1] ?? '').matchAll(/^(\w+):[ \t]*(.*?)[ \t]*$/gm)].map(
    ([, name = '', value = '']) => [name, value.replace(/^(['"])(.*)\1$/, '$2')] as const,
  );
  return { fields: new Map(fields), body: text.slice(block[0].length) };
}

/** A named prompt of the repository: `/name` at the beginning of a question. */
export const namedPrompt = /^\/([\w.-]+)(?=\s|$)/;

/** The text of `.github/prompts/NAME.prompt.md`; undefined if there is none. */
export async function promptOf(name: string, files: RuleFiles): Promise<Rule | undefined> {
  const path = `.github/prompts/${name}.prompt.md`;
  const text = await files.read(path);
  return text === undefined ? undefined : { path, text: withoutFrontMatter(text).body.trim() };
}

/** The names of all prompts. */
export const promptNames = async (files: RuleFiles): Promise<string[]> =>
  (await files.list('.github/prompts', '.prompt.md')).map((path) => nameOf(path).replace(/\.prompt\.md$/, '')).sort();

/** The rules for a question about the file in focus; none from an untrusted folder. */
export async function ruleSources(focus: Focus | undefined): Promise<Source[]> {
  const folder = folderOf(focus);
  if (folder === undefined || !vscode.workspace.isTrusted) return [];
  const rules = await rulesFor(focus && pathIn(folder, focus), filesOf(folder));
  return rules.map(({ path, text }) => sourceOf(folder, path, text));
}

/** A named prompt as a source that the user asked for. */
export async function promptSource(question: string, focus: Focus | undefined): Promise<Source | undefined> {
  const folder = folderOf(focus);
  const name = namedPrompt.exec(question)?.[1];
  if (name === undefined || folder === undefined || !vscode.workspace.isTrusted) return undefined;
  const prompt = await promptOf(name, filesOf(folder));
  return prompt && { ...sourceOf(folder, prompt.path, prompt.text), label: `/${name}` };
}

function folderOf(focus: Pick<Focus, 'uri'> | undefined): vscode.WorkspaceFolder | undefined {
  if (vscode.workspace.workspaceFolders === undefined) return undefined;
  const own = focus && vscode.workspace.getWorkspaceFolder(vscode.Uri.parse(focus.uri, true));
  return own ?? vscode.workspace.workspaceFolders[0];
}

/** Undefined for a file outside all folders. */
function pathIn(folder: vscode.WorkspaceFolder, { uri }: Focus): string | undefined {
  const root = `${folder.uri.path.replace(/\/$/, '')}/`;
  const { path } = vscode.Uri.parse(uri, true);
  return path.startsWith(root) ? path.slice(root.length) : undefined;
}

/** The names of the prompts of a file's folder; none if it is untrusted. */
export async function promptsOffered(focus: Pick<Focus, 'uri'> | undefined): Promise<string[]> {
  const folder = folderOf(focus);
  return folder === undefined || !vscode.workspace.isTrusted ? [] : promptNames(filesOf(folder));
}

const filesOf = ({ uri }: vscode.WorkspaceFolder): RuleFiles => ({
  async read(path) {
    const file = vscode.Uri.joinPath(uri, path);
    try {
      const { size } = await vscode.workspace.fs.stat(file);
      if (size > limits.context.ruleBytes) return undefined;
      return new TextDecoder().decode(await vscode.workspace.fs.readFile(file));
    } catch {
      return undefined;
    }
  },
  async list(folder, ending) {
    const pattern = new vscode.RelativePattern(uri, `${folder}/**/*${ending}`);
    const found = await vscode.workspace.findFiles(pattern, null, limits.context.ruleFiles);
    return found.map((file) => file.path.slice(uri.path.replace(/\/$/, '').length + 1));
  },
});

function sourceOf(folder: vscode.WorkspaceFolder, path: string, text: string): Source {
  const lines = text.split(/\r?\n/);
  return {
    id: `${rulesId}${vscode.Uri.joinPath(folder.uri, path).toString()}`,
    tier: 'rules',
    label: nameOf(path),
    path,
    languageId: 'markdown',
    lines,
    // Without its front matter, its line numbers differ from the file's.
    firstLine: 0,
    fileLines: lines.length,
    centre: 0,
    divisible: true,
  };
}
