/** The decoder's side of the graph thread. */
import { Worker } from 'node:worker_threads';
import { HearthError } from '../../errors.ts';
import type { FromThread, ToThread } from './messages.ts';

/** In builds, the thread is a bundle of its own beside the engine's. */
const workerFile = new URL(import.meta.url.endsWith('.ts') ? './graphThread.ts' : './onnxWorker.mjs', import.meta.url);

type Done = Extract<FromThread, { kind: 'done' }>;

interface Waiting {
  readonly resolve: (answer: Done) => void;
  readonly reject: (error: Error) => void;
}

function runFailure(message: string): HearthError {
  const memory = /bad_alloc|allocat|out of memory/i.test(message);
  return new HearthError(
    memory ? 'out-of-memory' : 'unsupported',
    memory
      ? `The forward pass ran out of memory (${message}). Choose a smaller model or context.`
      : `ONNX Runtime failed: ${message}`,
  );
}

export class ThreadClient {
  readonly #worker = new Worker(workerFile, { name: 'hearth-onnx' });
  readonly #waiting: Waiting[] = [];
  #failure: Error | undefined;

  constructor() {
    this.#worker.on('message', (answer: FromThread) => this.#settle(answer));
    this.#worker.on('error', (error: Error) => this.#fail(error));
    this.#worker.on('exit', () => this.#fail(new HearthError('device-lost', 'The compute thread has exited.')));
    // A pending answer keeps the process alive; an idle model doesn't.
    this.#worker.unref();
  }

  /** Sends a message that isn't answered. */
  tell(message: ToThread): void {
    if (!this.#failure) this.#worker.postMessage(message);
  }

  /** @param transfer buffers that move to the thread. */
  ask(message: ToThread, transfer: readonly ArrayBuffer[] = []): Promise<Done> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      this.#waiting.push({ resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage(message, transfer);
    });
  }

  /** Frees the graph and the caches. */
  async end(): Promise<void> {
    if (!this.#failure) await this.ask({ kind: 'end' });
  }

  #settle(answer: FromThread): void {
    const waiting = this.#waiting.shift();
    if (this.#waiting.length === 0) this.#worker.unref();
    if (answer.kind === 'done') waiting?.resolve(answer);
    else waiting?.reject(runFailure(answer.message));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}
