/** A checkpoint's chat template: renders a conversation as the text that the model was trained to continue. */
import { HearthError, invalidInput } from '../../errors.ts';
import { limits } from '../../limits.ts';
import { DeadlineError, withDeadline } from '../../tokenizer/preTokenise.ts';
import type { Statement } from './jinja/expressions.ts';
import { Interpreter } from './jinja/interpreter.ts';
import { parse } from './jinja/parser.ts';
import { str } from './jinja/printing.ts';
import {
  Budget,
  Callable,
  Dict,
  iterate,
  Namespace,
  numberOf,
  TemplateError,
  tooMuch,
  toValue,
  type Value,
  View,
} from './jinja/values.ts';
import { strftime } from './toolSyntax.ts';

// Chat templates are untrusted programs. They are compiled and run within limits, and render the same as Python's jinja2
// with transformers' settings (`utils/chat_template_utils.py`).

type Program = readonly Statement[];

/** @throws HearthError `invalid-input` for a template that is too long, too deep, or not Jinja. */
export function compileTemplate(source: string): Program {
  if (source.length > limits.text.templateChars) {
    throw invalidInput(
      `The chat template has ${source.length} characters; at most ${limits.text.templateChars} are read.`,
    );
  }
  return bounded(() => parse(source));
}

/** @throws HearthError `invalid-input` if the template refuses, fails, or exceeds a limit. */
export function runTemplate(program: Program, variables: Readonly<Record<string, unknown>>, now: Date): string {
  return bounded(() => {
    const { messages } = variables;
    const budget = new Budget(charactersIn(variables), Array.isArray(messages) ? messages.length : 0);
    const given = Object.entries(variables).map(([name, value]) => [name, toValue(value)] as const);
    return new Interpreter(budget).run(program, new Map([...globals(now, budget), ...given]));
  });
}

function bounded<T>(work: () => T): T {
  try {
    return withDeadline(limits.text.templateMs, work);
  } catch (error) {
    if (error instanceof HearthError) throw error;
    if (error instanceof DeadlineError) throw tooMuch(`more than ${limits.text.templateMs} ms`);
    // The stack or the maximum string length was exceeded.
    if (error instanceof RangeError) throw tooMuch('more memory than it may');
    if (!(error instanceof TemplateError)) throw error;
    throw invalidInput(`The model's chat template fails: ${error.message.slice(0, 300)}`);
  }
}

function charactersIn(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.entries(value).reduce((sum, [key, item]) => sum + key.length + charactersIn(item), 0);
}

function globals(now: Date, budget: Budget): [string, Value][] {
  const functions: Record<string, Callable['call']> = {
    range: (bounds) => {
      const { start, step, count } = rangeOf(bounds);
      budget.spendItems(count);
      return new View(
        'range',
        Array.from({ length: count }, (_, index) => start + index * step),
      );
    },
    namespace: (positional, named) => {
      const members = new Map(membersOf(positional, named, budget));
      return new Namespace(() => members);
    },
    dict: (positional, named) => new Dict(new Map<Value, Value>(membersOf(positional, named, budget))),
    strftime_now: ([format = '']) => strftime(now, str(format, budget)),
    raise_exception: ([message = '']) => {
      throw invalidInput(`The model's chat template refuses this conversation: ${str(message, budget).slice(0, 300)}`);
    },
  };
  return Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)]);
}

/** Arguments of `range(stop)` or `range(start, stop, step)`. */
function rangeOf(bounds: readonly Value[]): { start: number; step: number; count: number } {
  const [first = 0, second, third = 1] = bounds.map((bound) => {
    const number = typeof bound === 'object' ? undefined : numberOf(bound);
    if (number === undefined) throw new TemplateError('range takes whole numbers');
    return number;
  });
  if (third === 0) throw new TemplateError('range() arg 3 must not be zero');
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  return { start, step: third, count: Math.max(0, Math.ceil((stop - start) / third)) };
}

/** From a mapping or pairs, and named arguments. */
function membersOf([given]: readonly Value[], named: ReadonlyMap<string, Value>, budget: Budget): [string, Value][] {
  if (given === undefined) return [...named];
  const pairs = given instanceof Dict ? [...given.entries] : iterate(given).map((pair) => iterate(pair));
  return [...pairs.map(([key = null, value = null]): [string, Value] => [str(key, budget), value]), ...named];
}

/** A message as templates see it; some read more fields (`reasoning_content`, `tool_calls`). */
export interface TemplateMessage {
  readonly role: string;
  readonly content: string | null;
  readonly [field: string]: unknown;
}

export interface TemplateOptions {
  readonly messages: readonly TemplateMessage[];
  /** Whether to end with the start of the assistant's turn. */
  readonly addGenerationPrompt: boolean;
  readonly bosToken: string;
  readonly eosToken: string;
  /** `enable_thinking`, `reasoning_effort`, `tools`, … */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** The result of `strftime_now`. A prompt with the time can't be reused from the cache; one with the date can. */
  readonly now: Date;
}

export interface ChatTemplate {
  readonly source: string;
  /** @throws HearthError `invalid-input` if the template refuses the conversation, fails, or exceeds a limit. */
  render(options: TemplateOptions): string;
}

/** @throws HearthError `invalid-input` if `source` isn't a template. */
export function compileChatTemplate(source: string): ChatTemplate {
  const program = compileTemplate(source);
  return {
    source,
    render: (options) =>
      runTemplate(
        program,
        {
          ...options.variables,
          messages: options.messages,
          add_generation_prompt: options.addGenerationPrompt,
          bos_token: options.bosToken,
          eos_token: options.eosToken,
        },
        options.now,
      ),
  };
}
