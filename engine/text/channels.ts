/**
 * GPT-OSS's harmony output: `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`
 * (openai/harmony, docs/format.md). The analysis channel is thinking; every other one is shown.
 */
import type { OutputParser, OutputPiece } from './thinking.ts';
import type { Tokenizer } from './tokenizer.ts';
import { TokenTextStream } from './utf8Stream.ts';

/** A header is a role, a channel, a recipient and a type. What is longer is no header. */
const maxHeaderChars = 200;

export class ChannelParser implements OutputParser {
  readonly #text: TokenTextStream;
  readonly #names: ReadonlyMap<number, string>;
  /** Text before `<|message|>`, or the kind of the message that streams. */
  #state: { header: string; channel: string | undefined } | OutputPiece['kind'] = { header: '', channel: undefined };
  #answered = false;
  /** Goes before the next shown text: a blank line between a preamble and the answer. */
  #separator = '';

  constructor(tokenizer: Tokenizer) {
    this.#text = new TokenTextStream(tokenizer);
    this.#names = new Map([...tokenizer.framing].map(([name, id]) => [id, name]));
  }

  /** Whether `tokenizer` has channels. */
  static suits(tokenizer: Tokenizer): boolean {
    return ['<|start|>', '<|channel|>', '<|message|>', '<|end|>'].every((name) => tokenizer.framing.has(name));
  }

  push(id: number): OutputPiece[] {
    const pieces = this.#take(this.#text.push(id));
    switch (this.#names.get(id)) {
      case '<|channel|>':
        this.#state = { header: '', channel: '' };
        break;
      case '<|message|>':
        this.#openMessage();
        break;
      case '<|start|>':
      case '<|end|>':
      case '<|return|>':
      case '<|call|>':
        pieces.push(...this.#closeHeader());
        this.#state = { header: '', channel: undefined };
        break;
    }
    return pieces;
  }

  end(): OutputPiece[] {
    return [...this.#take(this.#text.end()), ...this.#closeHeader()];
  }

  #take(text: string): OutputPiece[] {
    if (text === '') return [];
    const state = this.#state;
    if (typeof state === 'string') return this.#show(state, text);
    if (state.channel === undefined) state.header += text;
    else state.channel += text;
    return state.header.length + (state.channel ?? '').length > maxHeaderChars ? this.#giveUp() : [];
  }

  #openMessage(): void {
    const channel = typeof this.#state === 'string' ? undefined : this.#state.channel;
    const analysis = /^\s*analysis\b/.test(channel ?? '');
    this.#state = analysis ? 'thinking' : 'text';
    if (!analysis && this.#answered) this.#separator = '\n\n';
  }

  /** A header that no message follows was text: a model that forgot the format, or was cut off. */
  #giveUp(): OutputPiece[] {
    const pieces = this.#closeHeader();
    this.#state = 'text';
    return pieces;
  }

  #closeHeader(): OutputPiece[] {
    const state = this.#state;
    if (typeof state === 'string') return [];
    const text = state.channel ?? state.header;
    this.#state = { header: '', channel: undefined };
    const isHeader = state.channel !== undefined ? text.length < 40 : /^\s*(?:assistant\s*)?$/.test(text);
    return isHeader ? [] : this.#show('text', text);
  }

  #show(kind: OutputPiece['kind'], text: string): OutputPiece[] {
    if (kind === 'thinking') return [{ kind, text }];
    const separator = this.#separator;
    this.#separator = '';
    this.#answered = true;
    return [{ kind, text: separator + text }];
  }
}
