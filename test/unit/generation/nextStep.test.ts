import { describe, expect, it } from 'vitest';
import { nextStep, type PendingRequest } from '../../../engine/generation/nextStep.ts';

const limits = { chunkTokens: 10 };
const request = (id: number, fields: Partial<PendingRequest> = {}): PendingRequest => ({
  id,
  requestClass: 'chat',
  arrival: id,
  admitted: true,
  waitingTokens: 1,
  samples: true,
  ...fields,
});

describe('the next step', () => {
  it('is none when nothing is pending', () => {
    expect(nextStep([], limits)).toBeUndefined();
  });

  it('admits before it runs', () => {
    expect(nextStep([request(1, { admitted: false })], limits)).toEqual({ kind: 'admit', id: 1 });
  });

  it('feeds a long prompt in chunks and asks for logits with the last one only', () => {
    const first = nextStep([request(1, { waitingTokens: 11 })], limits);
    expect(first).toEqual({ kind: 'run', slices: [{ id: 1, tokens: 10, logits: 'none' }] });
    const last = nextStep([request(1, { waitingTokens: 10 })], limits);
    expect(last).toEqual({ kind: 'run', slices: [{ id: 1, tokens: 10, logits: 'last' }] });
  });

  it('asks for no logits in a warm-up', () => {
    const step = nextStep([request(1, { requestClass: 'warm-up', samples: false })], limits);
    expect(step).toEqual({ kind: 'run', slices: [{ id: 1, tokens: 1, logits: 'none' }] });
  });

  it('prefers keystroke over chat over summary over warm-up, whatever came first', () => {
    const classes = ['warm-up', 'summary', 'chat', 'keystroke'] as const;
    const pending = classes.map((requestClass, id) => request(id, { requestClass, admitted: false }));
    for (let best = 3; best >= 0; best--) {
      expect(nextStep(pending.slice(0, best + 1), limits)).toEqual({ kind: 'admit', id: best });
    }
  });

  it('goes by arrival in a class, whatever the order of the list', () => {
    const pending = [request(5, { admitted: false }), request(3), request(4)];
    expect(nextStep(pending, limits)).toMatchObject({ slices: [{ id: 3 }] });
    expect(nextStep(pending.toReversed(), limits)).toMatchObject({ slices: [{ id: 3 }] });
  });
});
