/** Converts each JSON Schema keyword to shapes. A keyword does not restrict values of other types. */
import { HearthError } from '../errors.ts';
import { Dfa, TextSet } from './dfa.ts';
import { anyInteger, anyNumber, bounded, multipleOf, numberLiterals, type Relation } from './numbers.ts';
import { patternDfa } from './patterns.ts';
import { type Draft, invalidSchema, isObject, type SchemaObject } from './schemaDocument.ts';
import type { Clause, Contained, Node, Nodes, ShapeAlgebra, Shapes } from './shapes.ts';

export interface KeywordContext {
  readonly schema: SchemaObject;
  /** JSON pointer, for error messages. */
  readonly at: string;
  readonly draft: Draft;
  readonly nodes: Nodes;
  readonly algebra: ShapeAlgebra;
  /** @throws HearthError if it is not a schema. */
  readonly node: (schema: unknown, at: string) => Node;
}

const infinite = Number.POSITIVE_INFINITY;
const integers = (shapes: Shapes): Shapes => ({ ...shapes, numbers: anyInteger() });

export function typeShapes({ schema, at, algebra }: KeywordContext): Shapes {
  const { type } = schema;
  if (type === undefined) return algebra.any;
  // OpenAPI 3.0 has no type `null`.
  const types: readonly unknown[] = [type, schema['nullable'] === true ? 'null' : []].flat();
  const { any, nothing } = algebra;
  const kinds: Readonly<Record<string, Shapes>> = {
    null: { ...nothing, words: new Set(['null']) },
    boolean: { ...nothing, words: new Set(['true', 'false']) },
    number: { ...nothing, numbers: any.numbers },
    integer: integers(nothing),
    string: { ...nothing, texts: any.texts },
    array: { ...nothing, arrays: any.arrays },
    object: { ...nothing, objects: any.objects },
  };
  return algebra.or(
    types.map((name) => {
      const kind = typeof name === 'string' && Object.hasOwn(kinds, name) ? kinds[name] : undefined;
      if (!kind) throw invalidSchema(at, `'${String(name)}' is not a type`);
      return kind;
    }),
  );
}

export function valueShapes(context: KeywordContext): Shapes {
  const { schema, at, algebra, draft } = context;
  const declared = schema['enum'];
  if (declared !== undefined && !Array.isArray(declared)) throw invalidSchema(at, 'enum must be an array');
  const listed = declared === undefined ? algebra.any : literalShapes(context, declared);
  if (!('const' in schema) || draft === 4) return listed;
  return algebra.and(listed, literalShapes(context, [schema['const']]));
}

function literalShapes(context: KeywordContext, values: readonly unknown[]): Shapes {
  const { nodes, algebra } = context;
  const texts = values.filter((value) => typeof value === 'string');
  const numbers = values.filter((value) => typeof value === 'number');
  const literal = (value: unknown): Node => nodes.schema(literalSchema(value));
  return {
    words: new Set(
      values.flatMap((value) =>
        value === null ? ['null'] : value === true ? ['true'] : value === false ? ['false'] : [],
      ) as Iterable<'null' | 'true' | 'false'>,
    ),
    numbers: numberLiterals(numbers),
    texts: texts.length === 0 ? [] : [TextSet.of(Dfa.literals(texts))],
    arrays: values.filter(Array.isArray).map((items: readonly unknown[]) => ({
      ...algebra.anyArray,
      prefix: items.map(literal),
      rest: nodes.none,
      min: items.length,
      max: items.length,
    })),
    objects: values.filter(isObject).map((members) => ({
      ...algebra.anyObject,
      clauses: [
        {
          properties: new Map(Object.entries(members).map(([name, value]) => [name, literal(value)])),
          patterns: [],
          additional: nodes.none,
        },
      ],
      required: Object.keys(members).sort(),
    })),
    loose: new Set(),
  };
}

const literalSchema = (value: unknown): SchemaObject => synthetic({ const: value });

