/**
 * Jinja templates come with a checkpoint and are as trustworthy as it is: one may loop for ever, double a text until
 * memory ends, or call itself. `@huggingface/jinja` has no bounds, but every node of a template passes through
 * `Interpreter.evaluate`, so a subclass bounds what happens there: steps, to which every value that comes out adds by
 * its size, so that work on long texts counts too; depth; and the size of values, lists with all that they hold. What
 * makes much of little in one step (`range`, `replace`, indents and separators) is checked before. All of it grows
 * with what the template is given, and none of it depends on the machine; a deadline is the net below.
 */
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { HearthError, invalidInput } from '../../errors.ts';
import { limits } from '../../limits.ts';
import { DeadlineError, withDeadline } from '../../tokenizer/watchdog.ts';
import { type Node, operationOf, type Program, stringLiteral, type Value, valueOfArgument } from './jinjaNodes.ts';
import { rangeOf, replacedLength, strftime, strip } from './pythonFunctions.ts';

export type { Program } from './jinjaNodes.ts';

const { templateSteps, templateDepth, templateOutputChars, templateItems, templateNesting, templateWidth } =
  limits.text;
/** A step is worth so many characters or items. */
const sizeOfStep = 64;

/** @throws HearthError `invalid-input` for a template that is too long, too deep, or no Jinja. */
export function compileTemplate(source: string): Program {
  if (source.length > limits.text.templateChars) {
    throw invalidInput(
      `The chat template has ${source.length} characters; at most ${limits.text.templateChars} are read.`,
    );
  }
  // As transformers sets Jinja up (utils/chat_template_utils.py).
  return bounded(() => parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })));
}

/** @throws HearthError `invalid-input` when the template refuses, fails, or exceeds a bound. */
export function runTemplate(program: Program, variables: Readonly<Record<string, unknown>>, now: Date): string {
  return bounded(() => {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...globals(now), ...variables })) environment.set(name, value);
    const text: unknown = new BoundedInterpreter(environment, charactersIn(variables)).run(program).value;
    return typeof text === 'string' ? text : '';
  });
}

function bounded<T>(work: () => T): T {
  try {
    return withDeadline(limits.text.templateMs, work);
  } catch (error) {
    if (error instanceof HearthError) throw error;
    if (error instanceof DeadlineError) throw tooMuch(`more than ${limits.text.templateMs} ms`);
    // The stack or a text's greatest length is exceeded.
    if (error instanceof RangeError) throw tooMuch('more memory than it may');
    const reason = error instanceof Error ? error.message : String(error);
    throw invalidInput(`The model's chat template fails: ${reason.slice(0, 300)}`);
  }
}

function tooMuch(what: string): HearthError {
  return invalidInput(`The model's chat template takes ${what}, so it was stopped.`);
}

function charactersIn(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.entries(value).reduce((sum, [key, item]) => sum + key.length + charactersIn(item), 0);
}

class BoundedInterpreter extends Interpreter {
  #stepsLeft: number;
  #depth = 0;
  readonly #maxChars: number;
  /** Arguments that something is padded or joined with. */
  readonly #widths = new WeakSet<Node>();
  /** Characters that lists and mappings come to when they are written out. */
  readonly #weights = new WeakMap<object, number>();

  constructor(environment: Environment, givenChars: number) {
    super(environment);
    this.#stepsLeft = templateSteps + givenChars;
    this.#maxChars = templateOutputChars + 2 * givenChars;
  }

