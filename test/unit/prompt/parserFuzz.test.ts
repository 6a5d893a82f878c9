import { describe, expect, it } from 'vitest';
import { fuzzParsers, parserCases, read, tokensOf } from '../../fuzz/parsers.ts';

describe('Output parsers', () => {
  for (const parserCase of parserCases) {
    it(`read the same however the output is cut: ${parserCase.name}`, () => {
      const tokens = tokensOf(parserCase);
      const whole = read(parserCase, tokens);
      expect(whole.calls.length).toBeGreaterThan(0);
      for (const call of whole.calls) expect(() => JSON.parse(call.json)).not.toThrow();
      // Between any two bytes: what stands before and after the cut is one token each, up to the next framing.
      for (let at = 1; at < tokens.length; at++) {
        const [left, right] = [joinBytes(tokens.slice(0, at)), joinBytes(tokens.slice(at))];
        expect(read(parserCase, [...left, ...right]), `${at}`).toEqual(whole);
      }
    });
  }

  it('parse mutated outputs without failing, without framing tokens, and the same however they are cut', () => {
    expect(fuzzParsers(150, 7)).toBe(2 * 150 * parserCases.length);
  }, 60_000);
});

type Token = ReturnType<typeof tokensOf>[number];

function joinBytes(tokens: readonly Token[]): Token[] {
  const joined: Token[] = [];
  for (const token of tokens) {
    const last = joined.at(-1);
    if (typeof token === 'string' || last === undefined || typeof last === 'string') joined.push(token);
    else joined[joined.length - 1] = Buffer.concat([last, token]);
  }
  return joined;
}