/** Reuses equal generated schemas, so that they share a node. */
const syntheticSchemas = new Map<string, SchemaObject>();
function synthetic(schema: SchemaObject): SchemaObject {
  const key = JSON.stringify(schema);
  const known = syntheticSchemas.get(key) ?? schema;
  if (syntheticSchemas.size > 10_000) syntheticSchemas.clear();
  syntheticSchemas.set(key, known);
  return known;
}

export function numberShapes({ schema, at, algebra }: KeywordContext): Shapes {
  const limits: [Relation, number][] = [];
  const add = (key: 'minimum' | 'maximum', relation: '>' | '<', exclusiveKey: string): void => {
    const bound = numberAt(schema, key, at);
    const exclusive = schema[exclusiveKey];
    // Draft 4 has a flag beside the bound.
    if (typeof exclusive === 'boolean') {
      if (bound !== undefined) limits.push([exclusive ? relation : `${relation}=`, bound]);
      return;
    }
    if (bound !== undefined) limits.push([`${relation}=`, bound]);
    const own = numberAt(schema, exclusiveKey, at);
    if (own !== undefined) limits.push([relation, own]);
  };
  add('minimum', '>', 'exclusiveMinimum');
  add('maximum', '<', 'exclusiveMaximum');
  const numbers = limits.reduce((left, [relation, bound]) => left.and(bounded(relation, bound)), anyNumber());
  const divisor = numberAt(schema, 'multipleOf', at);
  if (divisor === undefined) return limits.length > 0 ? { ...algebra.any, numbers } : algebra.any;
  if (divisor <= 0) throw invalidSchema(at, 'multipleOf must be above 0');
  const multiples = multipleOf(divisor);
  return multiples
    ? { ...algebra.any, numbers: numbers.and(multiples) }
    : { ...algebra.any, numbers, loose: new Set(['multipleOf']) };
}

function numberAt(schema: SchemaObject, key: string, at: string): number | undefined {
  const value = schema[key];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isFinite(value)) throw invalidSchema(at, `${key} must be a number`);
  return value;
}

function countAt(schema: SchemaObject, key: string, at: string): number | undefined {
  const value = numberAt(schema, key, at);
  if (value === undefined) return undefined;
  if (value < 0 || !Number.isInteger(value)) throw invalidSchema(at, `${key} must be an integer of at least 0`);
  return value;
}

export function textShapes({ schema, at, algebra }: KeywordContext): Shapes {
  const { pattern, format } = schema;
  const min = countAt(schema, 'minLength', at) ?? 0;
  const max = countAt(schema, 'maxLength', at) ?? infinite;
  const matching = pattern === undefined ? Dfa.always : patternAt(pattern, at, 'pattern');
  const formatted = typeof format === 'string' ? (formatDfa(format) ?? Dfa.always) : Dfa.always;
  const text = TextSet.of(matching.and(formatted), min, max);
  if (text.isAll) return algebra.any;
  return { ...algebra.any, texts: text.isEmpty ? [] : [text] };
}

const patterns = new Map<string, Dfa>();

