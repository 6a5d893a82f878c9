/**
 * Schemas as tools emit them: Zod's own, Pydantic's (test/fixtures/jsonSchemas/emit.py), and those of OpenAPI generators. Each
 * valid answer is changed in every place; ajv says which of the changed ones are valid.
 */
import { readFileSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import { type Ajv, Ajv as AjvDraft7 } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { violationOf } from '../../../engine/grammar/afterCheck.ts';
import { fixtureFile } from '../shared.ts';
import { accepts, machineOf, styles } from './schemaSuite.ts';

interface Emitted {
  readonly name: string;
  readonly schema: object;
  readonly valid: readonly unknown[];
}

interface Tree {
  readonly value: number;
  readonly children: readonly Tree[];
}
const tree: z.ZodType<Tree> = z.lazy(() => z.object({ value: z.number(), children: z.array(tree) }));
const shape = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('circle'), r: z.number().positive() }),
  z.strictObject({ kind: z.literal('square'), side: z.number().gt(0).lt(10) }),
  z.strictObject({ kind: z.enum(['line', 'ray']), from: z.tuple([z.number(), z.number()]) }),
]);
const uuid = '123e4567-e89b-42d3-a456-426614174000';

const zodKinds: readonly (readonly [string, z.ZodType, readonly unknown[]])[] = [
  ['an object', z.object({ a: z.string(), b: z.number().optional() }), [{ a: 'x' }, { a: '', b: -1.5 }]],
  ['a strict object', z.strictObject({ a: z.string(), b: z.int() }), [{ a: 'x', b: 0 }]],
  [
    'nullable and nullish',
    z.strictObject({ a: z.string().nullable(), b: z.boolean().nullish() }),
    [{ a: null, b: null }],
  ],
  ['defaults', z.object({ a: z.string().default('x'), b: z.array(z.int()).default([]) }), [{ a: 'x', b: [1] }]],
  [
    'a discriminated union',
    z.object({ shape }),
    [{ shape: { kind: 'circle', r: 1 } }, { shape: { kind: 'ray', from: [0, 1] } }],
  ],
  ['a list of unions', z.array(z.union([shape, z.string()])), [['x', { kind: 'square', side: 9.5 }], []]],
  [
    'enums and literals',
    z.object({ a: z.enum(['x', 'y z']), b: z.literal([1, 'one', null, true]) }),
    [{ a: 'y z', b: null }],
  ],
  [
    'lengths',
    z.object({ a: z.string().min(1).max(3), b: z.array(z.string()).min(1).max(2) }),
    [{ a: '"\\\n', b: ['', ''] }],
  ],
  ['integers with bounds', z.object({ a: z.int().min(-5).max(130), b: z.int().positive() }), [{ a: -5, b: 1 }]],
  ['multiples', z.object({ a: z.number().multipleOf(0.25), b: z.int().multipleOf(7) }), [{ a: 0.75, b: 21 }]],
  [
    'patterns',
    z.object({ a: z.string().regex(/^[a-z]+(-[a-z]+)*$/), b: z.string().regex(/\d{2}/) }),
    [{ a: 'ab-c', b: 'x12y' }],
  ],
  [
    'beginnings, ends and parts',
    z.object({ a: z.string().startsWith('ab"'), b: z.string().endsWith('.ts'), c: z.string().includes('+') }),
    [{ a: 'ab"c', b: 'x.ts', c: '1+1' }],
  ],
  [
    'formats',
    z.object({ a: z.uuid(), b: z.email(), c: z.iso.datetime(), d: z.iso.date() }),
    [{ a: uuid, b: 'a@example.org', c: '2024-02-29T10:00:00Z', d: '2023-12-31' }],
  ],
  [
    'more formats',
    z.object({ a: z.ipv4(), b: z.url(), c: z.iso.time(), d: z.base64() }),
    [{ a: '1.2.3.4', b: 'https://a.b/c', c: '10:00:00', d: 'YWI=' }],
  ],
  ['a record', z.record(z.string(), z.number()), [{ a: 1, 'b c': 2 }, {}]],
  ['a record with keys of a pattern', z.record(z.string().regex(/^[A-Z]{2}$/), z.boolean()), [{ AB: true }]],
  ['a record with named keys', z.record(z.enum(['x', 'y']), z.int()), [{ x: 1, y: 2 }]],
  ['a partial record', z.partialRecord(z.enum(['x', 'y']), z.int()), [{ x: 1 }]],
  ['a tuple', z.tuple([z.string(), z.int(), z.boolean()]), [['a', 1, true]]],
  ['a tuple with a rest', z.tuple([z.string()], z.number()), [['a'], ['a', 1, 2]]],
  ['an intersection', z.intersection(z.object({ a: z.string() }), z.object({ b: z.int() })), [{ a: 'x', b: 1 }]],
  [
    'an extended object',
    z.object({ a: z.string() }).extend({ b: z.int() }).catchall(z.boolean()),
    [{ a: 'x', b: 1, c: true }],
  ],
  ['a recursive type', z.object({ root: tree }), [{ root: { value: 1, children: [{ value: 2, children: [] }] } }]],
  ['unknown values', z.object({ a: z.unknown(), b: z.any().optional() }), [{ a: [null, { b: 1 }] }]],
  ['nothing that may be', z.strictObject({ a: z.string(), b: z.never().optional() }), [{ a: 'x' }]],
  [
    'names that need escapes',
    z.strictObject({ 'a "b"\\': z.string(), 'c\nd': z.int().optional() }),
    [{ 'a "b"\\': '' }, { 'a "b"\\': 'x', 'c\nd': 1 }],
  ],
];
const zodSchemas = zodKinds.flatMap(([name, type, valid]): Emitted[] =>
  (['draft-2020-12', 'draft-7', 'openapi-3.0'] as const).map((target) => ({
    name: `Zod, ${target}: ${name}`,
    schema: z.toJSONSchema(type, { target, io: 'input' }),
    valid,
  })),
);

