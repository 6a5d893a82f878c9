/** Masks over a vocabulary, against every token tried alone. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import type { Machine, State } from '../../../engine/grammar/machine.ts';
import { TokenTrie } from '../../../engine/grammar/tokenTrie.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { machineOf } from './schemaSuite.ts';

/** Every byte, halves of characters, and pieces that run over the marks of JSON. */
const pieces = [
  ...Array.from({ length: 256 }, (_, byte) => Buffer.of(byte)),
  ...[
    '{"',
    '":',
    '": "',
    '",',
    '","',
    '"}',
    '": {"',
    '},{"',
    '[]',
    '[[',
    '"]',
    ', "',
    '\\n',
    '\\"',
    '\\u00',
    '\\ud83d\\udc32',
  ],
  ...[
    'a',
    'b',
    'na',
    'name',
    'name"',
    '"name": ',
    'true',
    'null,',
    'nul',
    '12',
    '0.',
    '-1',
    'e+',
    '1e',
    ' ',
    '  ',
    '\n  ',
    '\n\t',
  ],
  ...[
    'é',
    '🐲',
    'é"',
    'x🐲"',
    'hello world',
    ' hello',
    'aaaaaaaaaaaaaaaa',
    '日本',
    '日本語"}',
    '\r',
    'a\r\n',
    '\u0001',
  ],
].map((piece) => Buffer.from(piece));
pieces.push(
  Buffer.of(0xe2, 0x82),
  Buffer.of(0xf0, 0x9f, 0x90),
  Buffer.of(0x61, 0xc3),
  Buffer.of(0xa9, 0x22),
  Buffer.of(0xed, 0xa0),
  Buffer.of(0xe0, 0x80),
);

const starts = Uint32Array.from([
  0,
  ...pieces.map((_, i) => pieces.slice(0, i + 1).reduce((sum, { length }) => sum + length, 0)),
]);
const special = new Uint8Array(pieces.length);
const trie = new TokenTrie({ bytes: Uint8Array.from(Buffer.concat(pieces)), starts, special, endIds: [] });
const ids = [...pieces.keys()];
const allowedIn = (mask: Int32Array): number[] => ids.filter((id) => ((mask[id >> 5] ?? 0) >> (id & 31)) & 1);

const schemas: readonly (readonly [string, object])[] = [
  ['anything', {}],
  [
    'named properties',
    { type: 'object', properties: { name: { type: 'string', maxLength: 9 }, a: { type: 'integer' } } },
  ],
  [
    'only named ones',
    { type: 'object', properties: { name: { enum: ['aé', 'b"'] } }, required: ['name'], additionalProperties: false },
  ],
  [
    'a list of short texts',
    { type: 'array', items: { type: 'string', minLength: 2, maxLength: 4 }, minItems: 1, maxItems: 3 },
  ],
  ['patterns', { type: 'array', items: { type: 'string', pattern: '^[^"a]*日' }, minItems: 1 }],
  [
    'names by a pattern',
    { type: 'object', patternProperties: { '^é': { type: 'null' } }, additionalProperties: false, minProperties: 1 },
  ],
  ['bounds', { type: 'array', items: { type: 'number', minimum: -1.5, maximum: 12 }, minItems: 2 }],
  [
    'kinds',
    {
      oneOf: [
        {
          properties: { a: { const: 1 } },
          required: ['a'],
          maxProperties: 1,
          type: 'object',
          additionalProperties: { type: 'null' },
        },
        { type: 'array', items: { enum: ['a', 'b'] }, contains: { const: 'b' } },
      ],
    },
  ],
];

/** Ends what can be ended, most of the time, so that answers stay short. */
function wandering(machine: Machine, seed: number, visit: (state: State, mask: Int32Array) => void): string {
  const random = seededRandom(seed);
  const closing = pieces.flatMap((piece, id) => (/^["\]}]+$|^",?$/.test(piece.toString()) ? [id] : []));
  const written: Buffer[] = [];
  let state = machine.state(machine.start);
  for (let step = 0; step < 120; step++) {
    if (state.mayEnd && random() < 0.9) break;
    const mask = trie.mask(machine, state);
    visit(state, mask);
    const open = allowedIn(mask);
    const ends = open.filter((id) => closing.includes(id));
    if (state.mayEnd && open.length === 0) break;
    expect(open.length, `after ${Buffer.concat(written).toString()}`).toBeGreaterThan(0);
    const from = ends.length > 0 && random() < 0.9 ? ends : open;
    const id = from[Math.floor(random() * from.length)] ?? 0;
    const next = machine.take(state, trie.spelled(id));
    expect(next, `${JSON.stringify(pieces[id]?.toString())} after ${Buffer.concat(written).toString()}`).not.toBeNull();
    if (next === null) break;
    written.push(pieces[id] ?? Buffer.of());
    state = next;
  }
  return state.mayEnd ? Buffer.concat(written).toString() : '';
}

describe('A mask', () => {
  it.each(schemas)(
    'has exactly the tokens that can come next: %s',
    (_, schema) => {
      const machine = machineOf(schema);
      for (let seed = 1; seed <= 3; seed++) {
        wandering(machine, seed, (state, mask) => {
          const taken = ids.filter((id) => {
            const bytes = trie.spelled(id);
            return bytes.length > 0 && machine.take(state, bytes) !== null;
          });
          expect(allowedIn(mask)).toEqual(taken);
        });
      }
    },
    30_000,
  );

  it.each(schemas)(
    'leads only to valid answers: %s',
    (_, schema) => {
      const machine = machineOf(schema);
      const validate = new Ajv2020({ strict: false }).compile(schema);
      let answers = 0;
      for (let seed = 1; seed <= 40; seed++) {
        const text = wandering(machine, 100 + seed, () => {});
        if (text === '') continue;
        answers++;
        expect(validate(JSON.parse(text)), text).toBe(true);
      }
      expect(answers).toBeGreaterThan(0);
    },
    30_000,
  );

  it('never has a token with a carriage return in it', () => {
    const machine = machineOf({});
    const quoted = machine.take(machine.state(machine.start), Buffer.from('"'));
    const mask = quoted ? trie.mask(machine, quoted) : new Int32Array();
    expect(allowedIn(mask).filter((id) => pieces[id]?.includes(0x0d))).toEqual([]);
  });
});
