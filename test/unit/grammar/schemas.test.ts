/** Schemas like those of clients, with valid and invalid answers. ajv agrees wherever it is used. */
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { accepts, machineOf, styles } from './schemaSuite.ts';

interface Kind {
  readonly name: string;
  readonly schema: unknown;
  readonly valid: readonly unknown[];
  readonly invalid: readonly unknown[];
}

const kinds: readonly Kind[] = [
  {
    name: 'a length beside quotes, backslashes and lines',
    schema: { type: 'string', minLength: 1, maxLength: 5 },
    valid: ['"', '\\', '\n\t', 'é🐲x', '12345', '\u2028', '🐲🐲🐲🐲🐲'],
    invalid: ['', '123456', '🐲🐲🐲🐲🐲🐲', 1],
  },
  {
    name: 'a long length',
    schema: { type: 'string', maxLength: 1_000_000 },
    valid: ['', 'a'.repeat(500)],
    invalid: [null],
  },
  {
    name: 'a pattern that needs escapes',
    schema: { type: 'string', pattern: '^["\\\\\\n/]+$' },
    valid: ['"', '\\', '\n"\\/'],
    invalid: ['', 'a', '"a'],
  },
  {
    name: 'a pattern anywhere',
    schema: { type: 'string', pattern: 'b' },
    valid: ['b', 'abc', '\nb'],
    invalid: ['', 'ac'],
  },
  {
    name: 'a pattern beside a length',
    schema: { type: 'string', pattern: '^[a-z]+$', minLength: 3, maxLength: 4 },
    valid: ['abc', 'abcd'],
    invalid: ['ab', 'abcde', 'ABC'],
  },
  {
    name: 'a long length beside a pattern',
    schema: { type: 'string', pattern: '^(ab|c){2,}[0-9]{3}$', maxLength: 1_000_000 },
    valid: ['abc123', `${'ab'.repeat(400)}000`],
    invalid: ['c123', 'abab12', ''],
  },
  {
    name: 'a length that a pattern only just meets',
    schema: { type: 'string', pattern: '^(aaa)+b?$', maxLength: 7 },
    valid: ['aaa', 'aaab', 'aaaaaa', 'aaaaaab'],
    invalid: ['aaaaaaa', 'aaaaaaaaa', 'aaaaaaaaab', 'b'],
  },
  {
    name: 'lengths that only some texts of a pattern can have',
    schema: { type: 'string', pattern: '^(aa)*$', minLength: 3, maxLength: 5 },
    valid: ['aaaa'],
    invalid: ['aa', 'aaa', 'aaaaa', 'aaaaaa'],
  },
  {
    name: 'alternatives at the top of a pattern',
    schema: { type: 'string', pattern: '^a|b$' },
    valid: ['a', 'ax', 'xb'],
    invalid: ['xa', 'bx', ''],
  },
  {
    name: 'classes beyond ASCII',
    schema: { pattern: '^[à-ÿ]+$', type: 'string' },
    valid: ['é', 'àÿ'],
    invalid: ['e', 'Ā'],
  },
  {
    name: 'a property of Unicode',
    schema: { type: 'string', pattern: '^\\p{L}+$' },
    valid: ['aé字'],
    invalid: ['1', 'a1'],
  },
  {
    name: 'look-ahead',
    schema: { type: 'string', pattern: '^(?=.*[A-Z])(?=.*\\d).{4,}$' },
    valid: ['abC1', '1C23'],
    invalid: ['abc1', 'C1', 'ABCD'],
  },
  { name: 'word boundaries', schema: { type: 'string', pattern: '\\bcat\\b' }, valid: ['a cat.'], invalid: ['concat'] },
  {
    name: 'a flag within the pattern',
    schema: { type: 'string', pattern: '(?i)^yes$' },
    valid: ['YES', 'yes'],
    invalid: ['no'],
  },
  {
    name: 'required alone',
    schema: { type: 'object', required: ['a'] },
    valid: [{ a: 1 }, { b: 2, a: null }],
    invalid: [{}, { b: 1 }],
  },
  {
    name: 'properties in any order',
    schema: {
      type: 'object',
      properties: { a: { type: 'integer' }, b: { type: 'string' } },
      required: ['b'],
      additionalProperties: false,
    },
    valid: [{ b: '', a: 1 }, { a: 1, b: '' }, { b: 'x' }],
    invalid: [{}, { a: 1 }, { b: '', c: 1 }, { b: 1 }],
  },
  { name: 'minimum 3', schema: { type: 'integer', minimum: 3 }, valid: [3, 4, 10, 100], invalid: [2, 1, 0, -3, -10] },
  { name: 'minimum -5', schema: { type: 'integer', minimum: -5 }, valid: [-5, -1, 0, 100], invalid: [-6, -10, -50] },
  {
    name: '-120 to -5',
    schema: { type: 'integer', minimum: -120, maximum: -5 },
    valid: [-120, -99, -5],
    invalid: [-121, -4, -1200, 5],
  },
  {
    name: '-5 to 130',
    schema: { type: 'integer', minimum: -5, maximum: 130 },
    valid: [-5, 0, 99, 130],
    invalid: [-6, 131, 139, 1000],
  },
  { name: 'minimum 0 of numbers', schema: { type: 'number', minimum: 0 }, valid: [0, 0.1, 12.5], invalid: [-0.1, -1] },
  {
    name: '0 to 1',
    schema: { type: 'number', minimum: 0, maximum: 1 },
    valid: [0, 0.5, 1, 1e-7],
    invalid: [1.1, 2, 10, -0.5],
  },
  { name: 'a large maximum', schema: { type: 'number', maximum: 1e30 }, valid: [1e20, 5, -1e9], invalid: ['1'] },
  {
    name: 'the bounds of draft 4',
    schema: { type: 'number', minimum: 1, exclusiveMinimum: true, maximum: 3, exclusiveMaximum: false },
    valid: [1.5, 3],
    invalid: [1, 3.5],
  },
  {
    name: 'names with marks of JSON',
    schema: {
      type: 'object',
      properties: { 'a"b\\c\nd': { const: 1 } },
      required: ['a"b\\c\nd'],
      additionalProperties: false,
    },
    valid: [{ 'a"b\\c\nd': 1 }],
    invalid: [{}, { ab: 1 }],
  },
  {
    name: 'references with escapes, and anchors',
    schema: {
      $defs: { 'a/b c': { type: 'integer' }, 'x~y%': { type: 'null' }, named: { $anchor: 'here', type: 'boolean' } },
      prefixItems: [{ $ref: '#/$defs/a~1b%20c' }, { $ref: '#/$defs/x~0y%25' }, { $ref: '#here' }],
      type: 'array',
      minItems: 3,
      items: false,
    },
    valid: [[1, null, true]],
    invalid: [
      [1, 1, true],
      [null, null, true],
      [1, null],
      [1, null, true, 1],
    ],
  },
  {
    name: 'false within',
    schema: { type: 'object', properties: { a: false } },
    valid: [{}, { b: 1 }],
    invalid: [{ a: 1 }],
  },
  {
    name: 'a tuple of draft 7',
    schema: { type: 'array', items: [{ type: 'string' }, { type: 'integer' }], additionalItems: false },
    valid: [[], ['a'], ['a', 1]],
    invalid: [[1], ['a', 1, 2]],
  },
  {
    name: 'contains',
    schema: { type: 'array', items: { type: 'integer' }, contains: { minimum: 5 }, maxItems: 3 },
    valid: [[5], [1, 7], [1, 2, 9]],
    invalid: [[], [1], [1, 2, 3], [1, 2, 3, 9], ['x', 5]],
  },
  {
    name: 'contains at most',
    schema: { type: 'array', items: { enum: [1, 2] }, contains: { const: 1 }, minContains: 1, maxContains: 2 },
    valid: [[1], [2, 1, 1], [1, 2, 2, 1]],
    invalid: [[], [2], [1, 1, 1]],
  },
  {
    name: 'not',
    schema: { type: 'string', not: { pattern: '^x' } },
    valid: ['', 'ax'],
    invalid: ['x', 'xa'],
  },
  {
    name: 'not of values',
    schema: { not: { enum: ['a', 1, null] } },
    valid: ['b', 2, true, []],
    invalid: ['a', 1, null],
  },
  {
    name: 'if, then and else',
    // As text, since an object with a member `then` looks like a promise.
    schema: JSON.parse(`{
      "type": "object",
      "properties": { "kind": { "enum": ["a", "b"] } },
      "required": ["kind"],
      "if": { "properties": { "kind": { "const": "a" } } },
      "then": { "required": ["x"] },
      "else": { "required": ["y"], "properties": { "y": { "type": "null" } } }
    }`) as unknown,
    valid: [
      { kind: 'a', x: 1 },
      { kind: 'b', y: null },
      { x: 1, kind: 'a' },
    ],
    invalid: [{ kind: 'a' }, { kind: 'b', x: 1 }, { kind: 'b', y: 1 }],
  },
  {
    name: 'oneOf of overlapping kinds',
    schema: {
      oneOf: [
        { type: 'integer', minimum: 0 },
        { type: 'integer', maximum: 10 },
      ],
    },
    valid: [-1, 11],
    invalid: [0, 5, 10],
  },
  {
    name: 'a tree',
    schema: {
      type: 'object',
      properties: { value: { type: 'integer' }, children: { type: 'array', items: { $ref: '#' } } },
      required: ['value'],
      additionalProperties: false,
    },
    valid: [{ value: 1 }, { value: 1, children: [{ value: 2, children: [] }] }],
    invalid: [{ value: 1, children: [{}] }, { children: [] }],
  },
  {
    name: 'schemas that hold together',
    schema: {
      allOf: [
        { properties: { a: { minimum: 1 } } },
        { properties: { a: { type: 'integer', maximum: 3 } } },
        { required: ['a'], type: 'object' },
      ],
    },
    valid: [{ a: 1 }, { a: 3 }],
    invalid: [{ a: 0 }, { a: 4 }, { a: 'x' }, {}],
  },
  {
    name: 'names by patterns',
    schema: {
      type: 'object',
      patternProperties: { '^n_': { type: 'integer' }, '^s_': { type: 'string' } },
      additionalProperties: false,
    },
    valid: [{}, { n_a: 1, s_a: 'x' }],
    invalid: [{ n_a: 'x' }, { other: 1 }],
  },
  {
    name: 'so many properties',
    schema: {
      type: 'object',
      properties: { a: {}, b: {}, c: {} },
      required: ['c'],
      minProperties: 2,
      maxProperties: 2,
      additionalProperties: false,
    },
    valid: [
      { a: 1, c: 1 },
      { c: 1, b: 1 },
    ],
    invalid: [{ c: 1 }, { a: 1, b: 1 }, { a: 1, b: 1, c: 1 }],
  },
  {
    name: 'the name of a property twice',
    schema: { type: 'object', properties: { a: {} } },
    valid: [{ a: 1 }],
    invalid: [],
  },
  {
    name: 'a date',
    schema: { type: 'string', format: 'date' },
    valid: ['2024-01-31'],
    invalid: ['2024-13-01', '2024-02-30', ''],
  },
  {
    name: 'multiples',
    schema: { type: 'number', multipleOf: 0.01 },
    valid: [19.99, 0, -1.5, 3],
    invalid: [0.001, 1.005],
  },
];

