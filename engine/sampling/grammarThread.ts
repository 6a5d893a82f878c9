/**
 * The grammar thread. Loading a vocabulary takes about a second, and compiling a schema may take long, so both happen off
 * the engine's thread. Compiled machines and masks are cached.
 */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { type ErrorCode, HearthError } from '../errors.ts';
import { type Form, Machine, type State } from '../grammar/machine.ts';
import { GrammarLimit, withinSteps } from '../grammar/schemaDocument.ts';
import { TokenTrie, type Vocabulary } from '../grammar/tokenTrie.ts';
import { limits } from '../limits.ts';

// Messages between the engine's thread and the grammar thread. Each is answered before the next is sent.

export type ToGrammarThread =
  | { readonly kind: 'vocabulary'; readonly vocabulary: Vocabulary; readonly steps: number }
  | {
      readonly kind: 'open';
      readonly walk: number;
      readonly form: Form;
      /** The answer ends with this grammar, by an end-of-turn token. */
      readonly last: boolean;
      /** Tokens that an earlier thread has already accepted. */
      readonly taken: readonly number[];
    }
  | { readonly kind: 'take'; readonly walk: number; readonly token: number }
  /** The answer has ended; check it against the schema. */
  | { readonly kind: 'check'; readonly walk: number }
  /** Has no reply. */
  | { readonly kind: 'close'; readonly walk: number };

export type FromGrammarThread =
  /** The vocabulary is loaded. */
  | { readonly kind: 'ready' }
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next. */
  | { readonly kind: 'allowed'; readonly mask: Int32Array<ArrayBuffer> }
  /** `violation`: the part of the schema that could not be enforced and that the answer breaks. */
  | { readonly kind: 'ended'; readonly violation: string | undefined }
  | {
      readonly kind: 'failed';
      readonly message: string;
      /** Set for a typed error; without it the thread must be replaced. */
      readonly code: ErrorCode | undefined;
    };

type Opening = Extract<ToGrammarThread, { readonly kind: 'open' }>;

interface Compiled {
  readonly form: Form;
  readonly machine: Machine;
  readonly masks: Map<State, Int32Array<ArrayBuffer>>;
}

interface Walk {
  readonly compiled: Compiled;
  readonly last: boolean;
  /** Bytes of the accepted tokens. */
  readonly written: Uint8Array[];
  state: State;
}

class GrammarThread {
  readonly #trie: TokenTrie;
  readonly #endIds: ReadonlySet<number>;
  readonly #steps: number;
  readonly #compiled = new Map<string, Compiled>();
  readonly #walks = new Map<number, Walk>();
  /** Machines that keep their states, most recently used last. */
  readonly #warm = new Set<Compiled>();

  /** @param steps allowed for compiling a schema, and for taking a token. */
  constructor(vocabulary: Vocabulary, steps: number) {
    this.#steps = steps;
    this.#trie = new TokenTrie(vocabulary);
    this.#endIds = new Set(vocabulary.endIds);
  }

  async answer(
    message: Exclude<ToGrammarThread, { readonly kind: 'vocabulary' }>,
  ): Promise<FromGrammarThread | undefined> {
    switch (message.kind) {
      case 'open':
        return this.#open(message);
      case 'take':
        return this.#take(this.#walk(message.walk), message.token);
      case 'check':
        return this.#checked(this.#walk(message.walk));
      case 'close':
        this.#walks.delete(message.walk);
        return undefined;
    }
  }

