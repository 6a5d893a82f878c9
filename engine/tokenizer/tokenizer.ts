/** Text to ids and back. Two constructors make one: from a Hugging Face tokenizer.json, from a GGUF's metadata. */
import type { Sliced } from './sliced.ts';

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Ids that end an assistant turn or the text. */
  readonly endIds: ReadonlySet<number>;
  /** Prepended to a raw prompt when the model expects it. */
  readonly beginId?: number;
  /** Appended to a raw text when the model expects it: embedding models look at it alone. */
  readonly appendedId?: number;
  /** Fill-in-the-middle ids of the vocabulary, when it has them: the tokenizer decides, never the model's name. */
  readonly fillInTheMiddle?: FillInTheMiddle;
  /** Jinja chat template, when the checkpoint brings one. */
  readonly chatTemplate?: string;
  /** Values templates refer to (`bos_token`, `eos_token`); empty strings where absent. */
  readonly templateTokens: { readonly begin: string; readonly end: string };
  /** Ids of the tokens that frame text (`<|im_start|>`, `<think>`, …): what `special: 'parse'` looks for. */
  readonly framing: ReadonlyMap<string, number>;
  /**
   * Ids of `text`. Text from users and files is encoded with `special: 'plain'`, so that a `<|im_end|>` inside it
   * stays text; only Hearth's own framing uses `special: 'parse'`. No begin or end token is added.
   */
  encode(text: string, options: { readonly special: 'plain' | 'parse' }): number[];
  /** `text` cut at framing tokens: their ids, and the text between them. */
  split(text: string): PromptPart[];
  /** Ids of parts: a string is plain text, a number stands for itself. */
  encodeParts(parts: readonly PromptPart[]): number[];
  /** `encodeParts`, pausing between pieces of text. */
  encodeSliced(parts: readonly PromptPart[]): Sliced<number[]>;
  /** Bytes of one token. Special tokens give the bytes of their name; an id that is no token gives none. */
  bytesOf(id: number): Uint8Array;
  /** Whether the token frames text and is never part of it; `<think>` and `<tool_call>` are part of it. */
  isSpecial(id: number): boolean;
  /** Id of a token as the vocabulary spells it (`Ġthe`), or of a framing token. */
  idOf(token: string): number | undefined;
  /**
   * Text of ids; special tokens are left out. Bytes that are no UTF-8 become U+FFFD. The blank that a SentencePiece
   * vocabulary puts before a text is taken away again, so `ids` should start where a text does.
   */
  decode(ids: readonly number[]): string;
}

export type PromptPart = string | number;

export interface FillInTheMiddle {
  readonly prefix: number;
  readonly suffix: number;
  /** Absent where the prompt ends with the prefix itself (Codestral). */
  readonly middle?: number;
  /** Order of the two parts in the prompt. */
  readonly order: 'prefix-suffix-middle' | 'suffix-prefix-middle';
  readonly fileSeparator?: number;
  readonly repositoryName?: number;
  readonly pad?: number;
}
