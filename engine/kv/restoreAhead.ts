/** Reads stored sequences while nobody asks for anything, one after the other; a request joins the read that it wants, and ends another. */
import type { Snapshot } from './snapshotFolder.ts';

export interface RestoreAheadOptions {
  /** What is worth it, first to last; asked once. */
  readonly choose: () => Promise<readonly Snapshot[]>;
  /** Puts one into memory; resolves early once the signal is aborted. @returns whether it is there now. */
  readonly restore: (snapshot: Snapshot, signal: AbortSignal) => Promise<boolean>;
}

export class RestoreAhead {
  readonly #options: RestoreAheadOptions;
  #left: Snapshot[] | undefined;
  #reading: { readonly path: string; readonly stop: AbortController; readonly done: Promise<boolean> } | undefined;
  /** Paths of those in memory that nobody has asked for yet. */
  readonly #unused = new Set<string>();

  constructor(options: RestoreAheadOptions) {
    this.#options = options;
  }

  /** Reads what is left; begins no other one after `signal`. One that was ended is read again at the next run. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      this.#left ??= [...(await this.#options.choose())];
      for (let [next] = this.#left; next && !signal.aborted && !this.#reading; [next] = this.#left) {
        const { path } = next;
        const stop = new AbortController();
        this.#reading = { path, stop, done: this.#options.restore(next, stop.signal) };
        if (await this.#reading.done) this.#unused.add(path);
        if (!stop.signal.aborted) this.#left.shift();
        this.#reading = undefined;
      }
    } catch {
      // Nobody has asked for it; whoever does hears what is wrong.
      this.#reading = undefined;
      this.#left = [];
    }
  }

  /** Waits for the read in progress if it is of one of these, and ends it otherwise. Afterwards it holds nothing half read. */
  async settle(wanted: readonly Snapshot[]): Promise<void> {
    const reading = this.#reading;
    if (!reading) return;
    if (!wanted.some(({ path }) => path === reading.path)) reading.stop.abort();
    await reading.done.catch(() => {});
  }

  /** Reads nothing more. */
  async stop(): Promise<void> {
    this.#left = [];
    await this.settle([]);
  }

  /** Of these, those that were read ahead and are asked for now for the first time. */
  firstUsed(among: readonly Snapshot[]): Snapshot[] {
    return among.filter(({ path }) => this.#unused.delete(path));
  }
}
