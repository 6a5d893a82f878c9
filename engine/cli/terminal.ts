/** Where a command writes. Answers go to stdout; progress, thinking and errors to stderr. */

export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** stderr is a person's screen, where a line may be rewritten. */
  readonly interactive: boolean;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Shorter work is done before anyone would read how far it is. */
const patienceMs = 1000;

/** One line on stderr that says how far something is; where nobody watches, a line for every tenth. */
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
    if (now - this.#startedMs < patienceMs) return;
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

  /** Leaves the screen as if nothing had been shown. */
  end(): void {
    if (this.#shown !== '') this.#terminal.err(`\r${' '.repeat(this.#shown.length)}\r`);
    this.#shown = '';
    this.#lastTenth = -1;
    this.#startedMs = undefined;
  }
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
