/**
 * How byte-level vocabularies spell bytes (openai/gpt-2, encoder.py `bytes_to_unicode`): printable Latin-1 stands for
 * itself, the 68 other bytes for the characters from U+0100 on, in order. A blank is `Ġ`, a line feed `Ċ`.
 */

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);

const characters: readonly string[] = (() => {
  let other = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : other++));
})();

const bytes: ReadonlyMap<string, number> = new Map(characters.map((character, byte) => [character, byte]));

/** The character that spells a byte. */
export function characterOfByte(byte: number): string {
  return characters[byte] ?? '';
}

/** The token that spells `utf8`. */
export function spellBytes(utf8: Uint8Array): string {
  let token = '';
  for (const byte of utf8) token += characters[byte];
  return token;
}

const encoder = new TextEncoder();

/** The bytes that a token spells; characters outside the alphabet stand for their own UTF-8. */
export function bytesOfSpelling(token: string): Uint8Array {
  const out: number[] = [];
  for (const character of token) {
    const byte = bytes.get(character);
    if (byte === undefined) out.push(...encoder.encode(character));
    else out.push(byte);
  }
  return Uint8Array.from(out);
}
