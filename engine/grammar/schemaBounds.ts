/** Bounds on a schema as it comes from outside, before anything walks through it. */
import { limits } from '../limits.ts';
import { GrammarLimit } from './refusals.ts';

/** @throws GrammarLimit for one that is too deep or too large; without recursion, which depth could exhaust. */
export function checkSchemaBounds(schema: unknown): void {
  const { schemaDepth, schemaChars, schemaValues } = limits.generation;
  const open: (readonly [unknown, number])[] = [[schema, 0]];
  let values = 0;
  let characters = 0;
  for (let next = open.pop(); next; next = open.pop()) {
    const [value, depth] = next;
    if (++values > schemaValues) throw new GrammarLimit('values', schemaValues);
    if (typeof value === 'string') characters += value.length;
    if (typeof value !== 'object' || value === null) continue;
    // Each level of schemas has a level of keywords.
    if (depth >= 2 * schemaDepth) throw new GrammarLimit('levels of depth', schemaDepth);
    for (const [key, part] of Object.entries(value)) {
      if (!Array.isArray(value)) characters += key.length;
      open.push([part, depth + 1]);
    }
    if (characters > schemaChars) throw new GrammarLimit('characters', schemaChars);
  }
  if (characters > schemaChars) throw new GrammarLimit('characters', schemaChars);
}
