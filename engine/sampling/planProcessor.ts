/** Enforces an answer plan: forces fixed text, and constrains the model to grammars elsewhere. */
import type { OutputParser } from '../prompt/conversation.ts';
import type { AnswerPlan, Step } from '../prompt/plans/answerPlan.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { Grammars, GrammarWalk } from './grammar.ts';
import { free, type LogitsProcessor, type NextTokens } from './logitsProcessor.ts';

export interface PlanProcessorOptions {
  readonly plan: AnswerPlan;
  readonly tokenizer: Tokenizer;
  readonly grammars: Grammars;
  /** Gets each token before `take`. */
  readonly parser: OutputParser;
  /** Abort it to stop waiting for grammars. */
  readonly signal?: AbortSignal | undefined;
}

type Current =
  | { readonly kind: 'write'; readonly ids: readonly number[] }
  | {
      readonly kind: 'choose';
      readonly step: Extract<Step, { readonly kind: 'choose' }>;
      walk?: GrammarWalk;
      /** The walk is opening or accepting the last token. */
      pending?: Promise<void>;
      ids: number[];
    }
  | { readonly kind: 'think' }
  | { readonly kind: 'end' };

type Choosing = Extract<Current, { readonly kind: 'choose' }>;

export class PlanProcessor implements LogitsProcessor {
  readonly #options: PlanProcessorOptions;
  readonly #opener: string | RegExp;
  readonly #forbidden: readonly number[];
  readonly #forbiddenText: ForbiddenText | undefined;
  /** All forbidden tokens, by the list of tokens that would complete the forbidden text. */
  readonly #forbiddenWith = new Map<readonly number[], readonly number[]>();
  #steps: readonly Step[];
  #current: Current | undefined;
  /** Text that may become an opener: the end of a free answer, or the header of a message. */
  #recent = '';
  #inHeader = true;
  /** The answer may still begin with a bare call. */
  #isBeginning = true;
  readonly #closed = new AbortController();
  readonly #stopped: AbortSignal;
  #violation: string | undefined;

  constructor(options: PlanProcessorOptions) {
    const { plan, tokenizer } = options;
    this.#options = options;
    this.#stopped = AbortSignal.any([this.#closed.signal, ...(options.signal ? [options.signal] : [])]);
    this.#steps = plan.steps;
    this.#opener = plan.calls?.opener ?? '';
    const { tokens, text } = plan.forbidden;
    this.#forbidden = tokens.flatMap((name) => tokenizer.framing.get(name) ?? []);
    this.#forbiddenText = text === undefined ? undefined : new ForbiddenText(tokenizer, text);
    this.#next();
  }

  next(): NextTokens {
    const current = this.#current;
    if (current === undefined) return { ...free, forbidden: this.#forbiddenNow() };
    if (current.kind === 'choose') return this.#choosing(current);
    const token = current.kind === 'write' ? current.ids[0] : current.kind === 'end' ? this.#endId : undefined;
    return token === undefined ? free : { kind: 'forced', token };
  }

  get #endId(): number | undefined {
    return this.#options.tokenizer.endIds.values().next().value;
  }

  #choosing(current: Choosing): NextTokens {
    const allowed = current.walk?.allowed;
    if (allowed && !current.pending) return { kind: 'mask', allowed };
    return { kind: 'pending', ready: () => this.#settle(current) };
  }

  /** Returns the same array while the same tokens are forbidden. */
  #forbiddenNow(): readonly number[] {
    const completing = this.#completing();
    const known = this.#forbiddenWith.get(completing);
    if (known) return known;
    const ids = [...this.#forbidden, ...completing];
    this.#forbiddenWith.set(completing, ids);
    return ids;
  }

  /** Tokens that would complete the forbidden text, at the places where it is forbidden. */
  #completing(): readonly number[] {
    const { where = 'anywhere' } = this.#options.plan.forbidden;
    if (where === 'header' && !this.#inHeader) return none;
    if (where === 'start' && (this.#options.parser.isThinking || !/^\s*$|^\s*\{/.test(this.#recent))) return none;
    return this.#forbiddenText?.completing(this.#recent) ?? none;
  }

  take(token: number): void {
    const current = this.#current;
    switch (current?.kind) {
      case 'write':
        // Another processor may have forced a different token.
        if (token === current.ids[0]) this.#write(current.ids.slice(1));
        return;
      case 'choose':
        this.#chosen(current, token);
        return;
      case 'end':
        this.#next();
        return;
      case 'think':
        if (!this.#options.parser.isThinking) this.#next();
        return;
      default:
        this.#watch(token);
    }
  }

  /** After the answer: the part of its schema that could not be enforced and that the answer breaks. */
  async violation(): Promise<string | undefined> {
    const current = this.#current;
    if (current?.kind === 'choose' && current.walk && current.step.grammar.last) {
      await current.pending;
      await current.walk.end();
      this.#violation ??= current.walk.violation;
    }
    return this.#violation;
  }

  close(): void {
    this.#closed.abort();
    if (this.#current?.kind === 'choose') this.#current.walk?.close();
    this.#current = undefined;
  }

  async #open(current: Choosing): Promise<void> {
    const walk = await this.#options.grammars.walk(current.step.grammar, this.#stopped);
    // The answer may have ended in the meantime.
    if (this.#current === current) current.walk = walk;
    else walk.close();
  }

  /** Opens the next grammar, or moves on if it has ended. */
  async #settle(current: Choosing): Promise<void> {
    if (current.walk === undefined) current.pending ??= this.#open(current);
    await current.pending;
    delete current.pending;
    if (this.#current === current && current.walk?.allowed === undefined) this.#ended(current);
  }

  #chosen(current: Choosing, token: number): void {
    current.ids.push(token);
    const taken = current.walk?.take(token);
    // A failure is reported by the next choice.
    taken?.catch(() => {});
    if (taken) current.pending = taken;
  }

  #ended(current: Choosing): void {
    this.#violation ??= current.walk?.violation;
    current.walk?.close();
    const { tokenizer } = this.#options;
    const text = Buffer.concat(current.ids.map((id) => tokenizer.bytesOf(id))).toString();
    this.#steps = [...(current.step.follow?.(text) ?? []), ...this.#steps];
    this.#next();
  }

  #next(): void {
    const [step, ...rest] = this.#steps;
    this.#steps = rest;
    if (step?.kind === 'write') this.#write(this.#options.tokenizer.encode(step.text, { special: 'parse' }));
    else if (step?.kind === 'choose') this.#current = { kind: 'choose', step, ids: [] };
    else this.#current = step;
    if (step === undefined) this.#recent = '';
  }

  #write(ids: readonly number[]): void {
    if (ids.length > 0) this.#current = { kind: 'write', ids };
    else this.#next();
  }