  async #open({ walk, form, last, taken }: Opening): Promise<FromGrammarThread> {
    const compiled = await this.#compile(form);
    const { machine } = compiled;
    const opened: Walk = { compiled, last, written: [], state: machine.state(machine.start) };
    this.#keepWarm(compiled);
    for (const token of taken) withinSteps(this.#steps, () => this.#move(opened, token));
    this.#walks.set(walk, opened);
    return withinSteps(this.#steps, () => this.#allowed(opened));
  }

  async #take(walk: Walk, token: number): Promise<FromGrammarThread> {
    if (walk.last && walk.state.mayEnd && this.#endIds.has(token)) return this.#ended(walk);
    withinSteps(this.#steps, () => this.#move(walk, token));
    return !walk.last && walk.state.mayEnd ? this.#ended(walk) : withinSteps(this.#steps, () => this.#allowed(walk));
  }

  #move(walk: Walk, token: number): void {
    const bytes = this.#trie.spelled(token);
    const next = bytes.length > 0 ? walk.compiled.machine.take(walk.state, bytes) : null;
    if (!next) throw new HearthError('invalid-input', `The grammar does not accept token ${token}.`);
    walk.state = next;
    walk.written.push(bytes);
  }

  #walk(id: number): Walk {
    const walk = this.#walks.get(id);
    if (!walk) throw new Error(`There is no walk ${id}.`);
    return walk;
  }

  #allowed({ compiled, state, last }: Walk): FromGrammarThread {
    const { machine, masks } = compiled;
    const abstracted = machine.abstracted(state);
    const known = masks.get(abstracted) ?? this.#trie.mask(machine, abstracted);
    if (masks.size >= limits.generation.grammarMasks) masks.clear();
    masks.set(abstracted, known);
    const mask = known.slice();
    if (last && state.mayEnd) for (const id of this.#endIds) mask[id >> 5] = (mask[id >> 5] ?? 0) | (1 << (id & 31));
    return { kind: 'allowed', mask };
  }

  /** A truncated answer violates nothing. */
  async #checked(walk: Walk): Promise<FromGrammarThread> {
    return walk.state.mayEnd ? this.#ended(walk) : { kind: 'ended', violation: undefined };
  }

  async #ended({ compiled: { form, machine }, written }: Walk): Promise<FromGrammarThread> {
    const keywords = machine.loose;
    if (keywords.length === 0) return { kind: 'ended', violation: undefined };
    // Loaded on demand, because it is rarely needed.
    const { violationOf } = await import('../grammar/afterCheck.ts');
    return { kind: 'ended', violation: violationOf(form, Buffer.concat(written).toString(), keywords) };
  }

  /** States take megabytes; the compiled schema is small. */
  #keepWarm(compiled: Compiled): void {
    this.#warm.delete(compiled);
    this.#warm.add(compiled);
    const [oldest] = this.#warm;
    if (this.#warm.size <= limits.generation.warmGrammars || !oldest) return;
    this.#warm.delete(oldest);
    oldest.machine.forget();
    oldest.masks.clear();
  }

  async #compile(form: Form): Promise<Compiled> {
    const key = JSON.stringify(form);
    const known = this.#compiled.get(key);
    if (known) return known;
    if (this.#compiled.size >= limits.generation.grammars) this.#compiled.clear();
    const machine = withinSteps(this.#steps, () => new Machine(form));
    if (machine.loose.length > 0) (await import('../grammar/afterCheck.ts')).prepareCheck(form, machine.loose);
    const compiled = { form, machine, masks: new Map() };
    this.#compiled.set(key, compiled);
    return compiled;
  }
}

function failure(error: unknown): FromGrammarThread {
  // Only the depth of the schema can exhaust the stack.
  const known =
    error instanceof RangeError ? new GrammarLimit('levels of depth', limits.generation.schemaDepth) : error;
  const message = known instanceof Error ? known.message : String(known);
  return { kind: 'failed', message, code: known instanceof HearthError ? known.code : undefined };
}

function listen(port: MessagePort): void {
  let thread: GrammarThread | undefined;
  // Messages are handled in order.
  let previous: Promise<void> = Promise.resolve();
  port.on('message', (message: ToGrammarThread) => {
    previous = previous.then(async () => {
      if (message.kind === 'vocabulary') {
        thread = new GrammarThread(message.vocabulary, message.steps);
        port.postMessage({ kind: 'ready' } satisfies FromGrammarThread);
        return;
      }
      const answer = await thread?.answer(message).catch(failure);
      if (answer) port.postMessage(answer, answer.kind === 'allowed' ? [answer.mask.buffer] : []);
    });
  });
}

if (parentPort) listen(parentPort);
