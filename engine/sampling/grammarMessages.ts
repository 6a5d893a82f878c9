/** What is said between the engine's thread and the one that follows grammars. One message is answered before the next comes. */
import type { ErrorCode } from '../errors.ts';
import type { Form } from '../grammar/machine.ts';
import type { Vocabulary } from '../grammar/tokenTrie.ts';

export type ToGrammarThread =
  | { readonly kind: 'vocabulary'; readonly vocabulary: Vocabulary }
  | {
      readonly kind: 'open';
      readonly walk: number;
      readonly form: Form;
      /** The answer ends with it, by a token that ends a turn. */
      readonly last: boolean;
      /** Were taken already, by another thread. */
      readonly taken: readonly number[];
    }
  | { readonly kind: 'take'; readonly walk: number; readonly token: number }
  /** The answer has ended: whether it is what the schema wants. */
  | { readonly kind: 'check'; readonly walk: number }
  /** Not answered. */
  | { readonly kind: 'close'; readonly walk: number };

export type FromGrammarThread =
  /** It has read the vocabulary. */
  | { readonly kind: 'ready' }
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next. */
  | { readonly kind: 'allowed'; readonly mask: Int32Array<ArrayBuffer> }
  /** `violation`: what of the schema could not be enforced, and was not kept. */
  | { readonly kind: 'ended'; readonly violation: string | undefined }
  | {
      readonly kind: 'failed';
      readonly message: string;
      /** Of a typed error; without one the thread is not to be trusted any more. */
      readonly code: ErrorCode | undefined;
    };
