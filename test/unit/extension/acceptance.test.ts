import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { isSureEnough } from '../../../engine/tasks/complete.ts';
import { Acceptance } from '../../../extension/completion/suggestions.ts';
import { MemoryMemento } from './support.ts';

const model = 'small';
const at = (prefix: string) => ({ document: 'file:///a.ts', prefix, suffix: '' });

function opened(memory = new MemoryMemento()) {
  let nowMs = 0;
  const acceptance = new Acceptance(memory, () => nowMs);
  return {
    acceptance,
    memory,
    later: (ms: number) => {
      nowMs += ms;
    },
  };
}

/** A user who accepts correct suggestions and ignores the rest. */
function typing(languageId: string, suggestions: number, chanceAt: (logProbability: number) => number) {
  const { acceptance, later } = opened();
  const random = seededRandom(7);
  let taken = 0;
  let shown = 0;
  for (let i = 0; i < suggestions; i++) {
    const logProbability = -2 * random();
    const strictness = acceptance.strictness(model, languageId);
    const right = random() < chanceAt(logProbability);
    if (!isSureEnough(logProbability, { confidence: 'balanced', strictness })) continue;
    acceptance.shown(model, languageId, 'balanced', at(`${i} `), 'text');
    later(1_000);
    if (right) acceptance.accepted();
    else acceptance.movedTo(at(`${i} other`));
    if (i < suggestions / 2) continue;
    shown++;
    if (right) taken++;
  }
  return { strictness: acceptance.strictness(model, languageId), share: taken / shown, shown };
}

describe('acceptance of suggestions', () => {
  it('raises the threshold if few suggestions are accepted, and lowers it if nearly all are', () => {
    expect(typing('rust', 400, () => 0.05).strictness).toBeCloseTo(1, 1);
    expect(typing('python', 400, () => 0.9).strictness).toBeCloseTo(-1, 1);
  });

  it('finds the strictness at which the wanted share is accepted', () => {
    // This user accepts 30 % of suggestions with a mean log-probability of -0.35: the default threshold of -0.5 shows a few too many.
    const chance = (logProbability: number) => Math.max(0, 1 + 4 * logProbability);
    const { share, shown, strictness } = typing('go', 20_000, chance);
    expect(strictness).toBeGreaterThan(-1);
    expect(strictness).toBeLessThan(1);
    expect(shown).toBeGreaterThan(500);
    expect(share).toBeGreaterThan(0.25);
    expect(share).toBeLessThan(0.35);
  });

  it('learns by language and model, and keeps it for the next window', () => {
    const { acceptance, memory, later } = opened();
    acceptance.shown(model, 'rust', 'balanced', at(''), 'text');
    later(1_000);
    acceptance.movedTo(at('other'));
    const again = opened(memory).acceptance;
    expect(again.strictness(model, 'rust')).toBeGreaterThan(0);
    expect(again.strictness(model, 'go')).toBe(0);
    expect(again.strictness('large', 'rust')).toBe(0);
  });

  it('counts a suggestion typed to its end as accepted, and one that is still being typed as open', () => {
    const { acceptance, later } = opened();
    acceptance.shown(model, 'go', 'balanced', at(''), 'text');
    later(1_000);
    acceptance.movedTo(at('te'));
    expect(acceptance.strictness(model, 'go')).toBe(0);
    acceptance.movedTo(at('text'));
    expect(acceptance.strictness(model, 'go')).toBeLessThan(0);
  });

  it('learns nothing from a suggestion that disappeared too soon to be read, nor with `eager`', () => {
    const { acceptance, later } = opened();
    acceptance.shown(model, 'go', 'balanced', at(''), 'text');
    later(100);
    acceptance.movedTo(at('x'));
    acceptance.shown(model, 'go', 'eager', at(''), 'text');
    later(1_000);
    acceptance.movedTo(at('x'));
    acceptance.accepted();
    expect(acceptance.strictness(model, 'go')).toBe(0);
  });
});
