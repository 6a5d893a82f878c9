/**
 * The part of the `vscode` module that the extension's code uses, small and in memory, for tests outside VS Code.
 * vitest.config.ts puts it in place of the real one.
 */
type Listener<T> = (value: T) => unknown;

export class Disposable {
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

export class EventEmitter<T> {
  readonly #listeners = new Set<Listener<T>>();
  readonly event = (listener: Listener<T>): Disposable => {
    this.#listeners.add(listener);
    return new Disposable(() => this.#listeners.delete(listener));
  };
  fire(value: T): void {
    for (const listener of [...this.#listeners]) listener(value);
  }
  dispose(): void {
    this.#listeners.clear();
  }
}

export class CancellationTokenSource {
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

export class Position {
  readonly line: number;
  readonly character: number;
  constructor(line: number, character: number) {
    this.line = line;
    this.character = character;
  }
  translate(lines = 0, characters = 0): Position {
    return new Position(this.line + lines, this.character + characters);
  }
}

export class Range {
  readonly start: Position;
  readonly end: Position;
  constructor(start: Position, end: Position) {
    this.start = start;
    this.end = end;
  }
  get isEmpty(): boolean {
    return this.start.line === this.end.line && this.start.character === this.end.character;
  }
}

export class Selection extends Range {
  get active(): Position {
    return this.end;
  }
}

/** What tests fire in VS Code's place. */
export const events = {
  activeEditor: new EventEmitter<unknown>(),
  selection: new EventEmitter<unknown>(),
  document: new EventEmitter<unknown>(),
};

export const TextEditorRevealType = { InCenterIfOutsideViewport: 2 } as const;

export class InlineCompletionItem {
  insertText: string;
  range: Range | undefined;
  command: unknown;
  constructor(insertText: string, range?: Range, command?: unknown) {
    this.insertText = insertText;
    this.range = range;
    this.command = command;
  }
}

export const InlineCompletionTriggerKind = { Invoke: 0, Automatic: 1 } as const;

export const l10n = {
  /** As VS Code does without a bundle: {0}, {1} … are replaced. */
  t(message: string, ...args: (string | number | boolean)[]): string {
    return message.replace(/\{(\d+)\}/g, (whole, index: string) => String(args[Number(index)] ?? whole));
  },
};

/** What `workspace.getConfiguration` returns; tests write into it. */
export const settings = new Map<string, unknown>();

/** What the user was asked and shown, and what they answer: the first wanted label that is on offer, else nothing. */
export const user = {
  asked: [] as { message: string; detail: string; choices: string[] }[],
  opened: [] as string[],
  copied: [] as string[],
  commands: [] as string[],
  progress: [] as string[],
  wants: [] as string[],
  /** Into the next input boxes; those beyond are dismissed. What was asked for is noted as well. */
  types: [] as string[],
  boxes: [] as string[],
  /** Picks from the next quick pick, or presses a button on its item. */
  picks: undefined as { label: string; button?: string } | undefined,
  cancels: false,
  reset(): void {
    for (const list of [
      this.asked,
      this.opened,
      this.copied,
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

interface Options {
  modal?: boolean;
  detail?: string;
}

function ask(message: string, ...rest: (string | Options)[]): Promise<string | undefined> {
  const choices = rest.filter((item) => typeof item === 'string');
  const options = rest.find((item) => typeof item === 'object');
  user.asked.push({ message, detail: options?.detail ?? '', choices });
  return Promise.resolve(choices.find((choice) => user.wants.includes(choice)));
}

export class ThemeIcon {
  readonly id: string;
  constructor(id: string) {
    this.id = id;
  }
}
export class ThemeColor extends ThemeIcon {}
export const ProgressLocation = { Notification: 15 } as const;
export const QuickPickItemKind = { Separator: -1, Default: 0 } as const;
export const ConfigurationTarget = { Global: 1 } as const;

interface Item {
  label: string;
  buttons?: { tooltip?: string }[];
}

class QuickPick {
  readonly accepted = new EventEmitter<void>();
  readonly pressed = new EventEmitter<{ item: Item; button: { tooltip?: string } }>();
  readonly hidden = new EventEmitter<void>();
  readonly onDidAccept = this.accepted.event;
  readonly onDidTriggerItemButton = this.pressed.event;
  readonly onDidHide = this.hidden.event;
  selectedItems: Item[] = [];
  #all: Item[] = [];
  get items(): Item[] {
    return this.#all;
  }
  /** The user chooses as soon as there is something to choose from. */
  set items(items: Item[]) {
    this.#all = items;
    const item = items.find(({ label }) => user.picks !== undefined && label.includes(user.picks.label));
    const button = item?.buttons?.find(({ tooltip }) => tooltip === user.picks?.button);
    queueMicrotask(() => {
      if (item === undefined) return;
      this.selectedItems = [item];
      if (button === undefined) this.accepted.fire();
      else this.pressed.fire({ item, button });
    });
  }
  show(): void {}
  hide(): void {
    this.hidden.fire();
  }
  dispose(): void {}
}

interface Step {
  message?: string;
  increment?: number;
}

export const window = {
  activeTextEditor: undefined as unknown,
  visibleTextEditors: [] as unknown[],
  showInformationMessage: ask,
  showWarningMessage: ask,
  showErrorMessage: ask,
  showQuickPick<T extends Item>(items: T[]): Promise<T | undefined> {
    return Promise.resolve(items.find(({ label }) => user.picks !== undefined && label.includes(user.picks.label)));
  },
  showInputBox({ title = '', prompt = '' }: { title?: string; prompt?: string }): Promise<string | undefined> {
    user.boxes.push(`${title}: ${prompt}`);
    return Promise.resolve(user.types.shift());
  },
  createQuickPick: () => new QuickPick(),
  withProgress<T>(
    { title }: { title: string },
    task: (bar: { report(step: Step): void }, token: unknown) => Promise<T>,
  ): Promise<T> {
    const source = new CancellationTokenSource();
    const report = (step: Step) => {
      user.progress.push(`${title}: ${step.message ?? ''} +${step.increment ?? 0}`);
      if (user.cancels) source.cancel();
    };
    return task({ report }, source.token);
  },
  onDidChangeActiveTextEditor: events.activeEditor.event,
  onDidChangeTextEditorSelection: events.selection.event,
  onDidChangeVisibleTextEditors: new EventEmitter<unknown>().event,
  showTextDocument: () => Promise.resolve(),
  createTextEditorDecorationType: (options: unknown) => ({ options, dispose: () => undefined }),
};

export const commands = {
  /** What commands return; by default nothing. */
  answers: new Map<string, (...args: unknown[]) => unknown>(),
  executeCommand(name: string, ...args: unknown[]): Promise<unknown> {
    user.commands.push([name, ...args].join(' '));
    return Promise.resolve(commands.answers.get(name)?.(...args));
  },
};

export const env = {
  language: 'en',
  clipboard: {
    writeText(text: string): Promise<void> {
      user.copied.push(text);
      return Promise.resolve();
    },
  },
  openExternal(uri: Uri): Promise<boolean> {
    user.opened.push(uri.toString());
    return Promise.resolve(true);
  },
};

export class Uri {
  readonly #text: string;
  private constructor(text: string) {
    this.#text = text;
  }
  static parse(text: string): Uri {
    return new Uri(text);
  }
  static joinPath(base: Uri, ...parts: string[]): Uri {
    return new Uri([base.#text, ...parts].join('/'));
  }
  get fsPath(): string {
    return this.#text.replace(/^file:\/\//, '');
  }
  toString(): string {
    return this.#text;
  }
}

export const workspace = {
  isTrusted: true,
  onDidGrantWorkspaceTrust: new EventEmitter<void>().event,
  onDidChangeConfiguration: new EventEmitter<unknown>().event,
  onDidChangeTextDocument: events.document.event,
  openTextDocument: (uri: Uri): Promise<unknown> => Promise.resolve(workspace.documents.get(uri.toString())),
  /** What can be opened, by its address. */
  documents: new Map<string, unknown>(),
  getWorkspaceFolder: (uri: { scheme?: string }) => (uri.scheme === 'file' ? { name: 'workspace' } : undefined),
  asRelativePath: (uri: { toString(): string }) => uri.toString().replace(/^\w+:\/\/\//, ''),
  getConfiguration: (section: string) => ({
    get: (key: string, fallback?: unknown) => settings.get(`${section}.${key}`) ?? fallback,
    update(key: string, value: unknown): Promise<void> {
      settings.set(`${section}.${key}`, value);
      return Promise.resolve();
    },
  }),
};

export const LanguageModelChatMessageRole = { User: 1, Assistant: 2 } as const;

class ValuePart<T> {
  readonly value: T;
  constructor(value: T) {
    this.value = value;
  }
}
export class LanguageModelTextPart extends ValuePart<string> {}
export class LanguageModelThinkingPart extends ValuePart<string> {}
export class LanguageModelPromptTsxPart extends ValuePart<unknown> {}

export class LanguageModelDataPart {
  readonly data: Uint8Array;
  readonly mimeType: string;
  constructor(data: Uint8Array, mimeType: string) {
    this.data = data;
    this.mimeType = mimeType;
  }
}

export class LanguageModelToolCallPart {
  readonly callId: string;
  readonly name: string;
  readonly input: object;
  constructor(callId: string, name: string, input: object) {
    this.callId = callId;
    this.name = name;
    this.input = input;
  }
}

export class LanguageModelToolResultPart {
  readonly callId: string;
  readonly content: unknown[];
  constructor(callId: string, content: unknown[]) {
    this.callId = callId;
    this.content = content;
  }
}

/** Tools of the editor: tests put them in. */
export const lm = {
  tools: [] as { name: string; description: string; inputSchema: object }[],
  invokeTool(name: string, _options: unknown, _token: unknown): Promise<{ content: unknown[] }> {
    return Promise.reject(new Error(`No tool ${name}.`));
  },
};

export class Location {
  readonly uri: Uri;
  readonly range: Range;
  constructor(uri: Uri, range: Range) {
    this.uri = uri;
    this.range = range;
  }
}

export class ChatRequestTurn {
  readonly prompt: string;
  constructor(prompt: string) {
    this.prompt = prompt;
  }
}

export class ChatResponseMarkdownPart {
  readonly value: { value: string };
  constructor(value: string) {
    this.value = { value };
  }
}

export class ChatResponseTurn {
  readonly response: unknown[];
  readonly result: { metadata?: unknown };
  constructor(response: unknown[], result: { metadata?: unknown }) {
    this.response = response;
    this.result = result;
  }
}

export const LanguageModelChatToolMode = { Auto: 1, Required: 2 } as const;
export class CancellationError extends Error {}

export class LanguageModelError extends Error {
  readonly code: string;
  static NotFound(message?: string): LanguageModelError {
    return new LanguageModelError(message, 'NotFound');
  }
  constructor(message?: string, code = '') {
    super(message);
    this.code = code;
  }
}

export const DiagnosticSeverity = { Error: 0, Warning: 1 } as const;
export const languages = { getDiagnostics: () => [] };
