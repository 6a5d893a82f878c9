/**
 * The part of the `vscode` module that the extension's code uses, small and in memory, for tests outside VS Code.
 * vitest.config.ts puts it in place of the real one.
 */
type Listener<T> = (value: T) => unknown;

export class Disposable {
  private readonly callOnDispose: () => unknown;
  constructor(callOnDispose: () => unknown) {
    this.callOnDispose = callOnDispose;
  }
  static from(...items: { dispose(): unknown }[]): Disposable {
    return new Disposable(() => items.forEach((item) => void item.dispose()));
  }
  dispose(): void {
    this.callOnDispose();
  }
}

export class EventEmitter<T> {
  private readonly listeners = new Set<Listener<T>>();
  readonly event = (listener: Listener<T>): Disposable => {
    this.listeners.add(listener);
    return new Disposable(() => this.listeners.delete(listener));
  };
  fire(value: T): void {
    for (const listener of [...this.listeners]) listener(value);
  }
  dispose(): void {
    this.listeners.clear();
  }
}

export class CancellationTokenSource {
  private readonly emitter = new EventEmitter<unknown>();
  readonly token = {
    isCancellationRequested: false,
    onCancellationRequested: this.emitter.event,
  };
  cancel(): void {
    if (this.token.isCancellationRequested) return;
    this.token.isCancellationRequested = true;
    this.emitter.fire(undefined);
  }
  dispose(): void {
    this.emitter.dispose();
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

export class Selection extends Range {}

export class InlineCompletionItem {
  insertText: string;
  range: Range | undefined;
  constructor(insertText: string, range?: Range) {
    this.insertText = insertText;
    this.range = range;
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

export const workspace = {
  asRelativePath: (uri: { toString(): string }) => uri.toString().replace(/^\w+:\/\/\//, ''),
  getConfiguration: (section: string) => ({
    get: (key: string, fallback?: unknown) => settings.get(`${section}.${key}`) ?? fallback,
  }),
};
