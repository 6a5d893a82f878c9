/** Converts text to ids and back. Built from a Hugging Face tokenizer.json or from a GGUF's metadata. */

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Ids that end an assistant turn or the text. */
  readonly endIds: ReadonlySet<number>;
  /** Prepended to raw prompts, if the model expects it. */
  readonly beginId?: number;
  /** Appended to raw texts, if the model expects it: embedding models pool this token. */
  readonly appendedId?: number;
  /** Fill-in-the-middle ids, if the vocabulary has them. The tokenizer decides, never the model's name. */
  readonly fillInTheMiddle?: FillInTheMiddle;
  /** Jinja chat template, if the checkpoint has one. */
  readonly chatTemplate?: string;
  /** Values for templates (`bos_token`, `eos_token`); empty if absent. */
  readonly templateTokens: { readonly begin: string; readonly end: string };
  /** Ids of framing tokens (`<|im_start|>`, `<think>`, …), which `special: 'parse'` recognises. */
  readonly framing: ReadonlyMap<string, number>;
  /**
   * Ids of `text`. User and file text is encoded with `special: 'plain'`, so that `<|im_end|>` in it stays text; only
   * Hearth's own framing uses `special: 'parse'`. Adds no begin or end token.
   */
  encode(text: string, options: { readonly special: 'plain' | 'parse' }): number[];
  /** Splits `text` at framing tokens: their ids, and the text in between. */
  split(text: string): PromptPart[];
  /** Ids of parts: strings are plain text, numbers are ids. */
  encodeParts(parts: readonly PromptPart[]): number[];
  /** Like `encodeParts`, with pauses between pieces of text. */
  encodeSliced(parts: readonly PromptPart[]): Sliced<number[]>;
  /** Bytes of one token. A special token gives the bytes of its name, an unknown id none. */
  bytesOf(id: number): Uint8Array;
  /** Whether the token is framing and never part of an answer. `<think>` and `<tool_call>` are part of answers. */
  isSpecial(id: number): boolean;
  /** Id of a token in the vocabulary's spelling (`Ġthe`), or of a framing token. */
  idOf(token: string): number | undefined;
  /**
   * Text of ids, without special tokens. Invalid UTF-8 becomes U+FFFD. Removes the leading space that SentencePiece
   * vocabularies add, so `ids` should start where a text does.
   */
  decode(ids: readonly number[]): string;
}

export type PromptPart = string | number;

export interface FillInTheMiddle {
  readonly prefix: number;
  readonly suffix: number;
  /** Absent if the prompt ends with the prefix (Codestral). */
  readonly middle?: number;
  /** Order of prefix and suffix in the prompt. */
  readonly order: 'prefix-suffix-middle' | 'suffix-prefix-middle';
  readonly fileSeparator?: number;
  readonly repositoryName?: number;
  readonly pad?: number;
}

/** Work that can pause: it yields wherever others may go on. */
export type Sliced<Result> = Generator<void, Result, void>;

/** For short work, and for callers that cannot wait. */
export function runWhole<Result>(work: Sliced<Result>): Result {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

// Decodes text incrementally: a token may be a part of a character.

/** Decodes UTF-8 as the WHATWG Encoding Standard does. Holds incomplete characters back. */
export class Utf8Stream {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  /** The text completed by `bytes`. Invalid UTF-8 becomes U+FFFD. */
  push(bytes: Uint8Array): string {
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** Flushes an incomplete character as U+FFFD. The stream can be reused. */
  end(): string {
    return this.#decoder.decode();
  }
}

/** Decodes token ids. A special token gives no text and ends an incomplete character. */
export class TokenTextStream {
  readonly #tokenizer: Tokenizer;
  readonly #utf8 = new Utf8Stream();

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  push(id: number): string {
    return this.#tokenizer.isSpecial(id) ? this.#utf8.end() : this.#utf8.push(this.#tokenizer.bytesOf(id));
  }

  end(): string {
    return this.#utf8.end();
  }
}
