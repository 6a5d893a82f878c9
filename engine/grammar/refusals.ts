/** Why a schema is refused, in words for whoever sent it. */
import { HearthError, invalidInput, unsupported } from '../errors.ts';

/** A schema that is valid and too large to be followed. */
export class GrammarLimit extends HearthError {
  constructor(bound: string, limit: number) {
    super('unsupported', `The JSON Schema needs too many ${bound} (at most ${limit}); simplify it.`);
  }
}

/** @param at JSON pointer of the schema that is at fault. */
export const invalidSchema = (at: string, problem: string): HearthError =>
  invalidInput(`The JSON Schema is invalid at '${at}': ${problem}.`);

export const unsupportedSchema = (at: string, problem: string): HearthError =>
  unsupported(`The JSON Schema can't be followed at '${at}': ${problem}.`);