function patternAt(pattern: unknown, at: string, keyword: string): Dfa {
  if (typeof pattern !== 'string') throw invalidSchema(at, `${keyword} must be a string`);
  const known = patterns.get(pattern);
  if (known) return known;
  try {
    const dfa = patternDfa(pattern);
    if (patterns.size > 256) patterns.clear();
    patterns.set(pattern, dfa);
    return dfa;
  } catch (error) {
    if (error instanceof HearthError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw invalidSchema(at, `${keyword} '${pattern.slice(0, 100)}' can't be enforced (${reason.slice(0, 200)})`);
  }
}

export function arrayShapes(context: KeywordContext): Shapes {
  const { schema, at, draft, nodes, algebra, node } = context;
  const { items, prefixItems, additionalItems, unevaluatedItems, uniqueItems } = schema;
  // Up to 2019-09, a list under `items` means what `prefixItems` means since.
  const tuple = Array.isArray(items) ? items : draft >= 2020 && Array.isArray(prefixItems) ? prefixItems : [];
  const declared = Array.isArray(items) ? additionalItems : items;
  const rest = declared ?? (plainBeside(schema, ['contains']) ? unevaluatedItems : undefined);
  const prefix = tuple.map((part: unknown, i) => node(part, `${at}/items/${i}`));
  const shape = {
    prefix,
    rest: rest === undefined ? nodes.all : node(rest, `${at}/items`),
    min: countAt(schema, 'minItems', at) ?? 0,
    max: countAt(schema, 'maxItems', at) ?? infinite,
    contains: containsOf(context),
  };
  const loose = new Set<string>();
  if (uniqueItems === true && shape.max > 1) loose.add('uniqueItems');
  if (unevaluatedItems !== undefined && rest !== unevaluatedItems && declared === undefined)
    loose.add('unevaluatedItems');
  return { ...algebra.any, arrays: shape.min > shape.max ? [] : [shape], loose };
}

function containsOf({ schema, at, draft, node }: KeywordContext): readonly Contained[] {
  const { contains } = schema;
  if (contains === undefined || draft === 4) return [];
  const min = draft >= 2019 ? (countAt(schema, 'minContains', at) ?? 1) : 1;
  const max = draft >= 2019 ? (countAt(schema, 'maxContains', at) ?? infinite) : infinite;
  return [{ node: node(contains, `${at}/contains`), from: 0, min, max }];
}

/** If no other keyword evaluates parts of the value, "unevaluated" equals "additional". */
function plainBeside(schema: SchemaObject, more: readonly string[] = []): boolean {
  const others = [
    '$ref',
    '$dynamicRef',
    '$recursiveRef',
    'allOf',
    'anyOf',
    'oneOf',
    'not',
    'if',
    'dependentSchemas',
    ...more,
  ];
  return !others.some((key) => key in schema);
}

export function objectShapes(context: KeywordContext): Shapes {
  const { schema, at, algebra } = context;
  const { unevaluatedProperties, additionalProperties } = schema;
  const required = schema['required'];
  // Draft 3 had a flag here, and some schemas still use it.
  const isList = Array.isArray(required) && required.every((name) => typeof name === 'string');
  if (required !== undefined && typeof required !== 'boolean' && !isList)
    throw invalidSchema(at, 'required must be an array of strings');
  const clause = clauseOf(context);
  const shape = {
    clauses: clause ? [clause] : [],
    required: isList ? [...new Set(required as readonly string[])].sort() : [],
    min: countAt(schema, 'minProperties', at) ?? 0,
    max: countAt(schema, 'maxProperties', at) ?? infinite,
    names:
      context.draft > 4 && 'propertyNames' in schema
        ? [context.node(schema['propertyNames'], `${at}/propertyNames`)]
        : [],
  };
  const open = unevaluatedProperties !== undefined && additionalProperties === undefined && !plainBeside(schema);
  const fits = shape.min <= shape.max && shape.required.length <= shape.max;
  return {
    ...algebra.any,
    objects: fits ? [shape] : [],
    loose: new Set(open ? ['unevaluatedProperties'] : []),
  };
}

function clauseOf({ schema, at, nodes, node }: KeywordContext): Clause | undefined {
  const { properties = {}, patternProperties = {}, additionalProperties, unevaluatedProperties } = schema;
  if (!isObject(properties)) throw invalidSchema(at, 'properties must be an object');
  if (!isObject(patternProperties)) throw invalidSchema(at, 'patternProperties must be an object');
  const further = additionalProperties ?? (plainBeside(schema) ? unevaluatedProperties : undefined);
  const clause = {
    properties: new Map(Object.entries(properties).map(([name, own]) => [name, node(own, `${at}/properties/${name}`)])),
    patterns: Object.entries(patternProperties).map(([pattern, own]) => ({
      dfa: patternAt(pattern, at, 'patternProperties'),
      node: node(own, `${at}/patternProperties/${pattern}`),
    })),
    additional: further === undefined ? nodes.all : node(further, `${at}/additionalProperties`),
  };
  return clause.properties.size + clause.patterns.length > 0 || clause.additional !== nodes.all ? clause : undefined;
}

/** Keywords whose schemas apply to the value itself; all must hold. */
export function appliedNodes(context: KeywordContext): readonly Node[] {
  const { schema, at, draft, nodes, node } = context;
  const part = (key: string): Node => (schema[key] === undefined ? nodes.all : node(schema[key], `${at}/${key}`));
  const list = (key: string): readonly Node[] => {
    const parts = schema[key];
    if (!Array.isArray(parts) || parts.length === 0) throw invalidSchema(at, `${key} must be an array of schemas`);
    return parts.map((own: unknown, i) => node(own, `${at}/${key}/${i}`));
  };
  const condition = draft >= 7 && schema['if'] !== undefined ? part('if') : undefined;
  return [
    ...('allOf' in schema ? list('allOf') : []),
    ...('anyOf' in schema ? [nodes.or(list('anyOf'))] : []),
    ...('not' in schema ? [nodes.not(part('not'))] : []),
    ...(condition
      ? [nodes.or([nodes.and([condition, part('then')]), nodes.and([nodes.not(condition), part('else')])])]
      : []),
    ...dependencyNodes(context),
  ];
}

/** `dependentRequired`, `dependentSchemas`, and `dependencies`, which was both until draft 7. */
function dependencyNodes({ schema, at, nodes, node }: KeywordContext): readonly Node[] {
  const entries = ['dependentRequired', 'dependentSchemas', 'dependencies'].flatMap((key) =>
    isObject(schema[key]) ? Object.entries(schema[key]) : [],
  );
  return entries.map(([name, needed]) => {
    const absent = nodes.not(nodes.schema(requiring([name])));
    const names = (Array.isArray(needed) ? needed : []).filter((own) => typeof own === 'string');
    if (Array.isArray(needed)) return nodes.or([absent, nodes.schema(requiring([name, ...names]))]);
    return nodes.or([absent, nodes.and([nodes.schema(requiring([name])), node(needed, `${at}/dependencies/${name}`)])]);
  });
}

const requiring = (names: readonly string[]): SchemaObject => synthetic({ required: [...new Set(names)] });

// Patterns of the `format`s that are enforced. The others are annotations, as JSON Schema defines.

const leapDay = '([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29';
const monthDay =
  '((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))';
const date = `([0-9]{4}-${monthDay}|${leapDay})`;
const time = '([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])';
const label = '[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?';
const atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
const byte = '(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const ipv4 = `${byte}(\\.${byte}){3}`;
const group = '[0-9A-Fa-f]{1,4}';

/** RFC 4291: eight groups; one run of zeros may be left out. */
const ipv6 = [
  `(${group}:){7}${group}`,
  `(${group}:){1,7}:`,
  ...[1, 2, 3, 4, 5, 6].map((after) => `(${group}:){1,${7 - after}}(:${group}){1,${after}}`),
  `:((:${group}){1,7}|:)`,
].join('|');

const digits = '[0-9]{1,9}';
const clock = `(${digits}H(${digits}M(${digits}S)?)?|${digits}M(${digits}S)?|${digits}S)`;
const days = `(${digits}Y(${digits}M(${digits}D)?)?|${digits}M(${digits}D)?|${digits}D)`;

const formatPatterns: Readonly<Record<string, string>> = {
  date,
  time,
  'date-time': `${date}T${time}`,
  duration: `P(${digits}W|${days}(T${clock})?|T${clock})`,
  email: `${atom}(\\.${atom})*@(${label}\\.)+[A-Za-z]{2,18}`,
  hostname: `${label}(\\.${label})*`,
  ipv4,
  ipv6,
  uuid: '[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}',
  uri: "[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})+",
};

const made = new Map<string, Dfa>();

/** `undefined`: the format is not enforced. */
function formatDfa(format: string): Dfa | undefined {
  const pattern = Object.hasOwn(formatPatterns, format) ? formatPatterns[format] : undefined;
  if (pattern === undefined) return undefined;
  const dfa = made.get(format) ?? patternDfa(`^(${pattern})$`);
  made.set(format, dfa);
  return dfa;
}