  /** Looks for the opener of a call in free text. */
  #watch(token: number): void {
    const { plan, tokenizer, parser } = this.#options;
    const { calls, forbidden } = plan;
    const inHeader = calls?.inHeader === true || forbidden.where === 'header';
    if ((!calls && !this.#forbiddenText) || (parser.isThinking && !inHeader)) return;
    const text = Buffer.from(tokenizer.bytesOf(token)).toString();
    if (inHeader) this.#followHeader(text, tokenizer.isSpecial(token));
    if (inHeader && !this.#inHeader) return;
    this.#recent = (this.#recent + text).slice(-maxOpenerChars);
    if (!calls) return;
    if (typeof this.#opener !== 'string') {
      this.#watchBeginning(this.#opener, calls);
      return;
    }
    const at = this.#recent.lastIndexOf(this.#opener);
    if (at < 0) return;
    this.#begin(calls.steps(this.#recent.slice(0, at), ''), this.#recent.slice(at + this.#opener.length));
  }

  #watchBeginning(opener: RegExp, calls: NonNullable<AnswerPlan['calls']>): void {
    if (!this.#isBeginning) return;
    const [begun] = opener.exec(this.#recent) ?? [];
    this.#isBeginning =
      begun === undefined && /^\s*(?:\{|$)/.test(this.#recent) && this.#recent.length < maxOpenerChars;
    if (begun === undefined) return;
    this.#steps = calls.steps('', this.#recent.slice(begun.length));
    this.#next();
  }

  #followHeader(text: string, isSpecial: boolean): void {
    if (!isSpecial) return;
    if (text === '<|message|>') this.#inHeader = false;
    else if (text === '<|start|>') {
      this.#inHeader = true;
      this.#recent = '';
    }
  }

  /** A token may extend past the opener into the text that the plan would force; any other continuation stays free. */
  #begin(steps: readonly Step[], written: string): void {
    this.#recent = '';
    const [first, ...rest] = steps;
    if (written === '') this.#steps = steps;
    else if (first?.kind === 'write' && first.text.startsWith(written)) {
      this.#steps = [{ kind: 'write', text: first.text.slice(written.length) }, ...rest];
    } else return;
    this.#next();
  }
}

const none: readonly number[] = [];

/** Enough for the header that names a call's recipient, or for an opener. */
const maxOpenerChars = 200;

// Forbids a text, however it is split into tokens.

/** Cached by tokenizer, because each search visits the whole vocabulary. */
const found = new WeakMap<Tokenizer, Map<string, readonly number[]>>();

class ForbiddenText {
  readonly #tokenizer: Tokenizer;
  readonly #text: string;
  /** By the lengths of those prefixes of the text that the output ends with. */
  readonly #completing = new Map<string, readonly number[]>();

  /** @param text ASCII, at least two characters */
  constructor(tokenizer: Tokenizer, text: string) {
    this.#tokenizer = tokenizer;
    this.#text = text;
  }

  /** Tokens that would complete the text after `before`, or contain it; the same array for the same tokens. */
  completing(before: string): readonly number[] {
    const begun = Array.from({ length: this.#text.length - 1 }, (_, i) => i + 1).filter((length) =>
      before.endsWith(this.#text.slice(0, length)),
    );
    const known = this.#completing.get(begun.join());
    if (known) return known;
    const ids = [
      ...this.#holding('within', this.#text),
      ...begun.flatMap((length) => this.#holding('first', this.#text.slice(length))),
    ];
    this.#completing.set(begun.join(), ids);
    return ids;
  }

  #holding(where: 'within' | 'first', text: string): readonly number[] {
    const known = found.get(this.#tokenizer) ?? new Map<string, readonly number[]>();
    found.set(this.#tokenizer, known);
    const key = `${where} ${text}`;
    const ids = known.get(key) ?? this.#search(where, Buffer.from(text));
    known.set(key, ids);
    return ids;
  }

  #search(where: 'within' | 'first', text: Buffer): number[] {
    const ids: number[] = [];
    for (let id = 0; id < this.#tokenizer.vocabularySize; id++) {
      const { buffer, byteOffset, byteLength } = this.#tokenizer.bytesOf(id);
      if (byteLength < text.length) continue;
      const at = Buffer.from(buffer, byteOffset, byteLength).indexOf(text);
      if (where === 'within' ? at >= 0 : at === 0) ids.push(id);
    }
    return ids;
  }
}