  override evaluate(node: Node | undefined, environment: Environment): Value {
    this.#spend(1);
    if (++this.#depth > templateDepth) throw tooMuch(`more than ${templateDepth} levels`);
    try {
      const value = this.#special(node, environment) ?? super.evaluate(node, environment);
      this.#measure(value);
      if (node !== undefined && this.#widths.has(node)) requireNarrow(value);
      return value;
    } finally {
      this.#depth--;
    }
  }

  #spend(steps: number): void {
    this.#stepsLeft -= steps;
    if (this.#stepsLeft < 0) throw tooMuch('too many steps');
  }

  #measure(value: Value): void {
    const content: unknown = value.value;
    if (typeof content === 'string') {
      this.#requireLength(content.length);
      this.#spend(content.length / sizeOfStep);
    } else if (Array.isArray(content) || content instanceof Map) {
      this.#spend((content instanceof Map ? content.size : content.length) / sizeOfStep);
      this.#requireLength(this.#weigh(value, 0).weight);
    }
  }

  #requireLength(characters: number): void {
    if (!(characters <= this.#maxChars)) throw tooMuch(`more than ${this.#maxChars} characters`);
  }

  /** A namespace is `mutable`, and so is what holds one: their weight is not remembered. */
  #weigh(value: Value, depth: number): { weight: number; mutable: boolean } {
    const content: unknown = value.value;
    if (typeof content === 'string') return { weight: content.length, mutable: false };
    if (!Array.isArray(content) && !(content instanceof Map)) return { weight: 8, mutable: false };
    const known = this.#weights.get(content);
    if (known !== undefined) return { weight: known, mutable: false };
    if (depth > templateNesting) throw tooMuch(`lists nested more than ${templateNesting} deep`);
    const entries: Iterable<[unknown, Value]> = content.entries();
    let weight = 0;
    let mutable = value.type === 'NamespaceValue';
    if ((content instanceof Map ? content.size : content.length) > templateItems) {
      throw tooMuch(`a list of more than ${templateItems} items`);
    }
    for (const [key, item] of entries) {
      this.#spend(1);
      const held = this.#weigh(item, depth + 1);
      weight += held.weight + (typeof key === 'string' ? key.length : 0) + 4;
      mutable ||= held.mutable;
      this.#requireLength(weight);
    }
    if (!mutable) this.#weights.set(content, weight);
    return { weight, mutable };
  }

  /** Operations that are bounded before they run, or that the library does unlike Python. */
  #special(node: Node | undefined, environment: Environment): Value | undefined {
    const operation = operationOf(node);
    if (operation === undefined) return undefined;
    const { name, operand, args } = operation;
    switch (name) {
      case 'indent':
      case 'tojson':
      case 'join':
        for (const argument of args) this.#widths.add(valueOfArgument(argument));
        return undefined;
      case 'replace':
        this.#requireLength(replacedLength(...this.#texts(environment, [operand, args[0], args[1]])));
        return undefined;
      case 'strip':
      case 'lstrip':
      case 'rstrip': {
        // The library's take all blanks, whatever they are told to take.
        if (args.length !== 1) return undefined;
        const [text, characters] = this.#texts(environment, [operand, args[0], undefined]);
        return super.evaluate(stringLiteral(strip(text, characters, name)), environment);
      }
      default:
        return undefined;
    }
  }

  #texts(environment: Environment, nodes: readonly (Node | undefined)[]): [string, string, string] {
    const [first = '', second = '', third = ''] = nodes.map((node) => {
      const text: unknown = node === undefined ? '' : this.evaluate(node, environment).value;
      return typeof text === 'string' ? text : '';
    });
    return [first, second, third];
  }
}

function requireNarrow(value: Value): void {
  const content: unknown = value.value;
  const width = typeof content === 'string' ? content.length : content;
  if (typeof width === 'number' && width > templateWidth) {
    throw tooMuch(`an indent or separator of more than ${templateWidth}`);
  }
  // `**{'indent': …}`
  if (content instanceof Map) for (const entry of content.values()) requireNarrow(entry as Value);
}

function globals(now: Date): Record<string, unknown> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range: (...args: unknown[]) => {
      const { start, step, count } = rangeOf(args);
      if (!(count <= templateItems)) throw tooMuch(`a range of more than ${templateItems} numbers`);
      return Array.from({ length: count }, (_, index) => start + index * step);
    },
    strftime_now: (format: unknown) => strftime(now, String(format)),
    raise_exception: (message: unknown) => {
      throw invalidInput(`The model's chat template refuses this conversation: ${String(message).slice(0, 300)}`);
    },
  };
}
