/**
 * The part of the `vscode` module that the extension's code uses, small and in memory, for tests outside VS Code.
 * vitest.config.ts puts it in place of the real one. The types are VS Code's own, and so are the defaults of settings.
 */
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type * as real from 'vscode';
import manifest from '../../../package.json' with { type: 'json' };

export class Disposable implements real.Disposable {
  readonly #callOnDispose: () => unknown;
  constructor(callOnDispose: () => unknown) {
    this.#callOnDispose = callOnDispose;
  }
  static from(...items: { dispose(): unknown }[]): Disposable {
    return new Disposable(() => items.forEach((item) => void item.dispose()));
  }
  dispose(): void {
    this.#callOnDispose();
  }
}

export class EventEmitter<T> implements real.EventEmitter<T> {
  readonly #listeners = new Set<(value: T) => unknown>();
  readonly event: real.Event<T> = (listener, thisArgs: unknown) => {
    const own = (value: T): unknown => Reflect.apply(listener, thisArgs, [value]);
    this.#listeners.add(own);
    return new Disposable(() => this.#listeners.delete(own));
  };
  fire(value: T): void {
    for (const listener of [...this.#listeners]) listener(value);
  }
  dispose(): void {
    this.#listeners.clear();
  }
}

export class CancellationTokenSource implements real.CancellationTokenSource {
  readonly #emitter = new EventEmitter<unknown>();
  readonly token = {
    isCancellationRequested: false,
    onCancellationRequested: this.#emitter.event,
  };
  cancel(): void {
    if (this.token.isCancellationRequested) return;
    this.token.isCancellationRequested = true;
    this.#emitter.fire(undefined);
  }
  dispose(): void {
    this.#emitter.dispose();
  }
}

export class Position implements real.Position {
  readonly line: number;
  readonly character: number;
  constructor(line: number, character: number) {
    this.line = line;
    this.character = character;
  }
  compareTo(other: real.Position): number {
    return Math.sign(this.line - other.line || this.character - other.character);
  }
  isBefore(other: real.Position): boolean {
    return this.compareTo(other) < 0;
  }
  isBeforeOrEqual(other: real.Position): boolean {
    return this.compareTo(other) <= 0;
  }
  isAfter(other: real.Position): boolean {
    return this.compareTo(other) > 0;
  }
  isAfterOrEqual(other: real.Position): boolean {
    return this.compareTo(other) >= 0;
  }
  isEqual(other: real.Position): boolean {
    return this.compareTo(other) === 0;
  }
  translate(by: number | { lineDelta?: number; characterDelta?: number } = 0, characters = 0): Position {
    const delta = typeof by === 'number' ? { lineDelta: by, characterDelta: characters } : by;
    return new Position(this.line + (delta.lineDelta ?? 0), this.character + (delta.characterDelta ?? 0));
  }
  with(to: number | { line?: number; character?: number } = {}, at?: number): Position {
    const change = typeof to === 'number' ? { line: to, character: at } : to;
    return new Position(change.line ?? this.line, change.character ?? this.character);
  }
}

export class Range implements real.Range {
  readonly start: Position;
  readonly end: Position;
  constructor(start: Position, end: Position) {
    this.start = start;
    this.end = end;
  }
  get isEmpty(): boolean {
    return this.start.isEqual(this.end);
  }
  get isSingleLine(): boolean {
    return this.start.line === this.end.line;
  }
  contains(inner: real.Position | real.Range): boolean {
    const { start, end } = 'start' in inner ? inner : { start: inner, end: inner };
    return this.start.isBeforeOrEqual(start) && this.end.isAfterOrEqual(end);
  }
  isEqual(other: real.Range): boolean {
    return this.start.isEqual(other.start) && this.end.isEqual(other.end);
  }
  intersection(other: Range): Range | undefined {
    const start = this.start.isAfter(other.start) ? this.start : other.start;
    const end = this.end.isBefore(other.end) ? this.end : other.end;
    return start.isAfter(end) ? undefined : new Range(start, end);
  }
  union(other: Range): Range {
    const start = this.start.isBefore(other.start) ? this.start : other.start;
    return new Range(start, this.end.isAfter(other.end) ? this.end : other.end);
  }
  with(to: Position | { start?: Position; end?: Position } = {}, end?: Position): Range {
    const change = to instanceof Position ? { start: to, end } : to;
    return new Range(change.start ?? this.start, change.end ?? this.end);
  }
}

export class Selection extends Range implements real.Selection {
  get anchor(): Position {
    return this.start;
  }
  get active(): Position {
    return this.end;
  }
  get isReversed(): boolean {
    return false;
  }
}

/** Events that tests fire. */
export const events = {
  activeEditor: new EventEmitter<real.TextEditor | undefined>(),
  selection: new EventEmitter<real.TextEditorSelectionChangeEvent>(),
  document: new EventEmitter<real.TextDocumentChangeEvent>(),
  opened: new EventEmitter<real.TextDocument>(),
};

export const TextEditorRevealType = { InCenterIfOutsideViewport: 2 } satisfies Partial<
  Record<keyof typeof real.TextEditorRevealType, number>
>;

export class InlineCompletionItem implements real.InlineCompletionItem {
  insertText: string;
  range?: Range;
  command?: real.Command;
  constructor(insertText: string, range?: Range, command?: real.Command) {
    this.insertText = insertText;
    if (range !== undefined) this.range = range;
    if (command !== undefined) this.command = command;
  }
}

export const InlineCompletionTriggerKind = { Invoke: 0, Automatic: 1 } satisfies Record<
  keyof typeof real.InlineCompletionTriggerKind,
  number
>;

/** The translations of the user's language; tests write into it. */
export const translations = new Map<string, string>();

export const l10n = {
  /** As VS Code does: the translation, where there is one, with {0}, {1} … replaced. */
  t(message: unknown, ...args: unknown[]): string {
    return (translations.get(String(message)) ?? String(message)).replace(/\{(\d+)\}/g, (whole, index: string) =>
      String(args[Number(index)] ?? whole),
    );
  },
} satisfies Partial<typeof real.l10n>;

/** The user's settings; tests write into it. */
export const settings = new Map<string, unknown>();

const defaults = new Map(
  manifest.contributes.configuration.flatMap(({ properties }) =>
    Object.entries(properties).map(([key, { default: value }]): [string, unknown] => [key, value]),
  ),
);

/** Records questions and messages to the user, and answers with the first offered label in `wants`, or nothing. */
export const user = {
  asked: [] as { message: string; detail: string; choices: string[] }[],
  opened: [] as string[],
  copied: [] as string[],
  /** Documents that were shown. */
  shown: [] as unknown[],
  /** Labels of the last quick pick, and of its active item. */
  offered: [] as string[],
  active: [] as string[],
  commands: [] as string[],
  progress: [] as string[],
  wants: [] as string[],
  /** Texts for the next input boxes; further boxes are dismissed. `boxes` records their titles. */
  types: [] as string[],
  boxes: [] as string[],
  /** Picks an item of the next quick pick, or presses its button. */
  picks: undefined as { label: string; button?: string } | undefined,
  cancels: false,
  reset(): void {
    for (const list of [
      this.asked,
      this.opened,
      this.copied,
      this.shown,
      this.offered,
      this.active,
      this.commands,
      this.progress,
      this.wants,
      this.types,
      this.boxes,
    ])
      list.length = 0;
    this.picks = undefined;
    this.cancels = false;
    window.activeTextEditor = undefined;
  },
};

const isOptions = (item: unknown): item is real.MessageOptions =>
  typeof item === 'object' && item !== null && !('title' in item);

function ask<T extends string | real.MessageItem>(
  message: string,
  ...rest: (T | real.MessageOptions)[]
): Promise<T | undefined> {
  const choices = rest.filter((item): item is T => !isOptions(item));
  const labelOf = (choice: T) => (typeof choice === 'string' ? choice : choice.title);
  user.asked.push({ message, detail: rest.find(isOptions)?.detail ?? '', choices: choices.map(labelOf) });
  return Promise.resolve(choices.find((choice) => user.wants.includes(labelOf(choice))));
}

export class ThemeIcon implements real.ThemeIcon {
  readonly id: string;
  constructor(id: string) {
    this.id = id;
  }
}
export class ThemeColor implements real.ThemeColor {
  readonly id: string;
  constructor(id: string) {
    this.id = id;
  }
}
export const ProgressLocation = { Notification: 15 } satisfies Partial<
  Record<keyof typeof real.ProgressLocation, number>
>;
export const QuickPickItemKind = { Separator: -1, Default: 0 } satisfies Record<
  keyof typeof real.QuickPickItemKind,
  number
>;
export const ConfigurationTarget = { Global: 1 } satisfies Partial<
  Record<keyof typeof real.ConfigurationTarget, number>
>;

const isPicked = ({ label }: { label: string }): boolean =>
  user.picks !== undefined && label.includes(user.picks.label);

function pickedOf<T extends string | real.QuickPickItem>(items: readonly T[]): T | undefined {
  const labelOf = (item: string | real.QuickPickItem) => (typeof item === 'string' ? { label: item } : item);
  user.offered.splice(0, user.offered.length, ...items.map((item) => labelOf(item).label));
  return items.find((item) => isPicked(labelOf(item)));
}

class QuickPick<T extends real.QuickPickItem> implements real.QuickPick<T> {
  readonly #accepted = new EventEmitter<void>();
  readonly #pressed = new EventEmitter<real.QuickPickItemButtonEvent<T>>();
  readonly #hidden = new EventEmitter<void>();
  readonly onDidAccept = this.#accepted.event;
  readonly onDidTriggerItemButton = this.#pressed.event;
  readonly onDidHide = this.#hidden.event;
  readonly onDidChangeValue = new EventEmitter<string>().event;
  readonly onDidTriggerButton = new EventEmitter<real.QuickInputButton>().event;
  readonly onDidChangeActive = new EventEmitter<readonly T[]>().event;
  readonly onDidChangeSelection = new EventEmitter<readonly T[]>().event;
  title: string | undefined;
  placeholder: string | undefined;
  prompt: string | undefined;
  step: number | undefined;
  totalSteps: number | undefined;
  value = '';
  enabled = true;
  busy = false;
  ignoreFocusOut = false;
  canSelectMany = false;
  matchOnDescription = false;
  matchOnDetail = false;
  buttons: readonly real.QuickInputButton[] = [];
  set activeItems(items: readonly T[]) {
    user.active.splice(0, user.active.length, ...items.map(({ label }) => label));
  }
  get activeItems(): readonly T[] {
    return [];
  }
  selectedItems: readonly T[] = [];
  #all: readonly T[] = [];
  get items(): readonly T[] {
    return this.#all;
  }
  /** Chooses as soon as there are items. */
  set items(items: readonly T[]) {
    this.#all = items;
    user.offered.splice(0, user.offered.length, ...items.map(({ label }) => label));
    const item = items.find(isPicked);
    const button = item?.buttons?.find(({ tooltip }) => tooltip === user.picks?.button);
    queueMicrotask(() => {
      if (item === undefined) return;
      this.selectedItems = [item];
      if (button === undefined) this.#accepted.fire();
      else this.#pressed.fire({ item, button });
    });
  }
  show(): void {}
  hide(): void {
    this.#hidden.fire();
  }
  dispose(): void {}
}

/** Tests set partial editors; the extension sees the real type. */
const editors = { active: undefined as unknown, visible: [] as unknown[] };

/** Commands that ran in a terminal, each with the output and exit code that `outcome` gives it. */
export const terminals = {
  ran: [] as string[],
  outcome: { output: '', code: 0 },
  started: new EventEmitter<real.TerminalShellExecutionStartEvent>(),
  ended: new EventEmitter<real.TerminalShellExecutionEndEvent>(),
  shell: {
    executeCommand(line: string) {
      terminals.ran.push(line);
      const { output, code } = terminals.outcome;
      async function* parts() {
        yield output;
      }
      const execution = { read: parts };
      setTimeout(() => terminals.ended.fire({ execution, exitCode: code } as never), 1);
      return execution;
    },
  },
};

export const window = {
  get activeTextEditor(): real.TextEditor | undefined {
    return editors.active as real.TextEditor | undefined;
  },
  set activeTextEditor(editor: unknown) {
    editors.active = editor;
  },
  get visibleTextEditors(): real.TextEditor[] {
    return editors.visible as real.TextEditor[];
  },
  set visibleTextEditors(visible: unknown[]) {
    editors.visible = visible;
  },
  showInformationMessage: ask,
  showWarningMessage: ask,
  showErrorMessage: ask,
  showQuickPick: async <T extends string | real.QuickPickItem>(items: readonly T[] | Thenable<readonly T[]>) =>
    pickedOf(await items) as never,
  showInputBox({ title = '', prompt = '' }: real.InputBoxOptions = {}): Promise<string | undefined> {
    user.boxes.push(`${title}: ${prompt}`);
    return Promise.resolve(user.types.shift());
  },
  createQuickPick: <T extends real.QuickPickItem>() => new QuickPick<T>(),
  withProgress<T>(
    { title = '' }: real.ProgressOptions,
    task: (
      bar: real.Progress<{ message?: string; increment?: number }>,
      token: real.CancellationToken,
    ) => PromiseLike<T>,
  ): PromiseLike<T> {
    const source = new CancellationTokenSource();
    const report = (step: { message?: string; increment?: number }) => {
      user.progress.push(`${title}: ${step.message ?? ''} +${step.increment ?? 0}`);
      if (user.cancels) source.cancel();
    };
    return task({ report }, source.token);
  },
  onDidChangeActiveTextEditor: events.activeEditor.event,
  onDidChangeTextEditorSelection: events.selection.event,
  onDidChangeVisibleTextEditors: new EventEmitter<readonly real.TextEditor[]>().event,
  tabGroups: { all: [] as readonly real.TabGroup[] } as real.TabGroups & { all: readonly real.TabGroup[] },
  showTextDocument(document: unknown): Promise<never> {
    user.shown.push(document);
    return Promise.resolve(undefined as never);
  },
  /** Terminals that were made, with what was sent to each. */
  terminals: [] as (real.Terminal & { sent: string[] })[],
  createTerminal(options?: real.TerminalOptions | string): never {
    const sent: string[] = [];
    const name = typeof options === 'object' ? (options.name ?? '') : '';
    const terminal = { name, sent, exitStatus: undefined, shellIntegration: terminals.shell, show: () => undefined };
    const made = { ...terminal, sendText: (text: string) => void sent.push(text), dispose: () => undefined };
    window.terminals.push(made as never);
    return made as never;
  },
  onDidChangeTerminalShellIntegration: new EventEmitter<real.TerminalShellIntegrationChangeEvent>().event,
  onDidStartTerminalShellExecution: terminals.started.event,
  onDidEndTerminalShellExecution: terminals.ended.event,
  createTextEditorDecorationType: (options: real.DecorationRenderOptions) => ({
    key: '',
    options,
    dispose: () => undefined,
  }),
} satisfies Partial<typeof real.window>;

export const commands = {
  /** Results of commands; nothing by default. */
  answers: new Map<string, (...args: unknown[]) => unknown>(),
  executeCommand(name: string, ...args: unknown[]): Promise<never> {
    user.commands.push([name, ...args].join(' '));
    return Promise.resolve(commands.answers.get(name)?.(...args) as never);
  },
} satisfies Partial<typeof real.commands> & Record<'answers', unknown>;

/** Of texts; the fake applies none. */
export class WorkspaceEdit {
  readonly size = 0;
}

export const FileType = { File: 1, Directory: 2, SymbolicLink: 64 } satisfies Partial<
  Record<keyof typeof real.FileType, number>
>;

export const env = {
  remoteName: undefined as string | undefined,
  language: 'en',
  clipboard: {
    readText: () => Promise.resolve(user.copied.at(-1) ?? ''),
    writeText(text: string): Promise<void> {
      user.copied.push(text);
      return Promise.resolve();
    },
  },
  openExternal(uri: real.Uri): Promise<boolean> {
    user.opened.push(uri.toString());
    return Promise.resolve(true);
  },
} satisfies Partial<typeof real.env>;

export class TabInputText implements real.TabInputText {
  readonly uri: Uri;
  constructor(uri: Uri) {
    this.uri = uri;
  }
}

/** Without percent-encoding, which no test depends on. */
export class Uri implements real.Uri {
  readonly scheme: string;
  readonly authority: string;
  readonly path: string;
  readonly query: string;
  readonly fragment: string;
  readonly #text: string;
  private constructor(text: string) {
    const [, scheme = '', , authority = '', path = '', , query = '', , fragment = ''] =
      /^(?:([\w+.-]+):)?(\/\/([^/?#]*))?([^?#]*)(\?([^#]*))?(#(.*))?$/s.exec(text) ?? [];
    this.#text = text;
    this.scheme = scheme;
    this.authority = authority;
    this.path = path;
    this.query = query;
    this.fragment = fragment;
  }
  static parse(text: string): Uri {
    return new Uri(text);
  }
  static file(path: string): Uri {
    return new Uri(`file://${path}`);
  }
  static from({ scheme, path = '' }: { scheme: string; path?: string }): Uri {
    return new Uri(`${scheme}:${path}`);
  }
  static joinPath(base: real.Uri, ...parts: string[]): Uri {
    const segments = base.toString().split('/');
    for (const part of parts.flatMap((own) => own.split('/'))) part === '..' ? segments.pop() : segments.push(part);
    return new Uri(segments.join('/'));
  }
  get fsPath(): string {
    return this.path;
  }
  with(change: { scheme?: string; authority?: string; path?: string; query?: string; fragment?: string }): Uri {
    const { scheme, authority, path, query, fragment } = { ...this, ...change };
    return new Uri(
      `${scheme}://${authority}${path}${query === '' ? '' : `?${query}`}${fragment === '' ? '' : `#${fragment}`}`,
    );
  }
  toString(): string {
    return this.#text;
  }
  toJSON(): unknown {
    return { scheme: this.scheme, path: this.path };
  }
}

/** @throws Error for a setting of Hearth's that package.json doesn't declare. */
function settingOf<T>(key: string, fallback?: T): T {
  if (key.startsWith('hearth.') && !defaults.has(key)) throw new Error(`package.json declares no ${key}.`);
  return (settings.get(key) ?? defaults.get(key) ?? fallback) as T;
}

/** Of the patterns, only `folder/**\/*ending` is known. */
export class RelativePattern {
  readonly base: string;
  readonly pattern: string;
  constructor(base: real.Uri, pattern: string) {
    this.base = base.path;
    this.pattern = pattern;
  }
  matches({ path }: real.Uri): boolean {
    const [folder = '', ending = ''] = this.pattern.split('/**/*');
    return path.startsWith(`${this.base.replace(/\/$/, '')}/${folder}/`) && path.endsWith(ending);
  }
}

export const workspace = {
  isTrusted: true as boolean,
  onDidGrantWorkspaceTrust: new EventEmitter<void>().event,
  onDidChangeConfiguration: new EventEmitter<real.ConfigurationChangeEvent>().event,
  onDidChangeTextDocument: events.document.event,
  onDidOpenTextDocument: events.opened.event,
  async openTextDocument(uri?: unknown): Promise<never> {
    const page = workspace.pages.get(String(uri).split(':')[0] ?? '');
    if (page === undefined) return workspace.documents.get(String(uri)) as never;
    return { uri, text: await page.provideTextDocumentContent(uri as real.Uri, undefined as never) } as never;
  },
  /** Providers of read-only documents, by scheme. */
  pages: new Map<string, real.TextDocumentContentProvider>(),
  registerTextDocumentContentProvider(scheme: string, provider: real.TextDocumentContentProvider) {
    workspace.pages.set(scheme, provider);
    return { dispose: () => workspace.pages.delete(scheme) };
  },
  textDocuments: [] as real.TextDocument[],
  /** Edits of files that were applied. */
  edits: [] as unknown[],
  applyEdit(edit: unknown): Promise<boolean> {
    workspace.edits.push(edit);
    return Promise.resolve(true);
  },
  /** The real disk. */
  fs: {
    async stat(uri: real.Uri) {
      const found = await stat(uri.fsPath);
      return { type: found.isFile() ? 1 : 2, size: found.size, ctime: 0, mtime: 0 };
    },
    readFile: (uri: real.Uri) => readFile(uri.fsPath),
    async writeFile(uri: real.Uri, content: Uint8Array): Promise<void> {
      workspace.edits.push(uri);
      await mkdir(dirname(uri.fsPath), { recursive: true });
      await writeFile(uri.fsPath, content);
    },
    async delete(uri: real.Uri): Promise<void> {
      workspace.edits.push(uri);
      await rm(uri.fsPath);
    },
    async rename(from: real.Uri, to: real.Uri): Promise<void> {
      workspace.edits.push(from);
      await rename(from.fsPath, to.fsPath);
    },
    createDirectory: async (uri: real.Uri) => void (await mkdir(uri.fsPath, { recursive: true })),
  },
  /** Files that a search finds, all in the workspace. */
  files: [] as real.Uri[],
  findFiles: (include?: real.GlobPattern | RelativePattern): Promise<real.Uri[]> =>
    Promise.resolve(workspace.files.filter((file) => !(include instanceof RelativePattern) || include.matches(file))),
  workspaceFolders: undefined as readonly real.WorkspaceFolder[] | undefined,
  getWorkspaceFolder: (_: real.Uri): real.WorkspaceFolder | undefined => workspace.workspaceFolders?.[0],
  /** Documents that can be opened, by URI. */
  documents: new Map<string, unknown>(),
  asRelativePath: (uri: string | real.Uri) => uri.toString().replace(/^\w+:\/\/\//, ''),
  getConfiguration: (section = '') => ({
    get: <T>(key: string, fallback?: T): T => settingOf(`${section}.${key}`, fallback),
    has: (key: string) => defaults.has(`${section}.${key}`),
    inspect: <T>(key: string) => ({
      key,
      defaultValue: defaults.get(`${section}.${key}`) as T,
      globalValue: settings.get(`user.${section}.${key}`) as T,
    }),
    update(key: string, value: unknown): Promise<void> {
      settings.set(`${section}.${key}`, value);
      return Promise.resolve();
    },
  }),
} satisfies Partial<Omit<typeof real.workspace, 'fs'>> &
  Record<'documents' | 'pages' | 'files' | 'fs' | 'edits', unknown>;

export const LanguageModelChatMessageRole = { User: 1, Assistant: 2 } satisfies Record<
  keyof typeof real.LanguageModelChatMessageRole,
  number
>;

class ValuePart<T> {
  readonly value: T;
  constructor(value: T) {
    this.value = value;
  }
}
export class LanguageModelTextPart extends ValuePart<string> implements real.LanguageModelTextPart {}
/** Proposed API, which @types/vscode does not have. */
export class LanguageModelThinkingPart extends ValuePart<string> {}
export class LanguageModelPromptTsxPart extends ValuePart<unknown> implements real.LanguageModelPromptTsxPart {}

export class LanguageModelDataPart implements real.LanguageModelDataPart {
  readonly data: Uint8Array;
  readonly mimeType: string;
  constructor(data: Uint8Array, mimeType: string) {
    this.data = data;
    this.mimeType = mimeType;
  }
}

export class LanguageModelToolCallPart implements real.LanguageModelToolCallPart {
  readonly callId: string;
  readonly name: string;
  readonly input: object;
  constructor(callId: string, name: string, input: object) {
    this.callId = callId;
    this.name = name;
    this.input = input;
  }
}

export class LanguageModelToolResultPart implements real.LanguageModelToolResultPart {
  readonly callId: string;
  readonly content: unknown[];
  constructor(callId: string, content: unknown[]) {
    this.callId = callId;
    this.content = content;
  }
}

/** VS Code's tools; tests add them. */
export const lm = {
  tools: [] as real.LanguageModelToolInformation[],
  invokeTool(
    name: string,
    _options: real.LanguageModelToolInvocationOptions<object>,
  ): Promise<real.LanguageModelToolResult> {
    return Promise.reject(new Error(`No tool ${name}.`));
  },
} satisfies Partial<typeof real.lm>;

export class Location implements real.Location {
  readonly uri: Uri;
  readonly range: Range;
  constructor(uri: Uri, range: Range) {
    this.uri = uri;
    this.range = range;
  }
}

export class ChatRequestTurn implements real.ChatRequestTurn {
  readonly prompt: string;
  readonly participant = '';
  readonly references: real.ChatPromptReference[] = [];
  readonly toolReferences: readonly real.ChatLanguageModelToolReference[] = [];
  constructor(prompt: string) {
    this.prompt = prompt;
  }
}

export class ChatResponseMarkdownPart {
  readonly value: Pick<real.MarkdownString, 'value'>;
  constructor(value: string) {
    this.value = { value };
  }
}

export class ChatResponseTurn {
  readonly response: unknown[];
  readonly result: real.ChatResult;
  constructor(response: unknown[], result: real.ChatResult) {
    this.response = response;
    this.result = result;
  }
}

export const LanguageModelChatToolMode = { Auto: 1, Required: 2 } satisfies Record<
  keyof typeof real.LanguageModelChatToolMode,
  number
>;
export class CancellationError extends Error {}

export class LanguageModelError extends Error implements real.LanguageModelError {
  readonly code: string;
  static NotFound(message?: string): LanguageModelError {
    return new LanguageModelError(message, 'NotFound');
  }
  constructor(message?: string, code = '') {
    super(message);
    this.code = code;
  }
}

export const DiagnosticSeverity = { Error: 0, Warning: 1 } satisfies Partial<
  Record<keyof typeof real.DiagnosticSeverity, number>
>;
export const languages = { getDiagnostics: (): never[] => [] } satisfies Partial<typeof real.languages>;

/** As VS Code's: markup of an appended text is shown as it is. */
export class MarkdownString {
  value = '';
  appendText(text: string): this {
    this.value += text.replaceAll(/[\\`*_{}[\]()#+\-!~<>]/g, '\\$&');
    return this;
  }
}

export const CommentMode = { Editing: 0, Preview: 1 } satisfies Record<keyof typeof real.CommentMode, number>;
export const CommentThreadState = { Unresolved: 0, Resolved: 1 } satisfies Record<
  keyof typeof real.CommentThreadState,
  number
>;
export const CommentThreadCollapsibleState = { Collapsed: 0, Expanded: 1 } satisfies Record<
  keyof typeof real.CommentThreadCollapsibleState,
  number
>;

export const comments = {
  /** Threads that were created and not disposed. */
  threads: [] as real.CommentThread[],
  createCommentController: (id: string, label: string): real.CommentController => ({
    ...{ id, label, dispose: () => undefined },
    createCommentThread(uri, range, own) {
      const dispose = () => void comments.threads.splice(comments.threads.indexOf(thread), 1);
      const thread: real.CommentThread = { uri, range, comments: own, collapsibleState: 0, canReply: true, dispose };
      comments.threads.push(thread);
      return thread;
    },
  }),
} satisfies Partial<typeof real.comments> & Record<'threads', unknown>;

/** The exports of other extensions, by their ids. */
export const extensions = {
  installed: new Map<string, unknown>(),
  getExtension(id: string): never {
    const exported = extensions.installed.get(id);
    return (exported && { activate: () => Promise.resolve(exported) }) as never;
  },
};
