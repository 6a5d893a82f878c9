/** The engine's side of a CPU backend's compute thread. */
import { Worker } from 'node:worker_threads';
import { HearthError } from '../../errors.ts';
import type { CacheMessage, FromThread } from './messages.ts';

/** The part of a compute thread's interface that all CPU backends use. */
export interface CacheThread {
  ask(message: CacheMessage, transfer?: readonly ArrayBuffer[]): Promise<Done>;
  /** @param provide gives the thread the row that it waits for (drawing.ts). */
  onRow(provide: (token: number) => Promise<void>): void;
  tell(message: CacheMessage): void;
  end(): Promise<void>;
}

export type Done = Extract<FromThread, { kind: 'done' }>;

interface Waiting {
  readonly resolve: (answer: Done) => void;
  readonly reject: (reason: unknown) => void;
}

function runFailure({ message, code }: Extract<FromThread, { kind: 'failed' }>, runtime: string): HearthError {
  if (code) return new HearthError(code, message);
  const memory = /bad_alloc|allocat|out of memory/i.test(message);
  return new HearthError(
    memory ? 'out-of-memory' : 'unsupported',
    memory
      ? `The forward pass ran out of memory (${message}). Choose a smaller model or context.`
      : `${runtime} failed: ${message}`,
  );
}

/** @typeParam Own further messages from a backend to its thread. */
export class ThreadClient<Own extends { readonly kind: string }> implements CacheThread {
  readonly #worker: Worker;
  readonly #runtime: string;
  readonly #waiting: Waiting[] = [];
  #failure: Error | undefined;
  #provideRow: ((token: number) => Promise<void>) | undefined;
  /** Why a row was not provided; the thread's answer follows. */
  #rowFailure: unknown;

  /** @param runtime the library's name, for messages. */
  constructor(file: URL, runtime: string) {
    this.#runtime = runtime;
    this.#worker = new Worker(file, { name: 'hearth-compute' });
    this.#worker.on('message', (answer: FromThread) => {
      if (answer.kind !== 'row') this.#settle(answer);
      else
        this.#provideRow?.(answer.token).catch((error: unknown) => {
          this.#rowFailure = error;
        });
    });
    this.#worker.on('error', (error: Error) =>
      this.#fail(new HearthError('device-lost', `The compute thread failed (${error.message}).`, { cause: error })),
    );
    this.#worker.on('exit', () => this.#fail(new HearthError('device-lost', 'The compute thread has exited.')));
    // Only a pending answer keeps the process alive; an idle model doesn't.
    this.#worker.unref();
  }

  /** Sends a message that isn't answered. */
  tell(message: CacheMessage | Own): void {
    if (!this.#failure) this.#worker.postMessage(message);
  }

  /** @param transfer buffers that move to the thread. */
  ask(message: CacheMessage | Own, transfer: readonly ArrayBuffer[] = []): Promise<Done> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#waiting.push({ resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage(message, transfer);
    });
  }

  onRow(provide: (token: number) => Promise<void>): void {
    this.#provideRow = provide;
  }

  /** Frees the graph and the caches. */
  async end(): Promise<void> {
    if (!this.#failure) await this.ask({ kind: 'end' });
  }

  #settle(answer: Exclude<FromThread, { kind: 'row' }>): void {
    const waiting = this.#waiting.shift();
    if (this.#waiting.length === 0) this.#worker.unref();
    if (answer.kind === 'done') waiting?.resolve(answer);
    else waiting?.reject(this.#rowFailure ?? runFailure(answer, this.#runtime));
    this.#rowFailure = undefined;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}
