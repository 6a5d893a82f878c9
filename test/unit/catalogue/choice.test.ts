import { describe, expect, it } from 'vitest';
import { requireEntry } from '../../../engine/catalogue/catalogue.ts';
import { type Role, rolesIn, suitabilityOf } from '../../../engine/catalogue/choice.ts';

interface Model {
  readonly id: string;
  readonly parameters: number;
  readonly verdict: 'good' | 'slow' | 'no';
  readonly fills: boolean;
  readonly roles: string[];
  readonly owner?: 'Ollama';
  readonly recommendedFor: Role[];
}

const model = (id: string, over: Partial<Model> = {}): Model => ({
  ...{ id, parameters: 1.5e9, verdict: 'good', fills: false, roles: ['chat'], recommendedFor: [] },
  ...over,
});

const order = (role: Role, ...models: Model[]): string[] =>
  models
    .map(({ fills, verdict, ...rest }) => {
      const entry = { ...rest, fillInTheMiddle: fills };
      return { id: rest.id, suits: suitabilityOf(entry, { verdict, reason: '' }, rest)[role] };
    })
    .filter(({ suits }) => suits !== undefined)
    .sort((a, b) => (b.suits ?? 0) - (a.suits ?? 0))
    .map(({ id }) => id);

describe('the model that is chosen when none is named', () => {
  it("for chat prefers the user's own models, then those that run well, the recommended, the largest", () => {
    const models = [
      model('small', { parameters: 1e8 }),
      model('foreign', { parameters: 7e9, owner: 'Ollama', recommendedFor: ['chat'] }),
      model('slow', { parameters: 1e11, verdict: 'slow', recommendedFor: ['chat'] }),
      model('recommended', { parameters: 4e9, recommendedFor: ['chat'] }),
      model('large', { parameters: 3e10 }),
    ];
    expect(order('chat', ...models)).toEqual(['recommended', 'large', 'small', 'slow', 'foreign']);
  });

  it('for completion can fill in the middle: the largest that is fast enough, or else the smallest', () => {
    const coder = (id: string, parameters: number, over: Partial<Model> = {}) =>
      model(id, { parameters, fills: true, ...over });
    const models = [
      ...[coder('1.5b', 1.5e9), coder('30b', 3e10), coder('7b', 7e9), coder('14b', 1.4e10), model('chat')],
      coder('7b, slow', 7e9, { verdict: 'slow' }),
    ];
    expect(order('completion', ...models)).toEqual(['7b', '1.5b', '14b', '30b', '7b, slow']);
  });

  it('is never one that does not fit, nor an embedding model', () => {
    expect(order('chat', model('vectors', { roles: ['embedding'] }), model('huge', { verdict: 'no' }))).toEqual([]);
  });

  it('is recommended by its role in the pair; one that fills in the middle does both alone', () => {
    const [coder, gpt] = [requireEntry('qwen2.5-coder-7b-instruct'), requireEntry('gpt-oss-20b')];
    expect(rolesIn({ chat: coder, completion: undefined }, coder)).toEqual(['chat', 'completion']);
    expect(rolesIn({ chat: gpt, completion: coder }, coder)).toEqual(['completion']);
    expect(rolesIn({ chat: gpt, completion: coder }, gpt)).toEqual(['chat']);
    expect(rolesIn({ chat: gpt, completion: undefined }, coder)).toEqual([]);
  });
});
