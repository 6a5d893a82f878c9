/**
 * The byte alphabet of byte-level vocabularies (openai/gpt-2, encoder.py `bytes_to_unicode`): printable Latin-1 bytes
 * map to themselves, the 68 others to the characters from U+0100 on, in order. A space is `Ġ`, a line feed `Ċ`.
 */

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);

const characters: readonly string[] = (() => {
  let other = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : other++));
})();

const bytes: ReadonlyMap<string, number> = new Map(characters.map((character, byte) => [character, byte]));

/** The character for a byte. */
export function characterOfByte(byte: number): string {
  return characters[byte] ?? '';
}

/** The spelling of UTF-8 bytes as a token. */
export function spellBytes(utf8: Uint8Array): string {
  let token = '';
  for (const byte of utf8) token += characters[byte];
  return token;
}

const encoder = new TextEncoder();

/** The bytes of a token; characters outside the alphabet give their own UTF-8. */
export function bytesOfSpelling(token: string): Uint8Array {
  const out: number[] = [];
  for (const character of token) {
    const byte = bytes.get(character);
    if (byte === undefined) out.push(...encoder.encode(character));
    else out.push(byte);
  }
  return Uint8Array.from(out);
}
