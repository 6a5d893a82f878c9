/** Output of a command. Answers go to stdout; progress, thinking and errors go to stderr. */

export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** True if stderr is a terminal, where a line can be rewritten. */
  readonly interactive: boolean;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/**
 * Replaces control characters by their escapes, which JSON reads as the same characters. Names of files, metadata of models
 * and answers could otherwise rewrite what a terminal shows, or more. Tabs and line ends stay.
 */
export const printable = (text: string): string => text.replaceAll(controls, escaped);

/** The same for stderr, where progress returns to the start of its line and thinking is grey. */
export const printableStatus = (text: string): string =>
  text.replaceAll(controls, (found, at) =>
    // biome-ignore lint/suspicious/noControlCharactersInRegex: Hearth's own.
    /^\u001b\[(?:90|39)m$/.test(found) || (found === '\r' && (at === 0 || at === text.length - 1))
      ? found
      : escaped(found),
  );

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const controls = /\r\n|\u001b\[(?:90|39)m|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

function escaped(found: string): string {
  if (found === '\r\n') return found;
  return `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}${found.slice(1)}`;
}

/** Shorter work shows no progress. */
const delayMs = 1000;

/** Shows progress in one rewritten line on a terminal, or as a line for every 10 % otherwise. */
export class ProgressLine {
  readonly #terminal: Terminal;
  #startedMs: number | undefined;
  #shown = '';
  #lastTenth = -1;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show(message: string, done: number, total: number, unit: 'bytes' | 'parts'): void {
    const now = performance.now();
    this.#startedMs ??= now;
    if (now - this.#startedMs < delayMs) return;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const amount = unit === 'bytes' ? `${megabytes(done)} of ${megabytes(total)}` : `${done} of ${total}`;
    const line = `${message}: ${Math.floor(share * 100)} % (${amount})`;
    if (this.#terminal.interactive) {
      if (line === this.#shown) return;
      this.#terminal.err(`\r${line.padEnd(this.#shown.length)}`);
      this.#shown = line;
      return;
    }
    const tenth = Math.floor(share * 10);
    if (tenth === this.#lastTenth) return;
    this.#lastTenth = tenth;
    this.#terminal.err(`${line}\n`);
  }

  /** Clears the progress line. */
  end(): void {
    if (this.#shown !== '') this.#terminal.err(`\r${' '.repeat(this.#shown.length)}\r`);
    this.#shown = '';
    this.#lastTenth = -1;
    this.#startedMs = undefined;
  }
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
