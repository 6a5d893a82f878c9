/**
 * Rules that a repository gives to assistants, and prompts that it names. Formats: https://agents.md (AGENTS.md, the nearest
 * wins) and VS Code's custom instructions and prompt files (code.visualstudio.com/docs/copilot/customization).
 */
import ignore from 'ignore';
import * as vscode from 'vscode';
import type { Source } from '../../engine/index/question/planner.ts';
import { rulesId } from '../chat/conversation.ts';
import { limits } from '../limits.ts';
import { nameOf } from './sources.ts';
import type { Focus } from './tracker.ts';

/** Reads the rules' files. Paths are relative to the workspace folder. */
export interface RuleFiles {
  /** The text; undefined where there is no such file. */
  read(path: string): Promise<string | undefined>;
  /** Files below a folder whose names end so. */
  list(folder: string, ending: string): Promise<readonly string[]>;
}

export interface Rule {
  readonly path: string;
  readonly text: string;
}

/** Rules for work on `file` (absent: on the folder as a whole): the general ones first, the nearest last. */
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

/** `*.{ts,tsx}` as `*.ts` and `*.tsx`, which gitignore patterns have no braces for. */
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

/** A prompt that the repository names: `/name` at the beginning of a question. */
export const namedPrompt = /^\/([\w.-]+)(?=\s|$)/;

/** The text of `.github/prompts/NAME.prompt.md`; undefined where there is none. */
export async function promptOf(name: string, files: RuleFiles): Promise<Rule | undefined> {
  const path = `.github/prompts/${name}.prompt.md`;
  const text = await files.read(path);
  return text === undefined ? undefined : { path, text: withoutFrontMatter(text).body.trim() };
}

/** The names of all prompts. */
export const promptNames = async (files: RuleFiles): Promise<string[]> =>
  (await files.list('.github/prompts', '.prompt.md')).map((path) => nameOf(path).replace(/\.prompt\.md$/, '')).sort();

/** The rules that go with a question about the file in focus; none from a folder that the user does not trust. */
export async function ruleSources(focus: Focus | undefined): Promise<Source[]> {
  const folder = folderOf(focus);
  if (folder === undefined || !vscode.workspace.isTrusted) return [];
  const rules = await rulesFor(focus && pathIn(folder, focus), filesOf(folder));
  return rules.map(({ path, text }) => sourceOf(folder, path, text));
}

/** A named prompt as what the user asked for. */
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

/** Undefined for a file of no folder. */
function pathIn(folder: vscode.WorkspaceFolder, { uri }: Focus): string | undefined {
  const root = `${folder.uri.path.replace(/\/$/, '')}/`;
  const { path } = vscode.Uri.parse(uri, true);
  return path.startsWith(root) ? path.slice(root.length) : undefined;
}

/** The names of the prompts of a file's folder; none where the user does not trust it. */
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
    // Its front matter is left out, so its lines are not those of the file.
    firstLine: 0,
    fileLines: lines.length,
    centre: 0,
    divisible: true,
  };
}
