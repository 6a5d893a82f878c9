import { describe, expect, it } from 'vitest';
import { LogprobRecorder } from '../../../engine/sampling/logprobs.ts';

const spelled = ['<end>', 'he', 'llo', ' 😀'.slice(0, 2), '!'];
const tokenizer = { bytesOf: (id: number) => new TextEncoder().encode(spelled[id] ?? '') };
/** Probabilities of 1/16, 2/16, 4/16, 8/16 and 1/16, written by hand; a constant added to all changes nothing. */
const logits = Float32Array.of(...[1, 2, 4, 8, 1].map((weight) => Math.log(weight) + 3));

describe('Log-probabilities', () => {
  it('are of the softmax of the logits, with the most probable first', () => {
    const recorder = new LogprobRecorder(tokenizer, 3);
    recorder.chose(logits, 1);
    recorder.took();
    const [token] = recorder.of({ kind: 'text', text: 'he' });
    expect(token?.logprob).toBeCloseTo(Math.log(2 / 16), 5);
    expect(token?.top.map(({ logprob }) => Math.round(16 * Math.exp(logprob)))).toEqual([8, 4, 2]);
  });

  it('belong to the text that their tokens are shown in; thinking and framing have none', () => {
    const recorder = new LogprobRecorder(tokenizer, 0);
    const take = (id: number): void => {
      recorder.chose(logits, id);
      recorder.took();
    };
    take(0);
    take(1);
    take(2);
    take(4);
    // The last token is held back: it may begin a stop string.
    expect(recorder.of({ kind: 'text', text: 'hello' }).map(({ token }) => token)).toEqual(['he', 'llo']);
    expect(recorder.of({ kind: 'text', text: '!' }).map(({ token }) => token)).toEqual(['!']);
    take(1);
    expect(recorder.of({ kind: 'thinking', text: 'he' })).toEqual([]);
    take(2);
    expect(recorder.of({ kind: 'text', text: 'llo' }).map(({ token }) => token)).toEqual(['llo']);
  });

  it('are never infinite, which JSON cannot express', () => {
    const recorder = new LogprobRecorder(tokenizer, 5);
    recorder.chose(Float32Array.of(0, Number.NEGATIVE_INFINITY, 0, 0, 0), 1);
    recorder.took();
    expect(recorder.of({ kind: 'text', text: 'he' })[0]?.logprob).toBe(-9999);
  });
});