const pydantic = JSON.parse(readFileSync(fixtureFile('jsonSchemas/pydantic.json'), 'utf8')) as {
  readonly cases: readonly Emitted[];
};

const openApi: readonly Emitted[] = [
  {
    name: 'components, as a document holds them',
    schema: {
      $ref: '#/components/schemas/Pet',
      components: {
        schemas: {
          Pet: {
            type: 'object',
            required: ['id', 'name'],
            properties: {
              id: { type: 'integer', format: 'int64', minimum: 1 },
              name: { type: 'string' },
              tag: { type: 'string', nullable: true },
              owner: { $ref: '#/components/schemas/Owner' },
            },
          },
          Owner: {
            type: 'object',
            properties: { pets: { type: 'array', items: { $ref: '#/components/schemas/Pet' } } },
          },
        },
      },
    },
    valid: [{ id: 1, name: 'Rex', tag: null, owner: { pets: [{ id: 2, name: '' }] } }],
  },
  {
    name: 'inheritance by allOf, with a discriminator',
    schema: {
      oneOf: [{ $ref: '#/definitions/Cat' }, { $ref: '#/definitions/Dog' }],
      discriminator: { propertyName: 'type' },
      definitions: {
        Base: {
          type: 'object',
          required: ['type'],
          properties: { type: { type: 'string' }, age: { type: 'integer', minimum: 0 } },
        },
        Cat: {
          allOf: [
            { $ref: '#/definitions/Base' },
            { properties: { type: { enum: ['cat'] }, lives: { type: 'integer' } }, required: ['lives'] },
          ],
        },
        Dog: {
          allOf: [
            { $ref: '#/definitions/Base' },
            { properties: { type: { enum: ['dog'] }, barks: { type: 'boolean' } }, required: ['barks'] },
          ],
        },
      },
    },
    valid: [
      { type: 'cat', lives: 9 },
      { type: 'dog', age: 3, barks: true },
    ],
  },
  {
    name: 'nullable enums and bounds of OpenAPI 3.0',
    schema: {
      type: 'object',
      properties: {
        status: { type: 'string', enum: ['on', 'off', null], nullable: true },
        count: { type: 'integer', minimum: 0, maximum: 10, nullable: true },
        items: { type: 'array', nullable: true, maxItems: 2, items: { type: 'number' } },
      },
      additionalProperties: false,
    },
    valid: [
      { status: null, count: null, items: null },
      { status: 'on', count: 10, items: [1.5, 2] },
    ],
  },
  {
    name: 'a map of lists, free-form objects and write-only properties',
    schema: {
      type: 'object',
      required: ['labels'],
      properties: {
        labels: {
          type: 'object',
          additionalProperties: { type: 'array', items: { type: 'string', minLength: 1 }, minItems: 1 },
        },
        meta: { type: 'object', additionalProperties: true },
        secret: { type: 'string', writeOnly: true, example: 'x', deprecated: true },
      },
    },
    valid: [{ labels: { a: ['b'] }, meta: { x: { y: 1 } } }, { labels: {} }],
  },
  {
    name: 'a tool of an agent (MCP)',
    schema: {
      $schema: 'http://json-schema.org/draft-07/schema#',
      type: 'object',
      properties: {
        path: { type: 'string', description: 'Where', minLength: 1 },
        edits: {
          type: 'array',
          items: {
            type: 'object',
            properties: { oldText: { type: 'string' }, newText: { type: 'string' } },
            required: ['oldText', 'newText'],
            additionalProperties: false,
          },
        },
        mode: { anyOf: [{ const: 'dry' }, { const: 'wet' }, { type: 'null' }], default: null },
        depth: { type: ['integer', 'null'], exclusiveMinimum: 0 },
      },
      required: ['path', 'edits'],
      additionalProperties: false,
    },
    valid: [
      { path: 'a', edits: [{ oldText: '"', newText: '\\n' }], mode: 'dry', depth: 1 },
      { path: 'b', edits: [], depth: null },
    ],
  },
  {
    name: 'conditions of a form',
    schema: {
      type: 'object',
      properties: { country: { enum: ['NO', 'US'] }, code: { type: 'string' } },
      required: ['country', 'code'],
      if: { properties: { country: { const: 'NO' } } },
      // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
      then: { properties: { code: { pattern: '^[0-9]{4}$' } } },
      else: { properties: { code: { pattern: '^[0-9]{5}(-[0-9]{4})?$' } } },
    },
    valid: [
      { country: 'NO', code: '0150' },
      { country: 'US', code: '12345-6789' },
    ],
  },
  {
    name: 'the older tuples, dependencies and exclusive bounds',
    schema: {
      $schema: 'http://json-schema.org/draft-04/schema#',
      type: 'object',
      properties: {
        pair: { type: 'array', items: [{ type: 'string' }, { type: 'integer' }], additionalItems: false, minItems: 2 },
        share: { type: 'number', minimum: 0, exclusiveMinimum: true, maximum: 1 },
        card: { type: 'string' },
        name: { type: 'string' },
      },
      dependencies: { card: ['name'] },
    },
    valid: [
      { pair: ['a', 1], share: 0.5 },
      { card: 'x', name: 'y' },
    ],
  },
  {
    name: 'patterns of names beside declared ones',
    schema: {
      type: 'object',
      properties: { id: { type: 'integer' } },
      patternProperties: { '^x-': { type: 'string' }, _at$: { type: ['integer', 'null'] } },
      additionalProperties: false,
      required: ['id'],
      minProperties: 1,
      maxProperties: 3,
    },
    valid: [{ id: 1, 'x-a': 'b', made_at: null }],
  },
];

