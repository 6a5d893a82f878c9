/** Checks a finished answer with ajv against the parts of a schema that can't be enforced during generation. */
import { Ajv, type AnySchemaObject, type Options } from 'ajv';
import { Ajv2019 } from 'ajv/dist/2019.js';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { Form, Part } from './machine.ts';
import { patternDfa } from './patterns.ts';
import { type Draft, isObject, SchemaDocument, unsupportedSchema } from './schemaDocument.ts';

/** Uses the same patterns as the grammar. */
const regExp = Object.assign(
  (pattern: string) => {
    const dfa = patternDfa(pattern);
    // ajv caches patterns by their printed form.
    return { test: (text: string): boolean => dfa.has(text), toString: () => pattern };
  },
  { code: 'patternDfa' },
);

/**
 * @returns ajv's description of the violation; `undefined` if there is none.
 * @throws HearthError if ajv does not know the schema's keywords.
 */
export function afterCheck(schema: unknown, keywords: readonly string[]): (value: unknown) => string | undefined {
  const options: Options = { strict: false, validateSchema: false, validateFormats: false, code: { regExp } };
  try {
    const ajv = checkerOf(new SchemaDocument(schema).draft, schema, options);
    const validate = ajv.compile(forChecker(schema) as AnySchemaObject);
    return (value) => (validate(value) ? undefined : ajv.errorsText(validate.errors, { dataVar: 'answer' }));
  } catch (error) {
    const reason = error instanceof Error ? error.message.slice(0, 200) : String(error);
    throw unsupportedSchema('', `${keywords.join(', ')} can't be enforced, and ajv can't check it either: ${reason}`);
  }
}

function checkerOf(draft: Draft, schema: unknown, options: Options): Ajv | Ajv2019 | Ajv2020 {
  if (draft <= 7) return new Ajv(options);
  // Without `$schema`, tuples may use the older syntax. 2019-09 supports it and nearly all of 2020-12.
  const isNew =
    isObject(schema) &&
    (/2020-12/.test(String(schema['$schema'])) || /"(prefixItems|\$dynamicRef)":/.test(JSON.stringify(schema)));
  return isNew ? new Ajv2020(options) : new Ajv2019(options);
}

/** Drops `$schema`, since metaschemas are not needed, and converts draft 4's bounds to those of draft 6. */
function forChecker(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(forChecker);
  if (!isObject(schema)) return schema;
  const { $schema: _, id, ...rest } = schema;
  const parts = Object.fromEntries(Object.entries(rest).map(([key, part]) => [key, forChecker(part)]));
  for (const [flag, bound] of [
    ['exclusiveMinimum', 'minimum'],
    ['exclusiveMaximum', 'maximum'],
  ] as const) {
    if (typeof parts[flag] !== 'boolean') continue;
    if (parts[flag]) parts[flag] = parts[bound];
    else delete parts[flag];
  }
  return {
    ...parts,
    ...(typeof id === 'string' && !('$id' in parts) ? { $id: id } : id === undefined ? {} : { id: forChecker(id) }),
  };
}

// Checks a constrained answer against the keywords that could not be enforced.

const checks = new Map<unknown, ReturnType<typeof afterCheck>>();

/** @throws HearthError if a schema can't be checked afterwards either. */
export function prepareCheck(form: Form, keywords: readonly string[]): void {
  for (const schema of form.flatMap((parts) => parts.flatMap((part) => (part.kind === 'json' ? [part.schema] : []))))
    check(schema, keywords);
}

/** @returns the violation as one sentence, or `undefined`. */
export function violationOf(form: Form, text: string, keywords: readonly string[]): string | undefined {
  const written = form.flatMap((parts) => jsonIn(parts, text));
  const wrongs = written.map(({ schema, value }) => check(schema, keywords)(value));
  // One matching alternative is enough.
  return wrongs.includes(undefined) ? undefined : wrongs[0];
}

function check(schema: unknown, keywords: readonly string[]): ReturnType<typeof afterCheck> {
  const known = checks.get(schema) ?? afterCheck(schema, keywords);
  if (checks.size > 256) checks.clear();
  checks.set(schema, known);
  return known;
}

function jsonIn(
  parts: readonly Part[],
  text: string,
): readonly { readonly schema: unknown; readonly value: unknown }[] {
  const at = parts.findIndex(({ kind }) => kind === 'json');
  const part = parts[at];
  const before = literals(parts.slice(0, at));
  const after = literals(parts.slice(at + 1));
  if (part?.kind !== 'json' || !text.startsWith(before) || !text.endsWith(after)) return [];
  const json = text.slice(before.length, text.length - after.length);
  return [{ schema: part.schema, value: JSON.parse(json) as unknown }];
}

const literals = (parts: readonly Part[]): string =>
  parts.map((part) => (part.kind === 'literal' ? part.text : '')).join('');
