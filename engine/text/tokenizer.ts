/** Text to ids and back. Two constructors make one: from a Hugging Face tokenizer.json, from a GGUF's metadata. */

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Ids that end an assistant turn or the text. */
  readonly endIds: ReadonlySet<number>;
  /** Prepended to a raw prompt when the model expects it. */
  readonly beginId?: number;
  /** Fill-in-the-middle ids of the vocabulary, when it has them: the tokenizer decides, never the model's name. */
  readonly fillInTheMiddle?: FillInTheMiddle;
  /** Jinja chat template, when the checkpoint brings one. */
  readonly chatTemplate?: string;
  /** Values templates refer to (`bos_token`, `eos_token`); empty strings where absent. */
  readonly templateTokens: { readonly begin: string; readonly end: string };
  /**
   * Ids of `text`. Text from users and files is encoded with `special: 'plain'`, so that a `<|im_end|>` inside it
   * stays text; only Hearth's own framing uses `special: 'parse'`. No begin or end token is added.
   */
  encode(text: string, options: { readonly special: 'plain' | 'parse' }): number[];
  /** Bytes of one token. Special tokens give the bytes of their name. */
  bytesOf(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  idOf(token: string): number | undefined;
  /** Text of ids; special tokens are left out. Bytes that are no UTF-8 become U+FFFD. */
  decode(ids: readonly number[]): string;
}

export interface FillInTheMiddle {
  readonly prefix: number;
  readonly suffix: number;
  readonly middle: number;
  /** Order of the two parts in the prompt. */
  readonly order: 'prefix-suffix-middle' | 'suffix-prefix-middle';
  readonly fileSeparator?: number;
  readonly repositoryName?: number;
  readonly pad?: number;
}
