/** Grammars over a model's vocabulary. They run on their own thread, which is replaced if it fails. */
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { cancelled, HearthError } from '../errors.ts';
import { checkSchemaBounds } from '../grammar/schemaDocument.ts';
import type { Vocabulary } from '../grammar/tokenTrie.ts';
import { limits } from '../limits.ts';
import type { AnswerGrammar } from '../prompt/plans/answerPlan.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { FromGrammarThread, ToGrammarThread } from './grammarThread.ts';

/** One walk through a grammar. */
export interface GrammarWalk {
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next; `undefined` once the grammar has ended. */
  readonly allowed: Int32Array | undefined;
  /** After the end: the part of the schema that could not be enforced and that the answer breaks. */
  readonly violation: string | undefined;
  /** Resolves when `allowed` is the mask after this token. */
  take(token: number): Promise<void>;
  /** Ends the grammar at an end-of-turn token, which `take` never gets. */
  end(): Promise<void>;
  close(): void;
}

/** esbuild bundles the thread as a separate file beside the engine's. */
const threadFile = new URL(
  import.meta.url.endsWith('.ts') ? './grammarThread.ts' : './grammarThread.mjs',
  import.meta.url,
);

type Reply = Exclude<FromGrammarThread, { readonly kind: 'failed' | 'ready' }>;
type Request = Extract<ToGrammarThread, { readonly kind: 'take' | 'check' }> | 'open';

/** The state that a replacement thread needs to continue a walk. */
interface Followed {
  readonly id: number;
  readonly grammar: AnswerGrammar;
  readonly taken: number[];
  /** The thread that opened the walk. */
  worker?: Worker;
}

interface Ask {
  readonly walk: Followed;
  readonly request: Request;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: unknown) => void;
}

/** Tokens between two yields to the event loop. */
const spelledAtOnce = 8192;

export class Grammars {
  readonly #tokenizer: Tokenizer;
  /** Started on demand. */
  #worker: Promise<Worker> | undefined;
  /** Only one request at a time is with the thread, so that a failure is attributed correctly. */
  readonly #asks: Ask[] = [];
  #current: Ask | undefined;
  /** Call when the current request is cancelled. */
  #hurry: (() => void) | undefined;
  #walks = 0;

  readonly #steps: number;

  /** @param steps allowed for compiling a schema or accepting a token. */
  constructor(tokenizer: Tokenizer, steps: number = limits.generation.grammarSteps) {
    this.#tokenizer = tokenizer;
    this.#steps = steps;
  }

  /**
   * @param signal if aborted during compilation, the thread is replaced and other requests continue.
   * @throws HearthError `invalid-input` or `unsupported` for a schema that can't be enforced.
   */
  async walk(grammar: AnswerGrammar, signal?: AbortSignal): Promise<GrammarWalk> {
    for (const part of grammar.form.flat()) if (part.kind === 'json') checkSchemaBounds(part.schema);
    const walk: Followed = { id: ++this.#walks, grammar, taken: [] };
    let reply = await this.#ask(walk, 'open', signal);
    return {
      get allowed() {
        return reply.kind === 'allowed' ? reply.mask : undefined;
      },
      get violation() {
        return reply.kind === 'ended' ? reply.violation : undefined;
      },
      take: async (token) => {
        reply = await this.#ask(walk, { kind: 'take', walk: walk.id, token }, signal);
        walk.taken.push(token);
      },
      end: async () => {
        if (reply.kind !== 'ended') reply = await this.#ask(walk, { kind: 'check', walk: walk.id }, signal);
      },
      close: () => walk.worker?.postMessage({ kind: 'close', walk: walk.id } satisfies ToGrammarThread),
    };
  }

  /** Terminates the thread and frees its memory. */
  async close(): Promise<void> {
    const worker = await this.#worker?.catch(() => undefined);
    this.#worker = undefined;
    await worker?.terminate();
  }

  #ask(walk: Followed, request: Request, signal: AbortSignal | undefined): Promise<Reply> {
    return new Promise<Reply>((resolve, reject) => {
      const cancel = (): void => this.#cancel(ask);
      const settle =
        <Value>(done: (value: Value) => void) =>
        (value: Value): void => {
          signal?.removeEventListener('abort', cancel);
          done(value);
        };
      const ask: Ask = { walk, request, signal, resolve: settle(resolve), reject: settle(reject) };
      if (signal?.aborted) return reject(cancelled());
      signal?.addEventListener('abort', cancel);
      this.#asks.push(ask);
      void this.#work();
    });
  }

  #cancel(ask: Ask): void {
    const at = this.#asks.indexOf(ask);
    if (at >= 0) this.#asks.splice(at, 1);
    if (this.#current === ask) this.#hurry?.();
    ask.reject(cancelled());
  }

  async #work(): Promise<void> {
    if (this.#current) return;
    for (let ask = this.#asks.shift(); ask; ask = this.#asks.shift()) {
      this.#current = ask;
      try {
        ask.resolve(await this.#answered(ask));
      } catch (error) {
        ask.reject(error);
      }
    }
    this.#current = undefined;
  }

  /** If the thread ends, asks its replacement once: another request, or the system, may have ended it. */
  async #answered(ask: Ask): Promise<Reply> {
    try {
      return await this.#answeredByThread(ask);
    } catch (error) {
      if (!(error instanceof ThreadEnded)) throw error;
      return await this.#answeredByThread(ask);
    }
  }

