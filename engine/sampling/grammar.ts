/** Grammars over a model's vocabulary, followed on a thread of their own. */
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { HearthError, invalidInput } from '../errors.ts';
import type { AnswerGrammar } from '../prompt/plans/answerPlan.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { FromGrammarThread, ToGrammarThread, Vocabulary } from './grammarMessages.ts';

/** One walk through a grammar. */
export interface GrammarWalk {
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next; `undefined`: the grammar has ended. */
  readonly allowed: Int32Array | undefined;
  /** Resolves when `allowed` says what may follow this token. */
  take(token: number): Promise<void>;
  close(): void;
}

/** esbuild bundles the thread as a file of its own beside the engine's. */
const threadFile = new URL(
  import.meta.url.endsWith('.ts') ? './grammarThread.ts' : './grammarThread.mjs',
  import.meta.url,
);

interface Waiting {
  readonly resolve: (allowed: Int32Array | undefined) => void;
  readonly reject: (error: Error) => void;
}

/** Tokens that are spelled between two looks at what else there is to do. */
const spelledAtOnce = 8192;

export class Grammars {
  readonly #tokenizer: Tokenizer;
  /** Started when a grammar is first needed. */
  #worker: Promise<Worker> | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #walks = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @throws HearthError `invalid-input` for a schema that is none. */
  async walk(grammar: AnswerGrammar): Promise<GrammarWalk> {
    this.#worker ??= this.#start();
    const worker = await this.#worker;
    const walk = ++this.#walks;
    const { rules, schema, last = false } = grammar;
    let allowed = await this.#ask(worker, { kind: 'open', walk, rules, schema, last, hidden: this.#hidden(grammar) });
    return {
      get allowed() {
        return allowed;
      },
      take: async (token) => {
        allowed = await this.#ask(worker, { kind: 'take', walk, token });
      },
      close: () => worker.postMessage({ kind: 'close', walk } satisfies ToGrammarThread),
    };
  }

  /** Gives the thread and what it compiled back. */
  async close(): Promise<void> {
    const worker = await this.#worker?.catch(() => undefined);
    this.#worker = undefined;
    await worker?.terminate();
  }

  async #start(): Promise<Worker> {
    const vocabulary = await spellingOf(this.#tokenizer);
    const worker = new Worker(threadFile, { name: 'hearth-grammar' });
    worker.on('message', (answer: FromGrammarThread) => this.#settle(worker, answer));
    worker.on('error', (error: Error) => this.#fail(error));
    worker.on('exit', () => this.#fail(new HearthError('unavailable', 'The thread of grammars has ended; ask again.')));
    // Waiting for an answer keeps the process alive; what was compiled does not.
    worker.unref();
    const { bytes, starts, special } = vocabulary;
    worker.postMessage({ kind: 'vocabulary', vocabulary } satisfies ToGrammarThread, [
      bytes.buffer,
      starts.buffer,
      special.buffer,
    ]);
    return worker;
  }

  #ask(worker: Worker, message: Exclude<ToGrammarThread, { kind: 'vocabulary' | 'close' }>) {
    return new Promise<Int32Array | undefined>((resolve, reject) => {
      this.#waiting.set(message.walk, { resolve, reject });
      worker.ref();
      worker.postMessage(message);
    });
  }

  #settle(worker: Worker, answer: FromGrammarThread): void {
    const waiting = this.#waiting.get(answer.walk);
    this.#waiting.delete(answer.walk);
    if (this.#waiting.size === 0) worker.unref();
    if (answer.kind !== 'failed') waiting?.resolve(answer.kind === 'allowed' ? answer.mask : undefined);
    else waiting?.reject(answer.invalid ? invalidInput(answer.message) : new Error(answer.message));
  }

  /** The next grammar starts another thread. */
  #fail(error: Error): void {
    this.#worker = undefined;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }

  /** Framing tokens that a free text of the grammar must not hold. */
  #hidden({ rules, last }: AnswerGrammar): number[] {
    const tokenizer = this.#tokenizer;
    const framing = [...tokenizer.framing].filter(([name, id]) => tokenizer.isSpecial(id) && !rules.includes(name));
    return framing.flatMap(([, id]) => (last && tokenizer.endIds.has(id) ? [] : [id]));
  }
}

async function spellingOf(tokenizer: Tokenizer): Promise<Vocabulary> {
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
