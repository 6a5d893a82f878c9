import { describe, expect, it } from 'vitest';
import { HearthError } from '../../../engine/errors.ts';
import { StopStrings } from '../../../engine/prompt/thinking.ts';
import { TokenTextStream, Utf8Stream } from '../../../engine/tokenizer/tokenizer.ts';
import { smallTokenizer, texts } from '../tokenizer/vocabularies.ts';

describe('Utf8Stream', () => {
  const text = 'a é ✓ 日本 👩‍👩‍👧 𝒳\u{feff}';

  it('gives the same text however the bytes are cut, and never half a character', () => {
    const bytes = new TextEncoder().encode(text);
    for (let first = 0; first <= bytes.length; first++) {
      for (let second = first; second <= bytes.length; second++) {
        const stream = new Utf8Stream();
        const pieces = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)];
        const shown = pieces.map((piece) => stream.push(piece));
        expect(shown.join('') + stream.end()).toBe(text);
        expect(shown.some((piece) => piece.includes('\ufffd') || !piece.isWellFormed())).toBe(false);
      }
    }
  });

  it('gives a character as soon as it is whole', () => {
    const stream = new Utf8Stream();
    const shown = [...new TextEncoder().encode('é👍a')].map((byte) => stream.push(Uint8Array.of(byte)));
    expect(shown).toEqual(['', 'é', '', '', '', '👍', 'a']);
  });

  // Encoding Standard, "UTF-8 decoder"; Unicode 16, table 3-8 "maximal subparts".
  const broken: [bytes: number[], text: string][] = [
    [
      [0x61, 0xf1, 0x80, 0x80, 0xe1, 0x80, 0xc2, 0x62, 0x80, 0x63, 0x80, 0xbf, 0x64],
      'a\ufffd\ufffd\ufffdb\ufffdc\ufffd\ufffdd',
    ],
    [[0xc0, 0xaf], '\ufffd\ufffd'],
    [[0xed, 0xa0, 0x80], '\ufffd\ufffd\ufffd'],
    [[0xf4, 0x90, 0x80, 0x80], '\ufffd\ufffd\ufffd\ufffd'],
    [[0xe2, 0x82], '\ufffd'],
    [[0xff, 0x41], '\ufffdA'],
  ];
  for (const [bytes, expected] of broken) {
    it(`turns ${Buffer.from(bytes).toString('hex')} into ${JSON.stringify(expected)}, byte by byte too`, () => {
      const [whole, single] = [new Utf8Stream(), new Utf8Stream()];
      expect(whole.push(Uint8Array.from(bytes)) + whole.end()).toBe(expected);
      expect(bytes.map((byte) => single.push(Uint8Array.of(byte))).join('') + single.end()).toBe(expected);
    });
  }
});

describe('TokenTextStream', () => {
  it('shows the text of tokens, not of special ones', () => {
    const tokenizer = smallTokenizer();
    for (const text of texts) {
      const stream = new TokenTextStream(tokenizer);
      const ids = [300, ...tokenizer.encode(text, { special: 'plain' }), 301];
      expect(ids.map((id) => stream.push(id)).join('') + stream.end()).toBe(text);
    }
  });

  it('ends a character that a special token cuts off', () => {
    const stream = new TokenTextStream(smallTokenizer());
    expect([0xe2, 0x82, 301, 0x41].map((id) => stream.push(id))).toEqual(['', '', '\ufffd', 'A']);
  });
});

describe('StopStrings', () => {
  function run(stops: readonly string[], pieces: readonly string[]): { text: string; stop?: string | undefined } {
    const matcher = new StopStrings(stops);
    let text = '';
    for (const piece of pieces) {
      const stopped = matcher.push(piece);
      text += stopped.text;
      if (stopped.stop !== undefined) return { text, stop: stopped.stop };
    }
    return { text: text + matcher.end() };
  }

  it('ends before the first stop string, however the text is cut', () => {
    const text = 'one\n\ntwo </s> three';
    for (let first = 0; first <= text.length; first++) {
      for (let second = first; second <= text.length; second++) {
        const pieces = [text.slice(0, first), text.slice(first, second), text.slice(second)];
        expect(run(['</s>'], pieces)).toEqual({ text: 'one\n\ntwo ', stop: '</s>' });
        expect(run(['</s>', '\n\n'], pieces)).toEqual({ text: 'one', stop: '\n\n' });
        expect(run(['</x>', 'threee'], pieces)).toEqual({ text });
      }
    }
  });

  it('holds back no more than what may become a stop string', () => {
    const matcher = new StopStrings(['abcd', 'cde']);
    expect(matcher.push('xabc')).toEqual({ text: 'x' });
    expect(matcher.push('x')).toEqual({ text: 'abcx' });
    expect(matcher.push('abc')).toEqual({ text: '' });
    expect(matcher.push('e')).toEqual({ text: 'abce' });
    expect(matcher.push('ab')).toEqual({ text: '' });
    expect(matcher.end()).toBe('ab');
    expect(matcher.end()).toBe('');
  });

  it('finds a stop string inside a longer one that did not complete', () => {
    expect(run(['aab'], ['a', 'a', 'a', 'b'])).toEqual({ text: 'a', stop: 'aab' });
  });

  it('refuses empty, too many and too long stop strings', () => {
    for (const stops of [[''], Array.from({ length: 65 }, () => 'a'), ['a'.repeat(1025)]]) {
      expect(() => new StopStrings(stops)).toThrow(HearthError);
    }
  });
});
