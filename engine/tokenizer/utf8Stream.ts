/** Decodes text incrementally: a token may be a part of a character. */
import type { Tokenizer } from './tokenizer.ts';

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