const all = [...zodSchemas, ...pydantic.cases.map((own) => ({ ...own, name: `Pydantic: ${own.name}` })), ...openApi];

const leaves: readonly unknown[] = [
  null,
  true,
  0,
  1,
  -1,
  1.5,
  100,
  '',
  'x',
  'AB',
  'a "b"\\',
  '2024-01-01',
  [],
  [null],
  {},
  { a: 1 },
];

/** The value with one place changed, left out or added. */
function* changed(value: unknown): Generator<unknown> {
  yield* leaves;
  if (typeof value === 'string')
    yield* [`${value}x`, value.slice(1), value.slice(0, -1), value.toUpperCase(), `${value}\n`];
  if (typeof value === 'number') yield* [value + 1, value - 1, -value, value + 0.5, value / 2, value * 10];
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) {
      for (const own of changed(item)) yield value.with(i, own);
      yield value.toSpliced(i, 1);
      yield [...value, item];
    }
    yield [...value, ...value, ...value];
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, part] of Object.entries(value)) {
      for (const own of changed(part)) yield { ...value, [key]: own };
      const { [key]: _, ...others } = value as Record<string, unknown>;
      yield others;
      yield { ...others, [`${key}x`]: part };
    }
    for (const own of [null, 1, 'x', {}]) yield { ...value, extra: own };
    yield Object.fromEntries(Object.entries(value).reverse());
  }
}

