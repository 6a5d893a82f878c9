/** Mentions in a question, such as `@file:src/a.ts` and `#selection`: their syntax and suggestions. */
import * as vscode from 'vscode';
import { limits } from '../limits.ts';
import { mentionKinds, type Suggestion } from '../messages.ts';
import type { Repository } from './gather.ts';
import { promptsOffered } from './sources.ts';
import { filesIn, findSymbols } from './workspace.ts';

export type MentionKind = (typeof mentionKinds)[number];

/** These take a value after a colon. */
export const valued: ReadonlySet<MentionKind> = new Set(['file', 'folder', 'symbol']);

/** Kinds that can be pinned; the others describe the moment of one question. */
const lasting: ReadonlySet<MentionKind> = new Set(['file', 'folder', 'symbol', 'problems', 'diff']);

export interface Mention {
  kind: MentionKind;
  /** Path or name; '' if the kind takes none. */
  value: string;
  /** As written in the question. */
  text: string;
}

const pattern = new RegExp(
  String.raw`(?<![^\s(\[])[@#](?<kind>${mentionKinds.join('|')})(?::(?:"(?<quoted>[^"\n]*)"|(?<plain>[^\s"]+)))?(?![\w-])`,
  'g',
);

/** Each mention once, in order. A kind without its value is plain text, and so is `name@file`. */
export function parseMentions(question: string): Mention[] {
  const found = new Map<string, Mention>();
  for (const match of question.matchAll(pattern)) {
    const kind = mentionKinds.find((known) => known === match.groups?.['kind']);
    if (kind === undefined) continue;
    const plain = match.groups?.['plain'] ?? '';
    // Punctuation after the path belongs to the sentence: "in @file:a.ts, line 3".
    const ending = /[.,;:!?)\]]*$/.exec(plain)?.[0] ?? '';
    const value = match.groups?.['quoted'] ?? plain.slice(0, plain.length - ending.length);
    if (valued.has(kind) !== (value !== '')) continue;
    const text = match[0].slice(0, match[0].length - ending.length);
    found.set(`${kind}:${value}`, { kind, value, text });
  }
  return [...found.values()];
}

/** The mention in the form of a pin; undefined if it is not a mention or can't be pinned. */
export function pinOf(text: string): string | undefined {
  const [mention, ...others] = parseMentions(text);
  if (mention === undefined || others.length > 0 || !lasting.has(mention.kind)) return undefined;
  return mentionText(mention.kind, mention.value);
}

