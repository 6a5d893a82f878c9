/**
 * Mistral's calls, after their mark `[TOOL_CALLS]`. Tokenizers from v11 on write one mark for each call, `f[ARGS]{…}`
 * (some write `f[CALL_ID]…[ARGS]{…}` or `f{…}`). Earlier ones write one list, `[{"name": "f", "arguments": {…}, "id":
 * "…"}, …]`; a call of a list is delivered once it is complete. Source: mistral-common,
 * `tokens/tokenizers/instruct.py`.
 */
import type { Tool } from '../conversation.ts';
import { JsonObjectScanner, wholeCall } from './callJson.ts';
import type { CallProgress, CallReader } from './toolCallText.ts';

/** A name, an identifier and their marks. Longer text is no call. */
const maxHeadChars = 200;

export class MarkedCallReader implements CallReader {
  readonly #open: string;
  readonly #tools: readonly Tool[];
  readonly #scanner = new JsonObjectScanner();
  #state: 'start' | 'head' | 'arguments' | 'item' | 'between';
  /** The whole text, in case it isn't a call, and the positions where its JSON starts and up to which it is parsed. */
  #text = '';
  #start = 0;
  #at = 0;

  /** @param inList the text starts after the comma that follows a call of a list. */
  constructor(open: string, tools: readonly Tool[], inList = false) {
    this.#open = open;
    this.#tools = tools;
    this.#state = inList ? 'item' : 'start';
  }

  push(text: string): CallProgress {
    this.#text += text;
    let progress: CallProgress = {};
    for (;;) {
      const step = this.#step();
      if (step === undefined) return progress;
      progress = { ...progress, ...step };
      if (step.rest !== undefined || step.broken !== undefined) return progress;
    }
  }

  end(): CallProgress {
    if (this.#state === 'between') return { rest: this.#text.slice(this.#at) };
    // A call without arguments. The pieces of one that was cut off were already delivered, so they are not repeated as text.
    if (this.#state === 'arguments') {
      return this.#text.slice(this.#start).trim() === '' ? { arguments: '{}', rest: '' } : { rest: '' };
    }
    return { broken: this.#open + this.#text };
  }

  /** `undefined`: more text is needed. */
  #step(): CallProgress | undefined {
    switch (this.#state) {
      case 'start':
        return this.#begin();
      case 'head':
        return this.#readHead();
      case 'arguments':
        return this.#readArguments();
      case 'item':
        return this.#readItem();
      case 'between':
        return this.#readBetween();
    }
  }

  #begin(): CallProgress | undefined {
    const begun = this.#text.trimStart();
    if (begun === '') return undefined;
    this.#state = begun.startsWith('[') ? 'item' : 'head';
    if (this.#state === 'item') this.#at = this.#start = this.#text.length - begun.length + 1;
    return {};
  }

  #readHead(): CallProgress | undefined {
    const head = this.#text.slice(0, maxHeadChars);
    const match = /^\s*([^[{]*)(?:\[CALL_ID\][^[{]*)?(?:\[ARGS\]|(?=\{))/.exec(head);
    const name = (match?.[1] ?? /^[^[{]*/.exec(head)?.[0] ?? '').trim();
    const isPossible = this.#tools.some((tool) => (match ? tool.name === name : tool.name.startsWith(name)));
    if (!isPossible || (!match && head.length === maxHeadChars)) return this.#broken(0);
    if (!match) return undefined;
    this.#state = 'arguments';
    this.#start = match[0].length;
    this.#at = this.#start;
    return { name };
  }

  #readArguments(): CallProgress | undefined {
    const start = this.#at;
    const state = this.#scan();
    const read = this.#text.slice(start, this.#at);
    if (state === 'more') return read === '' ? undefined : { arguments: read };
    if (state === 'invalid') return { arguments: read, ...this.#broken(this.#at) };
    return { arguments: read, rest: this.#text.slice(this.#at) };
  }

  #readItem(): CallProgress | undefined {
    const state = this.#scan();
    if (state === 'more') return undefined;
    const call = state === 'end' ? wholeCall(this.#text.slice(this.#start, this.#at), '') : undefined;
    if (!call || !this.#tools.some((tool) => tool.name === call.name)) return this.#broken(0);
    this.#state = 'between';
    const { name = '', arguments: json = '{}' } = call;
    return { name, arguments: json };
  }

  #readBetween(): CallProgress | undefined {
    const after = this.#text.slice(this.#at).trimStart();
    if (after === '') return undefined;
    if (after.startsWith(',')) return { rest: after.slice(1), more: true };
    return { rest: after.startsWith(']') ? after.slice(1) : after };
  }

  /** Continues scanning the JSON object. */
  #scan(): ReturnType<JsonObjectScanner['push']> {
    while (this.#at < this.#text.length) {
      const state = this.#scanner.push(this.#text.charAt(this.#at));
      if (state === 'invalid') return state;
      this.#at++;
      if (state === 'end') return state;
    }
    return 'more';
  }

  /** Not a call. The text after `end` is searched for further calls. */
  #broken(end: number): CallProgress {
    return { broken: this.#open + this.#text.slice(0, end), rest: this.#text.slice(end) };
  }
}