const isDate = (text: string): boolean =>
  /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(Date.parse(text)) && new Date(text).toISOString().startsWith(text);
const isTime = (text: string): boolean => /^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-][0-2]\d:[0-5]\d)$/.test(text);
/** Those that Hearth enforces, told by others than itself. */
const formats: Readonly<Record<string, (text: string) => boolean>> = {
  date: isDate,
  time: isTime,
  'date-time': (text) => isDate(text.slice(0, 10)) && text[10] === 'T' && isTime(text.slice(11)),
  duration: (text) => z.iso.duration().safeParse(text).success,
  email: (text) => z.email().safeParse(text).success,
  hostname: (text) => z.hostname().safeParse(text).success,
  ipv4: isIPv4,
  ipv6: isIPv6,
  uuid: (text) => /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text),
  uri: (text) => URL.canParse(text) && !/[\s"\\]/.test(text),
};

function oracleOf(schema: object): ReturnType<Ajv['compile']> {
  const isNew = !('$schema' in schema) || String(schema.$schema).includes('2020-12');
  const text = JSON.stringify(schema);
  const options = { strict: false, validateSchema: false, logger: false, formats } as const;
  const ajv = isNew && !text.includes('"additionalItems"') ? new Ajv2020(options) : new AjvDraft7(options);
  const { $schema: _, ...own } = JSON.parse(text) as Record<string, unknown>;
  return ajv.compile(laterBounds(own) as object);
}

/** ajv knows the exclusive bounds of later drafts, which are no flags. */
function laterBounds(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(laterBounds);
  if (typeof schema !== 'object' || schema === null) return schema;
  const parts = Object.entries(schema).map(([key, part]) => [key, laterBounds(part)] as const);
  const own = Object.fromEntries(parts) as Record<string, unknown>;
  for (const end of ['Minimum', 'Maximum']) {
    if (own[`exclusive${end}`] !== true) continue;
    own[`exclusive${end}`] = own[end.toLowerCase()];
    delete own[end.toLowerCase()];
  }
  return own;
}

describe('Schemas of tools', () => {
  it('are at least a hundred', () => {
    expect(all.length).toBeGreaterThanOrEqual(100);
  });

  it.each(all)('allow exactly what ajv finds valid: $name', ({ schema, valid }) => {
    const machine = machineOf(schema);
    const isValid = oracleOf(schema);
    const form = [[{ kind: 'json', schema }]] as const;
    const wrong: string[] = [];
    let [taken, refused] = [0, 0];
    const texts = [
      ...valid.flatMap(styles),
      ...valid.flatMap((own) => [...changed(own)].map((value) => JSON.stringify(value))),
    ];
    for (const text of new Set(texts)) {
      const should = isValid(JSON.parse(text));
      const isTaken = accepts(machine, text) && violationOf(form, text, machine.loose) === undefined;
      if (isTaken !== should) wrong.push(`${should ? 'valid' : 'invalid'}: ${text}`);
      else if (should) taken++;
      else refused++;
    }
    expect(valid.filter((value) => !isValid(value))).toEqual([]);
    expect([...new Set(wrong)].slice(0, 8)).toEqual([]);
    expect(taken).toBeGreaterThan(0);
    expect(refused).toBeGreaterThan(0);
  });
});
