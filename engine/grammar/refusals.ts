/** Why a schema is refused, in words for whoever sent it. */
import { HearthError, invalidInput, unsupported } from '../errors.ts';

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
