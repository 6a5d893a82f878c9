import * as vscode from 'vscode';
import { sentence } from '../client/failure.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import type { RepositoryIndex } from '../repository/repositoryIndex.ts';
import { farParts, fitting, keepOrder, namesNear, type Snippet, SnippetLists, similarStretches } from './moment.ts';

/**
 * The context before the file in a completion's prompt: definitions of names near the cursor, recently edited places, parts
 * of the file itself that the prompt lacks, and parts of the repository and of recently visited files that resemble the
 * cursor's lines. It is gathered at a file's first completion, with a deadline, and again when the user pauses.
 */
export class CompletionContext {
  readonly #index: RepositoryIndex;
  readonly #log: Log;
  /** Most recent last. */
  readonly #visited: vscode.TextDocument[] = [];
  readonly #edits = new Map<string, { document: vscode.TextDocument; line: number }>();
  readonly #lists = new SnippetLists();
  readonly #gathering = new Map<string, Promise<Snippet[]>>();
  readonly #subscriptions: vscode.Disposable[];

  constructor(index: RepositoryIndex, log: Log) {
    this.#index = index;
    this.#log = log;
    this.#subscriptions = [
      vscode.window.onDidChangeActiveTextEditor((editor) => editor && this.#visit(editor.document)),
      vscode.workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
        const line = contentChanges[0]?.range.start.line;
        if (line !== undefined) this.#edit(document, line);
      }),
    ];
  }

  /** The snippets in the file's prompt; for a new file, those found within the deadline. Later results serve the next key. */
  async snippets(document: vscode.TextDocument, position: vscode.Position, maxChars: number): Promise<Snippet[]> {
    const key = document.uri.toString();
    const kept = this.#lists.of(key);
    if (kept) return [...kept];
    const gathering = this.#gathering.get(key) ?? this.#first(key, this.#gather(document, position, maxChars));
    return Promise.race([gathering, sleep(limits.completion.contextMs).then(() => [])]);
  }

  /**
   * Gathers snippets for the cursor's current place. The file's prompt uses them once `read` reports that they are prefilled.
   * @throws what `read` throws
   */
  async refresh(
    document: vscode.TextDocument,
    position: vscode.Position,
    maxChars: number,
    read: (snippets: Snippet[]) => Promise<boolean>,
  ): Promise<void> {
    const snippets = await this.#gather(document, position, maxChars);
    if (await read(snippets)) this.#lists.keep(document.uri.toString(), snippets);
  }

  async #first(key: string, found: Promise<Snippet[]>): Promise<Snippet[]> {
    const gathering = found.catch((error: unknown) => {
      this.#log.debug(`Completion context: ${sentence(error)}`);
      return [];
    });
    this.#gathering.set(key, gathering);
    const snippets = await gathering;
    this.#gathering.delete(key);
    // A refresh during a pause may have been faster.
    if (!this.#lists.of(key)) this.#lists.keep(key, snippets);
    return snippets;
  }

  dispose(): void {
    for (const subscription of this.#subscriptions) subscription.dispose();
  }

  async #gather(document: vscode.TextDocument, position: vscode.Position, maxChars: number): Promise<Snippet[]> {
    const { aroundLines, belowLines } = limits.completion;
    const around = linesAround(document, position.line, aroundLines, belowLines);
    const visited = this.#visited.filter((own) => own.uri.toString() !== document.uri.toString());
    const own = farParts(document, position.line).map((text) => ({ path: pathOf(document), text }));
    const found = await Promise.all([
      this.#definitions(document, position),
      this.#edited(document),
      similarStretches(around, own, own.length),
      this.#fromIndex(document, around),
      similarStretches(around, visited.map(fileOf), limits.completion.similarSnippets),
    ]);
    const fits = fitting(distinct(found.flat()), around, maxChars);
    return keepOrder(this.#lists.of(document.uri.toString()) ?? [], fits);
  }

  /** Definitions of the names on the cursor's line and the one above, if they are in other files. */
  async #definitions(document: vscode.TextDocument, { line }: vscode.Position): Promise<Snippet[]> {
    const names = namesNear(document, line);
    const found = await Promise.all(
      names.map((name) => this.#definition(document, new vscode.Position(name.line, name.character))),
    );
    return found.filter((snippet) => snippet !== undefined).slice(0, limits.completion.definitions);
  }

  async #definition(document: vscode.TextDocument, name: vscode.Position): Promise<Snippet | undefined> {
    type Found = (vscode.Location | vscode.LocationLink)[] | undefined;
    const lookUp = vscode.commands.executeCommand<Found>('vscode.executeDefinitionProvider', document.uri, name);
    const found = await Promise.race([lookUp, sleep(limits.completion.contextMs).then(() => undefined)]);
    const [first] = found ?? [];
    if (first === undefined) return undefined;
    const [uri, range] = 'targetUri' in first ? [first.targetUri, first.targetRange] : [first.uri, first.range];
    if (uri.toString() === document.uri.toString() || uri.scheme !== 'file') return undefined;
    const target = await vscode.workspace.openTextDocument(uri);
    const start = range.start.line;
    const last = Math.min(Math.max(range.end.line, start + 4), start + limits.completion.definitionLines - 1);
    return { path: pathOf(target), text: linesOf(target, start, last) };
  }

  #edited(document: vscode.TextDocument): Snippet[] {
    return [...this.#edits.values()]
      .filter((edit) => edit.document.uri.toString() !== document.uri.toString())
      .map((edit) => ({ path: pathOf(edit.document), text: linesAround(edit.document, edit.line, 5, 5) }));
  }

  async #fromIndex(document: vscode.TextDocument, around: string): Promise<Snippet[]> {
    const { indexHits, similarSnippets } = limits.completion;
    const passages = await this.#index.search(around, indexHits);
    const others = passages.filter(({ path }) => path !== pathOf(document)).slice(0, similarSnippets + 1);
    return others.map(({ path, text }) => ({ path, text }));
  }

  #visit(document: vscode.TextDocument): void {
    if (document.uri.scheme !== 'file') return;
    const at = this.#visited.findIndex((own) => own.uri.toString() === document.uri.toString());
    if (at >= 0) this.#visited.splice(at, 1);
    this.#visited.push(document);
    if (this.#visited.length > limits.completion.visitedFiles) this.#visited.shift();
  }

  #edit(document: vscode.TextDocument, line: number): void {
    if (document.uri.scheme !== 'file') return;
    // One place per file and ten lines, because typing continues at the same place.
    const key = `${document.uri.toString()} ${Math.floor(line / 10)}`;
    this.#edits.delete(key);
    this.#edits.set(key, { document, line });
    const [oldest] = this.#edits.keys();
    if (oldest !== undefined && this.#edits.size > limits.completion.recentEdits) this.#edits.delete(oldest);
  }
}

const pathOf = (document: vscode.TextDocument): string => vscode.workspace.asRelativePath(document.uri);
const fileOf = (document: vscode.TextDocument): Snippet => ({
  path: pathOf(document),
  text: linesOf(document, 0, limits.completion.visitedLines),
});

function linesOf(document: vscode.TextDocument, first: number, last: number): string {
  const end = Math.min(last, document.lineCount - 1);
  return Array.from({ length: Math.max(0, end - first + 1) }, (_, i) => document.lineAt(first + i).text).join('\n');
}

const linesAround = (document: vscode.TextDocument, line: number, before: number, after: number): string =>
  linesOf(document, Math.max(0, line - before), line + after);

/** Drops overlapping snippets: keeps the first of each file and start. */
function distinct(snippets: readonly Snippet[]): Snippet[] {
  const seen = new Set<string>();
  return snippets.filter(({ path, text }) => {
    const key = `${path} ${text.slice(0, 60)}`;
    return text.trim() !== '' && !seen.has(key) && seen.add(key);
  });
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
