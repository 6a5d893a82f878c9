/** DeepSeek's output: tags around thinking, framing tokens around calls. */

import { type Tokenizer, TokenTextStream } from '../../tokenizer/tokenizer.ts';
import type { OutputParser, OutputPiece, Tool } from '../conversation.ts';
import type { DeepSeekVersion } from '../formats/deepseek.ts';
import { ThinkingSplitter } from '../thinking.ts';
import { JsonObjectScanner } from './jsonCall.ts';

export interface DeepSeekOutput {
  readonly version: DeepSeekVersion;
  readonly insideThinking: boolean;
  /** A call to any other tool becomes text. */
  readonly tools: readonly Tool[];
}

interface Call {
  /** The parsed text of the call, without framing. */
  text: string;
  /** Number of characters of `text` that are parsed. */
  at: number;
  state: 'kind' | 'name' | 'arguments' | 'done';
  name: string;
  readonly index: number;
  readonly json: JsonObjectScanner;
}

export class DeepSeekParser implements OutputParser {
  readonly #options: DeepSeekOutput;
  readonly #text: TokenTextStream;
  readonly #names: ReadonlyMap<number, string>;
  readonly #splitter: ThinkingSplitter;
  #call: Call | undefined;
  #calls = 0;
  /** A call has ended and no text followed it yet. */
  #called = false;

  constructor(tokenizer: Tokenizer, options: DeepSeekOutput) {
    this.#options = options;
    this.#text = new TokenTextStream(tokenizer);
    this.#names = new Map([...tokenizer.framing].map(([name, id]) => [id, name]));
    this.#splitter = new ThinkingSplitter(options.insideThinking);
  }

  get isThinking(): boolean {
    return this.#splitter.isThinking;
  }

  push(id: number): OutputPiece[] {
    const pieces = this.#take(this.#text.push(id));
    const name = this.#options.tools.length > 0 ? this.#names.get(id) : undefined;
    if (name === '<｜tool▁call▁begin｜>') {
      pieces.push(...this.#endCall());
      const state = this.#options.version === 'v3' ? 'kind' : 'name';
      this.#call = { text: '', at: 0, state, name: '', index: this.#calls, json: new JsonObjectScanner() };
    } else if (name === '<｜tool▁sep｜>') pieces.push(...this.#separate());
    else if (name?.startsWith('<｜')) pieces.push(...this.#endCall());
    return pieces;
  }

  end(): OutputPiece[] {
    const pieces = this.#take(this.#text.end());
    // The output was cut off. Its pieces were already delivered, so they are not repeated as text.
    if (this.#call?.state === 'arguments') this.#call.state = 'done';
    return [...pieces, ...this.#endCall(), ...this.#splitter.end()];
  }

  #take(text: string): OutputPiece[] {
    const call = this.#call;
    if (!call) return this.#say(text);
    call.text += text;
    if (call.state === 'name' && this.#options.version === 'v3') {
      const fence = /^([^\n]+)\n```(?:json)?\n/.exec(call.text.slice(call.at));
      return fence ? [...this.#nameCall(call, fence[1] ?? '', fence[0].length), ...this.#read(call)] : [];
    }
    return call.state === 'arguments' ? this.#read(call) : [];
  }

  /** Whitespace after a call is framing. */
  #say(text: string): OutputPiece[] {
    const said = this.#called ? text.trimStart() : text;
    if (said !== '') this.#called = false;
    return this.#splitter.push(said);
  }

  /** V3 writes the type of the call before the name; V3.1 only the name. */
  #separate(): OutputPiece[] {
    const call = this.#call;
    if (call?.state === 'kind') {
      call.state = 'name';
      call.at = call.text.length;
      return [];
    }
    return call?.state === 'name' ? this.#nameCall(call, call.text, call.text.length) : this.#endCall();
  }

  #nameCall(call: Call, name: string, length: number): OutputPiece[] {
    call.name = name.trim();
    if (!this.#options.tools.some((tool) => tool.name === call.name)) return this.#endCall();
    call.at += length;
    call.state = 'arguments';
    this.#calls++;
    return [{ kind: 'tool-call', index: call.index, name: call.name, text: '' }];
  }

  #read(call: Call): OutputPiece[] {
    const start = call.at;
    while (call.at < call.text.length) {
      const state = call.json.push(call.text.charAt(call.at));
      if (state === 'invalid') return [...this.#piece(call, start), ...this.#endCall()];
      call.at++;
      if (state === 'more') continue;
      call.state = 'done';
      break;
    }
    return this.#piece(call, start);
  }

  #piece({ text, at, index, name }: Call, start: number): OutputPiece[] {
    return at === start ? [] : [{ kind: 'tool-call', index, name, text: text.slice(start, at) }];
  }

  /** An incomplete call becomes text. */
  #endCall(): OutputPiece[] {
    const call = this.#call;
    this.#call = undefined;
    if (call) this.#called = call.state === 'done';
    return call && call.state !== 'done' ? this.#splitter.push(call.text) : [];
  }
}
