import type { FillInTheMiddle, PromptPart, Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';

const utf8 = new TextEncoder();

/** Ids 0 to 255 are bytes; framing tokens follow, then whole words. Words are preferred, the longest first. */
export class ByteTokenizer implements Tokenizer {
  readonly framing: ReadonlyMap<string, number>;
  readonly endIds: ReadonlySet<number>;
  readonly vocabularySize: number;
  readonly templateTokens = { begin: '', end: '' };
  declare readonly beginId?: number;
  declare readonly fillInTheMiddle?: FillInTheMiddle;
  declare readonly chatTemplate?: string;
  readonly #tokens: readonly string[];
  readonly #words: readonly string[];

  constructor(options: {
    readonly framing?: readonly string[];
    readonly end?: readonly string[];
    readonly words?: readonly string[];
    readonly begin?: string;
    readonly chatTemplate?: string;
    readonly fillInTheMiddle?: FillInTheMiddle;
  }) {
    const framing = options.framing ?? [];
    this.#words = options.words ?? [];
    this.#tokens = [...framing, ...this.#words];
    this.framing = new Map(framing.map((token, i) => [token, 256 + i]));
    this.endIds = new Set((options.end ?? []).map((token) => this.require(token)));
    this.vocabularySize = 256 + this.#tokens.length;
    if (options.begin !== undefined) this.beginId = this.require(options.begin);
    if (options.chatTemplate !== undefined) this.chatTemplate = options.chatTemplate;
    if (options.fillInTheMiddle !== undefined) this.fillInTheMiddle = options.fillInTheMiddle;
  }

  /** Id of a framing token or word that must exist. */
  require(token: string): number {
    const id = this.idOf(token);
    if (id === undefined) throw new Error(`no token ${token}`);
    return id;
  }

  encode(text: string, { special }: { readonly special: 'plain' | 'parse' }): number[] {
    return special === 'plain' ? this.#plain(text) : this.encodeParts(this.split(text));
  }

  split(text: string): PromptPart[] {
    if (this.framing.size === 0) return text === '' ? [] : [text];
    const names = [...this.framing.keys()].map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    const parts = text.split(new RegExp(`(${names.join('|')})`)).filter((part) => part !== '');
    return parts.map((part) => this.framing.get(part) ?? part);
  }

  *encodeSliced(parts: readonly PromptPart[]): Generator<void, number[], void> {
    const ids: number[] = [];
    for (const part of parts) {
      yield;
      for (const id of this.encodeParts([part])) ids.push(id);
    }
    return ids;
  }

  encodeParts(parts: readonly PromptPart[]): number[] {
    return parts.flatMap((part) => (typeof part === 'number' ? [part] : this.#plain(part)));
  }

  bytesOf(id: number): Uint8Array {
    if (id < 256) return Uint8Array.of(id);
    return utf8.encode(this.#tokens[id - 256] ?? '');
  }

  isSpecial(id: number): boolean {
    return id >= 256 && id < 256 + this.framing.size;
  }

  idOf(token: string): number | undefined {
    const index = this.#tokens.indexOf(token);
    return index < 0 ? undefined : 256 + index;
  }

  decode(ids: readonly number[]): string {
    return Buffer.concat(ids.filter((id) => !this.isSpecial(id)).map((id) => this.bytesOf(id))).toString();
  }

  #plain(text: string): number[] {
    const ids: number[] = [];
    for (let rest = text; rest !== ''; ) {
      const word = this.#words.filter((candidate) => rest.startsWith(candidate)).sort((a, b) => b.length - a.length)[0];
      const piece = word ?? String.fromCodePoint(rest.codePointAt(0) ?? 0);
      ids.push(...(word === undefined ? utf8.encode(piece) : [this.require(word)]));
      rest = rest.slice(piece.length);
    }
    return ids;
  }
}
