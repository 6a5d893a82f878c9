/**
 * What a rendering may take. Templates come with a checkpoint and are as trustworthy as it is: one may loop for ever,
 * double a text until memory ends, or call itself. Steps count work, to which every value adds by its size; what makes
 * much of little (`range`, `*`, `replace`, indents) asks for its length before it is made. All of it grows with what
 * the template is given, and none of it depends on the machine.
 */
import { type HearthError, invalidInput } from '../../../errors.ts';
import { limits } from '../../../limits.ts';

const { templateSteps, templateStepsOfMessage, templateDepth, templateOutputChars, templateItems } = limits.text;
/** A step is worth so many characters or items. */
const sizeOfStep = 64;

export function tooMuch(what: string): HearthError {
  return invalidInput(`The model's chat template takes ${what}, so it was stopped.`);
}

export class Budget {
  readonly #maxChars: number;
  #stepsLeft: number;
  #depth = 0;

  /** `givenChars`: of all that the template is given, `messages` among it. */
  constructor(givenChars: number, messages = 0) {
    this.#stepsLeft = templateSteps + messages * templateStepsOfMessage + givenChars;
    this.#maxChars = templateOutputChars + 2 * givenChars;
  }

  spend(steps: number): void {
    this.#stepsLeft -= steps;
    if (!(this.#stepsLeft >= 0)) throw tooMuch('too many steps');
  }

  /** For a text of so many characters that is about to be made or read through. */
  spendChars(characters: number): void {
    if (!(characters <= this.#maxChars)) throw tooMuch(`more than ${this.#maxChars} characters`);
    this.spend(characters / sizeOfStep);
  }

  /** For a list of so many items. */
  spendItems(items: number): void {
    if (!(items <= templateItems)) throw tooMuch(`a list of more than ${templateItems} items`);
    this.spend(items / sizeOfStep);
  }

  nested<Result>(work: () => Result): Result {
    if (++this.#depth > templateDepth) throw tooMuch(`more than ${templateDepth} levels`);
    try {
      return work();
    } finally {
      this.#depth -= 1;
    }
  }
}
