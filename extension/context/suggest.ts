import * as vscode from 'vscode';
import { limits } from '../limits.ts';
import type { Suggestion } from '../messages.ts';
import type { Repository } from './gather.ts';
import { type MentionKind, mentionKinds, mentionText, mismatch, valued } from './mentions.ts';
import { filesIn, findSymbols } from './workspace.ts';

/** Suggests completions of a mention. Caches the workspace's files for some seconds. */
export class MentionSuggester {
  private readonly repository: Repository | undefined;
  private files: { paths: string[]; atMs: number } | undefined;
  #recent: string[] = [];

  constructor(repository: Repository | undefined) {
    this.repository = repository;
  }

  /** `query`: the text typed after `@` or `#`. */
  async suggest(query: string): Promise<Suggestion[]> {
    const [kind, value] = splitQuery(query);
    if (kind === 'symbol') return this.symbols(value);
    if (kind === 'file') return this.paths(value, await this.listed(), 'file');
    if (kind === 'folder') return this.paths(value, foldersOf(await this.listed()), 'folder');
    const kinds = mentionKinds.filter((name) => name.startsWith(query.toLowerCase())).map(kindSuggestion);
    const files = query === '' ? [] : this.paths(query, await this.listed(), 'file');
    return [...kinds, ...files].slice(0, limits.context.suggestions);
  }

  private async listed(): Promise<string[]> {
    const now = Date.now();
    if (this.files === undefined || now - this.files.atMs > limits.context.listMs) {
      const paths = (await filesIn('')).map((uri) => vscode.workspace.asRelativePath(uri));
      this.files = { paths, atMs: now };
    }
    return this.files.paths;
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

  private paths(query: string, paths: readonly string[], kind: 'file' | 'folder'): Suggestion[] {
    // What is open comes first, the active file before all; then what was open.
    const recent = kind === 'file' ? this.#openPaths().filter((path) => paths.includes(path)) : [];
    const fitting = [
      ...new Set([...recent.filter((path) => fits(query, path)), ...nearest(query, paths, (path) => path)]),
    ];
    return fitting.slice(0, limits.context.suggestions).map((path) => {
      const name = path.split('/').at(-1) ?? path;
      return { kind, label: name, detail: path === name ? '' : path, text: mentionText(kind, path), open: false };
    });
  }

  private async symbols(query: string): Promise<Suggestion[]> {
    const found = await findSymbols(query, this.repository);
    return nearest(query, found, ({ name }) => name).map(({ name, uri }) => ({
      kind: 'symbol',
      label: name,
      detail: vscode.workspace.asRelativePath(uri),
      text: mentionText('symbol', name),
      open: false,
    }));
  }
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
  const { t } = vscode.l10n;
  const details: Record<MentionKind, string> = {
    file: t('a file'),
    folder: t('the files of a folder'),
    symbol: t('a function, class or type'),
    selection: t('what is selected in the editor'),
    problems: t('errors and warnings'),
    diff: t('what has changed since the last commit'),
    terminal: t('what is selected in the terminal'),
    repository: t('what a search of the workspace finds'),
  };
  const open = valued.has(kind);
  return { kind, label: kind, detail: details[kind], text: open ? `@${kind}:` : mentionText(kind), open };
}
