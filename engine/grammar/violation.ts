/** What an answer that follows a form breaks of the keywords that could not be enforced. */
import { afterCheck } from './afterCheck.ts';
import type { Form, Part } from './machine.ts';

const checks = new Map<unknown, ReturnType<typeof afterCheck>>();

/** @throws HearthError where a schema can't be checked afterwards either. */
export function prepareCheck(form: Form, keywords: readonly string[]): void {
  for (const schema of form.flatMap((parts) => parts.flatMap((part) => (part.kind === 'json' ? [part.schema] : []))))
    check(schema, keywords);
}

/** @returns in one sentence, or `undefined`. */
export function violationOf(form: Form, text: string, keywords: readonly string[]): string | undefined {
  const written = form.flatMap((parts) => jsonIn(parts, text));
  const wrongs = written.map(({ schema, value }) => check(schema, keywords)(value));
  // Of several alternatives one is enough.
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
