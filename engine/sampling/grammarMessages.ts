/** What is said between the engine's thread and the one that follows grammars. */

/** Every token in its spelling of bytes: `bytes[starts[id] … starts[id + 1]]`. */
export interface Vocabulary {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly starts: Uint32Array<ArrayBuffer>;
  /** 1: it frames text and is never part of it. */
  readonly special: Uint8Array<ArrayBuffer>;
  readonly endIds: readonly number[];
}

export type ToGrammarThread =
  | { readonly kind: 'vocabulary'; readonly vocabulary: Vocabulary }
  | {
      readonly kind: 'open';
      readonly walk: number;
      readonly rules: string;
      readonly schema: unknown;
      /** The answer ends with it, by a token that ends a turn. */
      readonly last: boolean;
      /** Tokens that may not come although the grammar takes them. */
      readonly hidden: readonly number[];
    }
  | { readonly kind: 'take'; readonly walk: number; readonly token: number }
  /** Not answered. */
  | { readonly kind: 'close'; readonly walk: number };

export type FromGrammarThread =
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next. */
  | { readonly kind: 'allowed'; readonly walk: number; readonly mask: Int32Array<ArrayBuffer> }
  | { readonly kind: 'ended'; readonly walk: number }
  | {
      readonly kind: 'failed';
      readonly walk: number;
      readonly message: string;
      /** The schema is at fault. */
      readonly invalid: boolean;
    };
