/** Why a schema is refused, in words for whoever sent it. */
import { HearthError, invalidInput, unsupported } from '../errors.ts';
import { limits } from '../limits.ts';

/** A schema that is valid and too large to be followed. */
export class GrammarLimit extends HearthError {
  constructor(bound: string, limit: number) {
    super('unsupported', `The JSON Schema needs too many ${bound} (at most ${limit}); simplify it.`);
  }
}

/** A schema that takes more steps than a request may. Unlike a limit, it can't be met by checking a part afterwards. */
class TooManySteps extends HearthError {
  constructor(steps: number) {
    super('unsupported', `The JSON Schema takes more than ${steps / 1e6} million steps to follow; simplify it.`);
  }
}

// The steps of one request at a time, as the grammar thread serves them. Unlike a time limit, they don't depend on what else
// the machine computes.
let steps = { left: Number.POSITIVE_INFINITY, allowed: Number.POSITIVE_INFINITY };

/** Runs `work` with at most that many steps of automata, alternatives and states. */
export function withinSteps<Result>(allowed: number, work: () => Result): Result {
  steps = { left: allowed, allowed };
  try {
    return work();
  } finally {
    steps = { left: Number.POSITIVE_INFINITY, allowed: Number.POSITIVE_INFINITY };
  }
}

export function countSteps(count: number): void {
  steps.left -= count;
  if (steps.left < 0) throw new TooManySteps(steps.allowed);
}

/** @param at JSON pointer of the schema that is at fault. */
export const invalidSchema = (at: string, problem: string): HearthError =>
  invalidInput(`The JSON Schema is invalid at '${at}': ${problem}.`);

export const unsupportedSchema = (at: string, problem: string): HearthError =>
  unsupported(`The JSON Schema can't be followed at '${at}': ${problem}.`);

// Bounds on a schema as it comes from outside, before anything walks through it.

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