  async #answeredByThread({ walk, request, signal }: Ask): Promise<Reply> {
    const worker = await this.#running();
    // Starting the thread takes a second.
    if (signal?.aborted) throw cancelled();
    const isKnown = walk.worker === worker;
    const { form, last = false } = walk.grammar;
    const open = { kind: 'open', walk: walk.id, form, last, taken: walk.taken } as const;
    if (request === 'open' || !isKnown) {
      const opened = await this.#exchange(worker, open);
      walk.worker = worker;
      if (request === 'open') return opened;
    }
    return this.#exchange(worker, request);
  }

  async #exchange(worker: Worker, message: ToGrammarThread): Promise<Reply> {
    try {
      const reply = await this.#reply(worker, message);
      if (reply.kind === 'ready') throw new Error('The grammar thread sent an unexpected message.');
      if (reply.kind !== 'failed') return reply;
      if (reply.code !== undefined) throw new Refusal(reply.code, reply.message);
      throw new Error(reply.message);
    } catch (error) {
      // A refused schema is harmless; after any other failure the thread is replaced.
      if (!(error instanceof Refusal)) await this.close();
      throw error;
    }
  }

  /** The thread keeps the process alive only while a reply is pending. */
  async #reply(worker: Worker, message: ToGrammarThread): Promise<FromGrammarThread> {
    const { grammarMs, grammarCancelMs } = limits.generation;
    const stop = new AbortController();
    let clock = setTimeout(() => stop.abort(new HearthError('unavailable', threadFailed)), grammarMs);
    // Waits a little longer: a new thread would have to load the vocabulary again.
    this.#hurry = () => {
      clearTimeout(clock);
      clock = setTimeout(() => stop.abort(cancelled()), grammarCancelMs);
    };
    worker.ref();
    try {
      worker.postMessage(message);
      return await nextMessage(worker, stop.signal);
    } finally {
      this.#hurry = undefined;
      clearTimeout(clock);
      worker.unref();
    }
  }

  #running(): Promise<Worker> {
    this.#worker ??= this.#start().catch((error: unknown) => {
      this.#worker = undefined;
      throw error;
    });
    return this.#worker;
  }

  async #start(): Promise<Worker> {
    const vocabulary = await spellingOf(this.#tokenizer);
    const resourceLimits = { maxOldGenerationSizeMb: limits.generation.grammarHeapMegabytes };
    const worker = new Worker(threadFile, { name: 'hearth-grammar', resourceLimits });
    worker.on('exit', () => this.#forget(worker));
    // Without a listener, a failure between two requests would end the process.
    worker.on('error', () => this.#forget(worker));
    const { bytes, starts, special } = vocabulary;
    worker.postMessage({ kind: 'vocabulary', vocabulary, steps: this.#steps } satisfies ToGrammarThread, [
      bytes.buffer,
      starts.buffer,
      special.buffer,
    ]);
    await nextMessage(worker);
    worker.unref();
    return worker;
  }

  /** The next request starts a new thread. */
  #forget(worker: Worker): void {
    void this.#worker?.then((current) => {
      if (current === worker) this.#worker = undefined;
    });
  }
}

/** @throws HearthError if the thread ends first; the signal's reason if it is aborted. */
function nextMessage(worker: Worker, signal?: AbortSignal): Promise<FromGrammarThread> {
  return new Promise<FromGrammarThread>((resolve, reject) => {
    const ended = (): void => settle(() => reject(new ThreadEnded('unavailable', threadFailed)));
    const failed = (error: Error): void => settle(() => reject(failureOf(error)));
    const answered = (answer: FromGrammarThread): void => settle(() => resolve(answer));
    const aborted = (): void => settle(() => reject(signal?.reason));
    const settle = (then: () => void): void => {
      worker.off('message', answered).off('exit', ended).off('error', failed);
      signal?.removeEventListener('abort', aborted);
      then();
    };
    worker.once('message', answered).once('exit', ended).once('error', failed);
    signal?.addEventListener('abort', aborted);
  });
}

/** The thread refuses a schema and continues. */
class Refusal extends HearthError {}

/** A new thread may answer. */
class ThreadEnded extends HearthError {}

const threadFailed = 'The thread that follows JSON Schemas has failed and was replaced; ask again.';
const failureOf = (error: Error & { readonly code?: string }): HearthError =>
  error.code === 'ERR_WORKER_OUT_OF_MEMORY'
    ? new HearthError('unavailable', 'The JSON Schema needs more memory than it may have; simplify it.', {
        cause: error,
      })
    : new ThreadEnded('unavailable', threadFailed, { cause: error });

export async function spellingOf(tokenizer: Tokenizer): Promise<Vocabulary> {
  const { vocabularySize } = tokenizer;
  const tokens: Uint8Array[] = [];
  const starts = new Uint32Array(vocabularySize + 1);
  const special = new Uint8Array(vocabularySize);
  for (let id = 0; id < vocabularySize; id++) {
    const own = tokenizer.bytesOf(id);
    tokens.push(own);
    starts[id + 1] = (starts[id] ?? 0) + own.length;
    special[id] = tokenizer.isSpecial(id) ? 1 : 0;
    if (id % spelledAtOnce === 0) await setImmediate();
  }
  const bytes = new Uint8Array(starts[vocabularySize] ?? 0);
  for (const [id, own] of tokens.entries()) bytes.set(own, starts[id]);
  return { bytes, starts, special, endIds: [...tokenizer.endIds] };
}
