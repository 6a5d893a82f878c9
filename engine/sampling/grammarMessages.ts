/** Messages between the engine's thread and the grammar thread. Each is answered before the next is sent. */
import type { ErrorCode } from '../errors.ts';
import type { Form } from '../grammar/machine.ts';
import type { Vocabulary } from '../grammar/tokenTrie.ts';

export type ToGrammarThread =
  | { readonly kind: 'vocabulary'; readonly vocabulary: Vocabulary; readonly steps: number }
  | {
      readonly kind: 'open';
      readonly walk: number;
      readonly form: Form;
      /** The answer ends with this grammar, by an end-of-turn token. */
      readonly last: boolean;
      /** Tokens that an earlier thread has already accepted. */
      readonly taken: readonly number[];
    }
  | { readonly kind: 'take'; readonly walk: number; readonly token: number }
  /** The answer has ended; check it against the schema. */
  | { readonly kind: 'check'; readonly walk: number }
  /** Has no reply. */
  | { readonly kind: 'close'; readonly walk: number };

export type FromGrammarThread =
  /** The vocabulary is loaded. */
  | { readonly kind: 'ready' }
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next. */
  | { readonly kind: 'allowed'; readonly mask: Int32Array<ArrayBuffer> }
  /** `violation`: the part of the schema that could not be enforced and that the answer breaks. */
  | { readonly kind: 'ended'; readonly violation: string | undefined }
  | {
      readonly kind: 'failed';
      readonly message: string;
      /** Set for a typed error; without it the thread must be replaced. */
      readonly code: ErrorCode | undefined;
    };