describe('An answer with a schema', () => {
  it.each(kinds)('can be exactly the valid values: $name', ({ schema, valid, invalid }) => {
    const machine = machineOf(schema);
    expect(machine.loose).toEqual([]);
    expect(valid.flatMap(styles).filter((text) => !accepts(machine, text))).toEqual([]);
    expect(invalid.flatMap(styles).filter((text) => accepts(machine, text))).toEqual([]);
  });

  it('repeats no property name', () => {
    const machine = machineOf({ type: 'object', properties: { a: {} } });
    const twice = ['{"a":1,"a":1}', '{"b":1,"b":1}', '{"a":1,"\\u00e9":1,"é":1}'];
    expect(twice.filter((text) => accepts(machine, text))).toEqual([]);
  });

  it('is JSON that every parser accepts', () => {
    const machine = machineOf({});
    const broken = [
      '"\n"',
      '"\t"',
      '"\\x"',
      '"\\ud800"',
      '"\\udc00"',
      '01',
      '[1,]',
      '{"a":1,}',
      '{a:1}',
      "'a'",
      'nul',
      '"a',
      '1 2',
      '',
    ];
    expect(broken.filter((text) => accepts(machine, text))).toEqual([]);
    const bytes = [
      [0x22, 0xff, 0x22],
      [0x22, 0xc0, 0x80, 0x22],
      [0x22, 0xed, 0xa0, 0x80, 0x22],
      [0x22, 0xe0, 0x80],
      [0x22, 0xf0, 0x80],
      [0x22, 0xf4, 0x90],
      [0x22, 0xf5],
      [0x22, 0xe2, 0x82, 0x22],
    ];
    expect(bytes.filter((own) => machine.take(machine.state(machine.start), Uint8Array.from(own)) !== null)).toEqual(
      [],
    );
    expect(accepts(machine, '"\\ud83d\\udc32 \\u00e9 \\n"')).toBe(true);
  });

  it('follows schemas that Zod generates', () => {
    const schema = z.toJSONSchema(
      z.strictObject({
        id: z.uuid(),
        email: z.email(),
        at: z.iso.datetime(),
        age: z.int().min(0).max(150),
        name: z.string().min(1),
        tags: z.array(z.string().min(1)).max(3),
        shape: z.discriminatedUnion('kind', [
          z.strictObject({ kind: z.literal('circle'), r: z.number().positive() }),
          z.strictObject({ kind: z.literal('square'), side: z.number().gt(0) }),
        ]),
        more: z.record(z.string().regex(/^[a-z]+$/), z.nullable(z.boolean())).optional(),
      }),
    );
    const machine = machineOf(schema);
    const answer = {
      id: '123e4567-e89b-42d3-a456-426614174000',
      email: 'a.b@example.org',
      at: '2024-02-29T12:00:00Z',
      age: 30,
      name: 'A "quoted" \\ name',
      tags: ['x'],
      shape: { kind: 'circle', r: 0.5 },
      more: { abc: null },
    };
    expect(styles(answer).filter((text) => !accepts(machine, text))).toEqual([]);
    const wrong = [
      { ...answer, id: 'x' },
      { ...answer, age: 151 },
      { ...answer, name: '' },
      { ...answer, shape: { kind: 'circle', side: 1 } },
      { ...answer, shape: { kind: 'square', side: 0 } },
      { ...answer, more: { ABC: null } },
      { ...answer, extra: 1 },
    ];
    expect(wrong.flatMap(styles).filter((text) => accepts(machine, text))).toEqual([]);
  });
});

