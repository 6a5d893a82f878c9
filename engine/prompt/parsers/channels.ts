/**
 * GPT-OSS's harmony output: `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`
 * (openai/harmony, docs/format.md). The analysis channel is thinking, a message to a tool is a call, and all others are shown.
 */

import { type Tokenizer, TokenTextStream } from '../../tokenizer/tokenizer.ts';
import type { OutputParser, OutputPiece, Tool } from '../conversation.ts';
import { JsonObjectScanner } from './callJson.ts';

/** A header has a role, a channel, a recipient and a type. Longer text is not a header. */
const maxHeaderChars = 200;

type State =
  | { readonly kind: 'header'; text: string; channel: string | undefined }
  | { readonly kind: 'text' | 'thinking' }
  | {
      readonly kind: 'call';
      readonly index: number;
      readonly name: string;
      readonly json: JsonObjectScanner;
      text: string;
    }
  /** Text after a call's arguments. */
  | { readonly kind: 'called' };

export class ChannelParser implements OutputParser {
  readonly #text: TokenTextStream;
  readonly #names: ReadonlyMap<number, string>;
  readonly #tools: readonly Tool[];
  #state: State = { kind: 'header', text: '', channel: undefined };
  #calls = 0;
  #answered = false;
  /** Inserted before the next shown text: a blank line between a preamble and the answer. */
  #separator = '';

  constructor(tokenizer: Tokenizer, tools: readonly Tool[]) {
    this.#text = new TokenTextStream(tokenizer);
    this.#names = new Map([...tokenizer.framing].map(([name, id]) => [id, name]));
    this.#tools = tools;
  }

  /** Whether `tokenizer` has channels. */
  static suits(tokenizer: Tokenizer): boolean {
    const names = ['<|start|>', '<|channel|>', '<|message|>', '<|end|>', '<|constrain|>', '<|call|>'];
    return names.every((name) => tokenizer.framing.has(name));
  }

  get isThinking(): boolean {
    return this.#state.kind === 'thinking';
  }

  push(id: number): OutputPiece[] {
    const pieces = this.#take(this.#text.push(id));
    switch (this.#names.get(id)) {
      case '<|channel|>':
        pieces.push(...this.#openChannel());
        break;
      case '<|message|>':
        pieces.push(...this.#openMessage());
        break;
      case '<|start|>':
      case '<|end|>':
      case '<|return|>':
      case '<|call|>':
        pieces.push(...this.#close());
        break;
    }
    return pieces;
  }

  end(): OutputPiece[] {
    const pieces = this.#take(this.#text.end());
    // The output was cut off. Its pieces were already delivered, so they are not repeated as text.
    if (this.#state.kind === 'call') return pieces;
    return [...pieces, ...this.#close()];
  }

  #take(text: string): OutputPiece[] {
    const state = this.#state;
    if (text === '' || state.kind === 'called') return [];
    if (state.kind === 'call') return this.#readCall(state, text);
    if (state.kind !== 'header') return this.#show(state.kind, text);
    if (state.channel === undefined) state.text += text;
    else state.channel += text;
    if (state.text.length + (state.channel ?? '').length <= maxHeaderChars) return [];
    const pieces = this.#close();
    this.#state = { kind: 'text' };
    return pieces;
  }

  #openChannel(): OutputPiece[] {
    const state = this.#state;
    // The recipient may stand before the channel.
    const text = state.kind === 'header' && state.channel === undefined ? state.text : '';
    const pieces = isRole(text) ? [] : this.#close();
    this.#state = { kind: 'header', text: isRole(text) ? text : '', channel: '' };
    return pieces;
  }

  #openMessage(): OutputPiece[] {
    const header = this.#state.kind === 'header' ? this.#state : undefined;
    const to = /(?:^|\s)to=(?:functions\.)?([\w.-]+)/.exec(`${header?.text ?? ''} ${header?.channel ?? ''}`);
    const name = to?.[1];
    if (this.#tools.some((tool) => tool.name === name) && name !== undefined) {
      this.#state = { kind: 'call', index: this.#calls++, name, json: new JsonObjectScanner(), text: '' };
      return [{ kind: 'tool-call', index: this.#calls - 1, name, text: '' }];
    }
    const isAnalysis = /^\s*analysis\b/.test(header?.channel ?? '');
    this.#state = { kind: isAnalysis ? 'thinking' : 'text' };
    if (!isAnalysis && this.#answered) this.#separator = '\n\n';
    return [];
  }

  #readCall(call: Extract<State, { readonly kind: 'call' }>, text: string): OutputPiece[] {
    call.text += text;
    let read = '';
    let state: ReturnType<JsonObjectScanner['push']> = 'more';
    for (const character of text) {
      state = call.json.push(character);
      if (state !== 'invalid') read += character;
      if (state !== 'more') break;
    }
    if (state === 'end') this.#state = { kind: 'called' };
    const { index, name } = call;
    const pieces: OutputPiece[] = read === '' ? [] : [{ kind: 'tool-call', index, name, text: read }];
    return state === 'invalid' ? [...pieces, ...this.#breakCall(call)] : pieces;
  }

  /** Arguments that are incomplete or not JSON become text. */
  #breakCall({ text }: Extract<State, { readonly kind: 'call' }>): OutputPiece[] {
    this.#state = { kind: 'text' };
    return text === '' ? [] : this.#show('text', text);
  }

  /** A header without a message becomes text: the model broke the format or was cut off. */
  #close(): OutputPiece[] {
    const state = this.#state;
    this.#state = { kind: 'header', text: '', channel: undefined };
    if (state.kind === 'call') {
      const pieces = this.#breakCall(state);
      this.#state = { kind: 'header', text: '', channel: undefined };
      return pieces;
    }
    if (state.kind !== 'header') return [];
    const text = state.channel ?? state.text;
    const isHeader = state.channel !== undefined ? text.length < 40 : isRole(text);
    return isHeader ? [] : this.#show('text', text);
  }

  #show(kind: 'text' | 'thinking', text: string): OutputPiece[] {
    if (kind === 'thinking') return [{ kind, text }];
    const separator = this.#separator;
    this.#separator = '';
    this.#answered = true;
    return [{ kind, text: separator + text }];
  }
}

function isRole(text: string): boolean {
  return /^\s*(?:assistant)?(?:\s*to=\S+)?\s*$/.test(text);
}
