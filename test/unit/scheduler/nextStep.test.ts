import { describe, expect, it } from 'vitest';
import { type Candidate, nextStep } from '../../../engine/scheduler/job.ts';

interface Request extends Candidate {
  readonly id: number;
}

const limits = { chunkTokens: 10, maxSequences: 1 };
const request = (id: number, fields: Partial<Candidate> = {}): Request => ({
  id,
  requestClass: 'chat',
  admitted: true,
  waitingTokens: 1,
  draftTokens: 0,
  samples: true,
  ...fields,
});
const slice = (own: Request, tokens: number, fields = {}) => ({
  request: own,
  tokens,
  drafts: 0,
  logits: 'last',
  ...fields,
});

describe('the next step', () => {
  it('is undefined if nothing is pending', () => {
    expect(nextStep([], limits)).toBeUndefined();
  });

  it('admits before it runs', () => {
    const waiting = request(1, { admitted: false });
    expect(nextStep([waiting], limits)).toEqual({ kind: 'admit', request: waiting });
  });

  it('feeds a long prompt in chunks and asks for logits with the last one only', () => {
    const long = request(1, { waitingTokens: 11 });
    expect(nextStep([long], limits)).toEqual({ kind: 'run', slices: [slice(long, 10, { logits: 'none' })] });
    const rest = request(1, { waitingTokens: 10 });
    expect(nextStep([rest], limits)).toEqual({ kind: 'run', slices: [slice(rest, 10)] });
  });

  it('asks for no logits in a warm-up', () => {
    const warmUp = request(1, { requestClass: 'warm-up', samples: false });
    expect(nextStep([warmUp], limits)).toEqual({ kind: 'run', slices: [slice(warmUp, 1, { logits: 'none' })] });
  });

  it('verifies draft tokens with the token before them, and asks for the logits of all', () => {
    const drafting = request(1, { draftTokens: 4 });
    expect(nextStep([drafting], limits)).toEqual({
      kind: 'run',
      slices: [slice(drafting, 1, { drafts: 4, logits: 'all' })],
    });
    const reading = request(1, { draftTokens: 4, waitingTokens: 3 });
    expect(nextStep([reading], limits)).toEqual({ kind: 'run', slices: [slice(reading, 3)] });
  });

  it('runs one sequence if the decoder takes only one', () => {
    const [first, second] = [request(1), request(2)];
    expect(nextStep([first, second], limits)).toEqual({ kind: 'run', slices: [slice(first, 1)] });
  });
});

describe('a step of several sequences', () => {
  const three = { chunkTokens: 10, maxSequences: 3 };

  it('takes the first sequences, as many as the decoder allows', () => {
    const all = [1, 2, 3, 4].map((id) => request(id));
    expect(nextStep(all, three)).toMatchObject({
      slices: [{ request: { id: 1 } }, { request: { id: 2 } }, { request: { id: 3 } }],
    });
  });

  it('includes decoding requests of worse classes, but not their prompts', () => {
    const keystroke = request(1, { requestClass: 'keystroke', waitingTokens: 6 });
    const [answering, reading] = [request(2), request(3, { waitingTokens: 5 })];
    expect(nextStep([keystroke, answering, reading], three)).toEqual({
      kind: 'run',
      slices: [slice(keystroke, 6), slice(answering, 1)],
    });
  });

  it('divides a chunk among prompts of one class', () => {
    const [first, second] = [request(1, { waitingTokens: 6 }), request(2, { waitingTokens: 9 })];
    expect(nextStep([first, second], three)).toEqual({
      kind: 'run',
      slices: [slice(first, 6), slice(second, 4, { logits: 'none' })],
    });
  });

  it('admits requests of the same class first, so that they join the step', () => {
    const newcomer = request(2, { admitted: false });
    expect(nextStep([request(1), newcomer], three)).toEqual({ kind: 'admit', request: newcomer });
    const worse = request(2, { admitted: false, requestClass: 'summary' });
    expect(nextStep([request(1), worse], three)).toMatchObject({ kind: 'run' });
  });
});