const nested = (depth: number): unknown =>
  Array.from({ length: depth }).reduce<unknown>(
    (schema) => ({ type: 'object', properties: { a: schema }, required: ['a'] }),
    {},
  );

describe('A schema', () => {
  it.each([
    ['has an unknown type', { type: 'strange' }, /'strange' is not a type/],
    ['refers to itself', { $ref: '#' }, /\$ref refers to itself/],
    [
      'refers to itself in two steps',
      { $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' },
      /refers to itself/,
    ],
    [
      'contains itself without end',
      { type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] },
      /no value satisfies/,
    ],
    ['allows nothing', { allOf: [{ type: 'string' }, { type: 'integer' }] }, /no value satisfies/],
    ['refers to something that does not exist', { $ref: '#/$defs/a' }, /points to nothing/],
    ['refers to another document', { $ref: 'https://example.org/schema.json' }, /schemas are not downloaded/],
    ['has a broken pattern', { properties: { a: { pattern: '(' } } }, /at '\/properties\/a'.*pattern '\('/],
    ['is too deep', nested(300), /too many levels of depth \(at most 200\)/],
    ['has an invalid bound', { minLength: -1 }, /minLength must be an integer/],
    ['is not a schema', { properties: { a: 3 } }, /a schema must be an object, true or false/],
    ['has too large a pattern', { pattern: '(a{1,200}){1,200}' }, /too many .* \(at most \d+\)/],
  ])('that %s is refused, with the reason', (_, schema, message) => {
    expect(() => machineOf(schema)).toThrow(message);
  });

  it('of 55 nested objects is enforced', () => {
    const machine = machineOf(nested(55));
    expect(accepts(machine, `${'{"a":'.repeat(55)}1${'}'.repeat(55)}`)).toBe(true);
  });
});
