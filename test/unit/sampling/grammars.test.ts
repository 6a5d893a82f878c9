/** The grammar thread: what it survives, and which requests wait. */
import { afterEach, describe, expect, it } from 'vitest';
import { Grammars, type GrammarWalk } from '../../../engine/sampling/grammar.ts';
import type { Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { bundle } from '../runtime/bundle.ts';
import { smallTokenizer } from '../tokenizer/vocabularies.ts';

const json = (schema: unknown) => ({ form: [[{ kind: 'json', schema }]], last: true }) as const;
const nested = (depth: number): unknown =>
  Array.from({ length: depth }).reduce<unknown>((schema) => ({ properties: { a: schema } }), {});

/** Patterns of about 40,000 steps each, none near its own bound: together they take far longer than anybody waits. */
const slow = json({
  properties: Object.fromEntries(
    Array.from({ length: 300 }, (_, i) => [`p${i}`, { pattern: `^(?=.*a.{5})(?=.*b.{4}).*${i}` }]),
  ),
});

const tokenizer: Tokenizer = smallTokenizer();
const opened: Grammars[] = [];
function grammarsOf(steps?: number): Grammars {
  const grammars = new Grammars(tokenizer, steps);
  opened.push(grammars);
  return grammars;
}

afterEach(async () => {
  for (const grammars of opened.splice(0)) await grammars.close();
});

async function write(walk: GrammarWalk, text: string): Promise<void> {
  for (const id of tokenizer.encode(text, { special: 'plain' })) {
    expect(((walk.allowed?.[id >> 5] ?? 0) >> (id & 31)) & 1, text).toBe(1);
    await walk.take(id);
  }
}

describe('The thread of grammars', () => {
  it('keeps working after a hundred refused schemas', async () => {
    const grammars = grammarsOf();
    const bad = [
      { type: 'strange' },
      { $ref: '#' },
      { pattern: '(' },
      nested(500),
      { $ref: '#/a' },
      { allOf: [false] },
    ];
    for (let i = 0; i < 100; i++) {
      const refused = grammars.walk(json({ ...(bad[i % bad.length] as object), title: String(i) }));
      await expect(refused).rejects.toMatchObject({ code: expect.stringMatching(/^(invalid-input|unsupported)$/) });
    }
    await write(await grammars.walk(json({ type: 'integer', minimum: 3 })), '3');
  }, 30_000);

  it('gives up a schema that takes too many steps, with an error; other answers continue', async () => {
    const grammars = grammarsOf(1_000_000);
    const walk = await grammars.walk(
      json({ type: 'object', properties: { a: { type: 'boolean' } }, additionalProperties: false }),
    );
    await write(walk, '{"a": t');
    const waiting = grammars.walk(slow);
    // It waits behind the slow one.
    const rest = write(walk, 'rue}');
    await expect(waiting).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('takes more than 1 million steps'),
    });
    await rest;
    const end = [...tokenizer.endIds][0] ?? 0;
    expect(((walk.allowed?.[end >> 5] ?? 0) >> (end & 31)) & 1).toBe(1);
  }, 30_000);

  it('stops compiling for a request that was cancelled', async () => {
    const grammars = grammarsOf(1e9);
    const stop = new AbortController();
    const waiting = grammars.walk(slow, stop.signal);
    setTimeout(() => stop.abort(), 300);
    await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
    // The next has a thread of its own, and need not wait.
    await write(await grammars.walk(json({ const: 1 })), '1');
  }, 30_000);

  it('removes a queued request that is cancelled while another compiles', async () => {
    const grammars = grammarsOf(1_000_000);
    const stop = new AbortController();
    const first = grammars.walk(slow);
    const second = grammars.walk(json({ const: 1 }), stop.signal);
    stop.abort();
    await expect(second).rejects.toMatchObject({ code: 'cancelled' });
    await expect(first).rejects.toMatchObject({ code: 'unsupported' });
  }, 30_000);

  it('runs from built files with their dependencies', async () => {
    const built = await bundle('engine/sampling/grammar.ts');
    try {
      const module = (await import(built.path)) as typeof import('../../../engine/sampling/grammar.ts');
      const grammars = new module.Grammars(tokenizer);
      const walk = await grammars.walk(json({ type: 'array', items: { pattern: '^\\p{L}$' }, uniqueItems: true }));
      await write(walk, '["é", "é"]');
      await walk.end();
      expect(walk.violation).toContain('duplicate items');
      await grammars.close();
    } finally {
      await built.remove();
    }
  }, 30_000);

  it('reports afterwards what could not be enforced', async () => {
    const grammars = grammarsOf();
    const schema = { type: 'array', items: { enum: [1, 2] }, uniqueItems: true };
    for (const [text, violation] of [
      ['[1, 2]', undefined],
      ['[1, 1]', expect.stringContaining('duplicate items')],
    ] as const) {
      const walk = await grammars.walk(json(schema));
      await write(walk, text);
      await walk.end();
      expect(walk.violation).toEqual(violation);
    }
  }, 30_000);

  it('checks the arguments of a call, not its framing', async () => {
    const grammars = grammarsOf();
    const schema = { type: 'array', uniqueItems: true };
    const walk = await grammars.walk({
      form: [
        [
          { kind: 'json', schema },
          { kind: 'literal', text: '}\n</x>' },
        ],
      ],
    });
    await write(walk, '[2, 2]}\n</x>');
    expect(walk.allowed).toBeUndefined();
    expect(walk.violation).toContain('duplicate items');
  }, 30_000);
});
