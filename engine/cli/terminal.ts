/** Output of a command. Answers go to stdout; progress, thinking and errors go to stderr. */

export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** True if stderr is a terminal, where a line can be rewritten. */
  readonly interactive: boolean;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
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