/** Formats a mention. Quotes a value with blanks. */
export function mentionText(kind: MentionKind, value = ''): string {
  if (value === '') return `@${kind}`;
  return /[\s"]|[.,;:!?)\]]$/.test(value) ? `@${kind}:"${value.replaceAll('"', '')}"` : `@${kind}:${value}`;
}

/** How badly the characters of `query` match `text`, in order: smaller is better, Infinity is no match. */
export function mismatch(query: string, text: string): number {
  const wanted = query.toLowerCase();
  const whole = text.toLowerCase();
  const name = whole.slice(whole.lastIndexOf('/') + 1);
  if (name.startsWith(wanted)) return text.length / 1_000;
  const inside = whole.indexOf(wanted);
  if (inside >= 0) return 1 + text.length / 1_000;
  let at = -1;
  let gaps = 0;
  for (const char of wanted) {
    const next = whole.indexOf(char, at + 1);
    if (next < 0) return Number.POSITIVE_INFINITY;
    gaps += next - at - 1;
    at = next;
  }
  return 2 + gaps;
}

/** Models cannot see images. */
const picture = /\.(?:png|jpe?g|gif|webp|bmp|ico|tiff?|avif|heic)$/i;

/** Mentions of dropped files and folders; `refused`: names of images and of files outside the workspace. */
export async function mentionsOf(uris: readonly string[]): Promise<{ text: string; refused: string[] }> {
  const mentions: string[] = [];
  const refused: string[] = [];
  for (const address of uris) {
    const uri = vscode.Uri.parse(address);
    const kind = vscode.workspace.getWorkspaceFolder(uri) && !picture.test(uri.path) ? await kindAt(uri) : undefined;
    if (kind === undefined) refused.push(uri.path.split('/').at(-1) ?? address);
    else mentions.push(mentionText(kind, vscode.workspace.asRelativePath(uri)));
  }
  return { text: mentions.join(' '), refused };
}

async function kindAt(uri: vscode.Uri): Promise<'file' | 'folder' | undefined> {
  try {
    const { type } = await vscode.workspace.fs.stat(uri);
    return (type & vscode.FileType.Directory) === 0 ? 'file' : 'folder';
  } catch {
    // It no longer exists, or cannot be read.
    return undefined;
  }
}

/** Suggests completions of a mention, and names of prompts. Caches the workspace's files for some seconds. */
export class MentionSuggester {
  readonly #repository: Repository | undefined;
  #files: { paths: string[]; atMs: number } | undefined;
  #recent: string[] = [];

  constructor(repository: Repository | undefined) {
    this.#repository = repository;
  }

  /** `query`: the text typed after `@` or `#`, or `/` and the beginning of a prompt's name. */
  async suggest(query: string): Promise<Suggestion[]> {
    if (query.startsWith('/')) return promptSuggestions(query.slice(1));
    const [kind, value] = splitQuery(query);
    if (kind === 'symbol') return this.#symbols(value);
    if (kind === 'file') return this.#paths(value, await this.#listed(), 'file');
    if (kind === 'folder') return this.#paths(value, foldersOf(await this.#listed()), 'folder');
    const kinds = mentionKinds.filter((name) => name.startsWith(query.toLowerCase())).map(kindSuggestion);
    const files = query === '' ? [] : this.#paths(query, await this.#listed(), 'file');
    return [...kinds, ...files].slice(0, limits.context.suggestions);
  }

  async #listed(): Promise<string[]> {
    const now = performance.now();
    if (this.#files === undefined || now - this.#files.atMs > limits.context.listMs) {
      const paths = (await filesIn('')).map((uri) => vscode.workspace.asRelativePath(uri));
      this.#files = { paths, atMs: now };
    }
    return this.#files.paths;
  }

  #openPaths(): string[] {
    const tabs = vscode.window.tabGroups.all.flatMap((group) =>
      [...group.tabs].sort((a, b) => Number(b.isActive) - Number(a.isActive)),
    );
    const open = tabs.flatMap(({ input }) => (input instanceof vscode.TabInputText ? [input.uri] : []));
    const inWorkspace = open.filter((uri) => vscode.workspace.getWorkspaceFolder(uri) !== undefined);
    this.#recent = [
      ...new Set([...inWorkspace.map((uri) => vscode.workspace.asRelativePath(uri)), ...this.#recent]),
    ].slice(0, limits.context.recentFiles);
    return this.#recent;
  }

  #paths(query: string, paths: readonly string[], kind: 'file' | 'folder'): Suggestion[] {
    // The active file first, then open files, then recently open ones.
    const recent = kind === 'file' ? this.#openPaths().filter((path) => paths.includes(path)) : [];
    const fitting = [
      ...new Set([...recent.filter((path) => fits(query, path)), ...nearest(query, paths, (path) => path)]),
    ];
    return fitting.slice(0, limits.context.suggestions).map((path) => {
      const name = path.split('/').at(-1) ?? path;
      return { kind, label: name, detail: path === name ? '' : path, text: mentionText(kind, path), open: false };
    });
  }

  async #symbols(query: string): Promise<Suggestion[]> {
    const found = await findSymbols(query, this.#repository);
    return nearest(query, found, ({ name }) => name).map(({ name, uri }) => ({
      kind: 'symbol',
      label: name,
      detail: vscode.workspace.asRelativePath(uri),
      text: mentionText('symbol', name),
      open: false,
    }));
  }
}

/** The prompts of the active file's folder. */
async function promptSuggestions(query: string): Promise<Suggestion[]> {
  const uri = vscode.window.activeTextEditor?.document.uri.toString();
  const names = await promptsOffered(uri === undefined ? undefined : { uri });
  return nearest(query, names, (name) => name).map((name) => ({
    kind: 'prompt',
    label: name,
    detail: vscode.l10n.t('a prompt of the repository'),
    text: `/${name}`,
    open: false,
  }));
}

function splitQuery(query: string): [MentionKind | undefined, string] {
  const [name = '', value] = query.split(':', 2);
  const kind = value === undefined ? undefined : mentionKinds.find((known) => valued.has(known) && known === name);
  return [kind, (value ?? '').replaceAll('"', '')];
}

function nearest<Item>(query: string, items: readonly Item[], textOf: (item: Item) => string): Item[] {
  return items
    .map((item) => ({ item, distance: mismatch(query, textOf(item)) }))
    .filter(({ distance }) => distance < Number.POSITIVE_INFINITY)
    .sort((a, b) => a.distance - b.distance)
    .slice(0, limits.context.suggestions)
    .map(({ item }) => item);
}

const fits = (query: string, path: string): boolean => mismatch(query, path) < Number.POSITIVE_INFINITY;

function foldersOf(paths: readonly string[]): string[] {
  const folders = new Set<string>();
  for (const path of paths) {
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1))
      folders.add(path.slice(0, end));
  }
  return [...folders].sort();
}

function kindSuggestion(kind: MentionKind): Suggestion {
  const details: Record<MentionKind, string> = {
    file: vscode.l10n.t('a file'),
    folder: vscode.l10n.t('the files of a folder'),
    symbol: vscode.l10n.t('a function, class or type'),
    selection: vscode.l10n.t('what is selected in the editor'),
    problems: vscode.l10n.t('errors and warnings'),
    diff: vscode.l10n.t('what has changed since the last commit'),
    terminal: vscode.l10n.t('what is selected in the terminal'),
    failure: vscode.l10n.t('the last command that failed in a terminal'),
    repository: vscode.l10n.t('what a search of the workspace finds'),
  };
  const open = valued.has(kind);
  return { kind, label: kind, detail: details[kind], text: open ? `@${kind}:` : mentionText(kind), open };
}
