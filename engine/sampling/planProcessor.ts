/** Holds an answer to its plan: writes what is certain, and lets the model choose within grammars. */

import type { OutputParser } from '../prompt/output.ts';
import type { AnswerPlan, Step } from '../prompt/plans/answerPlan.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { ForbiddenText } from './forbiddenText.ts';
import type { Grammars, GrammarWalk } from './grammar.ts';
import { free, type LogitsProcessor, type NextTokens } from './logitsProcessor.ts';

export interface PlanSteerOptions {
  readonly plan: AnswerPlan;
  readonly tokenizer: Tokenizer;
  readonly grammars: Grammars;
  /** Has read each token before `take`. */
  readonly parser: OutputParser;
  /** Aborted: no grammar is waited for any more. */
  readonly signal?: AbortSignal | undefined;
}

type Current =
  | { readonly kind: 'write'; readonly ids: readonly number[] }
  | {
      readonly kind: 'choose';
      readonly step: Extract<Step, { readonly kind: 'choose' }>;
      walk?: GrammarWalk;
      /** The walk opens, or takes the last token. */
      unsettled?: Promise<void>;
      ids: number[];
    }
  | { readonly kind: 'think' }
  | { readonly kind: 'end' };

type Choosing = Extract<Current, { readonly kind: 'choose' }>;

export class PlanSteer implements LogitsProcessor {
  readonly #options: PlanSteerOptions;
  readonly #opener: string | RegExp;
  readonly #forbidden: readonly number[];
  readonly #forbiddenText: ForbiddenText | undefined;
  /** All that is forbidden, by the tokens that would complete the forbidden text. */
  readonly #forbiddenWith = new Map<readonly number[], readonly number[]>();
  #steps: readonly Step[];
  #current: Current | undefined;
  /** What may become an opener: the end of a free answer, or the header of a message. */
  #recent = '';
  #inHeader = true;
  /** Nothing was written that a bare call does not begin with. */
  #isBeginning = true;
  readonly #closed = new AbortController();
  readonly #stopped: AbortSignal;
  #violation: string | undefined;

  constructor(options: PlanSteerOptions) {
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
    if (allowed && !current.unsettled) return { kind: 'mask', allowed };
    return { kind: 'pending', ready: () => this.#settle(current) };
  }

  /** The same array as long as the same is forbidden. */
  #forbiddenNow(): readonly number[] {
    const completing = this.#completing();
    const known = this.#forbiddenWith.get(completing);
    if (known) return known;
    const ids = [...this.#forbidden, ...completing];
    this.#forbiddenWith.set(completing, ids);
    return ids;
  }

  /** Tokens that would complete the forbidden text, where it is meant. */
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
        // Another steer may have written something else first.
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

  /** Of an answer that has ended: what of its schema could not be enforced, and was not kept. */
  async violation(): Promise<string | undefined> {
    const current = this.#current;
    if (current?.kind === 'choose' && current.walk && current.step.grammar.last) {
      await current.unsettled;
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
    // The answer may have ended meanwhile.
    if (this.#current === current) current.walk = walk;
    else walk.close();
  }

  /** Opens the grammar that stands next, or follows it past its end. */
  async #settle(current: Choosing): Promise<void> {
    if (current.walk === undefined) current.unsettled ??= this.#open(current);
    await current.unsettled;
    delete current.unsettled;
    if (this.#current === current && current.walk?.allowed === undefined) this.#ended(current);
  }

  #chosen(current: Choosing, token: number): void {
    current.ids.push(token);
    const taken = current.walk?.take(token);
    // Where it fails, the next choice says so.
    taken?.catch(() => {});
    if (taken) current.unsettled = taken;
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

  /** Looks for the opener of a call in what the model writes freely. */
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

  /** A token may have run over the opener's end into what would be written next; any other run is the model's own way. */
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

/** A header in which a call's recipient stands, or the end of a text that holds an opener. */
const maxOpenerChars = 200;
