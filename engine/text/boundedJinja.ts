/**
 * Jinja templates come with a checkpoint and are as trustworthy as it is: one may loop for ever, double a string
 * until memory ends, or call itself. `@huggingface/jinja` has no bounds, but every node of a template passes through
 * `Interpreter.evaluate`, so a subclass counts steps and depth there and measures each value that comes out. What a
 * single step may still hide (writing out a list that holds itself a thousand times over) ends at a deadline.
 * `range`, which would build its list before anything is counted, and the clock are our own.
 */
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { HearthError, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import { DeadlineError, withDeadline } from './watchdog.ts';

export type Program = ReturnType<typeof parse>;
type Node = NonNullable<Parameters<Interpreter['evaluate']>[0]>;
type Value = ReturnType<Interpreter['evaluate']>;

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
    const text: unknown = new BoundedInterpreter(environment).run(program).value;
    return typeof text === 'string' ? text : '';
  });
}

function bounded<T>(work: () => T): T {
  try {
    return withDeadline(limits.text.templateMs, work);
  } catch (error) {
    if (error instanceof HearthError) throw error;
    if (error instanceof DeadlineError) throw tooMuch(`more than ${limits.text.templateMs} ms`);
    // The stack or a string's greatest length is exceeded.
    if (error instanceof RangeError) throw tooMuch('more memory than it may');
    const reason = error instanceof Error ? error.message : String(error);
    throw invalidInput(`The model's chat template fails: ${reason.slice(0, 300)}`);
  }
}

function tooMuch(what: string): HearthError {
  return invalidInput(`The model's chat template takes ${what}, so it was stopped.`);
}

class BoundedInterpreter extends Interpreter {
  #steps = 0;
  #depth = 0;
  /** Expressions whose number is a width that something is padded to. */
  readonly #widths = new WeakSet<Node>();

  override evaluate(node: Node | undefined, environment: Environment): Value {
    if (++this.#steps > limits.text.templateSteps) throw tooMuch(`more than ${limits.text.templateSteps} steps`);
    if (++this.#depth > limits.text.templateDepth) throw tooMuch(`more than ${limits.text.templateDepth} levels`);
    try {
      this.#noteWidths(node);
      const value = this.#pythonStrip(node, environment) ?? super.evaluate(node, environment);
      requireSmall(value.value);
      if (node !== undefined && this.#widths.has(node)) requireNarrow(value.value);
      return value;
    } finally {
      this.#depth--;
    }
  }

  #noteWidths(node: Node | undefined): void {
    if (!isFilter(node) || !isCall(node.filter)) return;
    if (!['indent', 'tojson'].includes(nameOf(node.filter.callee) ?? '')) return;
    for (const argument of node.filter.args) this.#widths.add(valueOfArgument(argument));
  }

  /** The library's `strip`, `lstrip` and `rstrip` take blanks whatever they are told to take. */
  #pythonStrip(node: Node | undefined, environment: Environment): Value | undefined {
    if (!isCall(node) || node.args.length !== 1 || !isMember(node.callee)) return undefined;
    const method = nameOf(node.callee.property);
    if (method !== 'strip' && method !== 'lstrip' && method !== 'rstrip') return undefined;
    const text: unknown = this.evaluate(node.callee.object, environment).value;
    const characters: unknown = this.evaluate(node.args[0], environment).value;
    if (typeof text !== 'string' || typeof characters !== 'string') return undefined;
    return super.evaluate(stringLiteral(strip(text, new Set(characters), method)), environment);
  }
}

function strip(text: string, characters: ReadonlySet<string>, method: 'strip' | 'lstrip' | 'rstrip'): string {
  let start = 0;
  let end = text.length;
  if (method !== 'rstrip') while (start < end && characters.has(text.charAt(start))) start++;
  if (method !== 'lstrip') while (end > start && characters.has(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

function requireSmall(value: unknown): void {
  const { templateOutputChars, templateItems } = limits.text;
  if (typeof value === 'string') {
    if (value.length > templateOutputChars) throw tooMuch(`more than ${templateOutputChars} characters`);
  } else if (Array.isArray(value) || value instanceof Map) {
    const items = value instanceof Map ? value.size : value.length;
    if (items > templateItems) throw tooMuch(`a list of more than ${templateItems} items`);
  }
}

function requireNarrow(value: unknown): void {
  if (typeof value === 'number' && value > limits.text.templateIndent) {
    throw tooMuch(`an indent of more than ${limits.text.templateIndent}`);
  }
  // `**{'indent': …}`
  if (value instanceof Map) for (const entry of value.values()) requireNarrow((entry as Value).value);
}

// ---- The few nodes that are looked into; the library does not export their classes ----

type CallNode = Node & { readonly callee: Node; readonly args: readonly Node[] };

function isCall(node: Node | undefined): node is CallNode {
  return node?.type === 'CallExpression';
}

function isFilter(node: Node | undefined): node is Node & { readonly filter: Node } {
  return node?.type === 'FilterExpression' || node?.type === 'FilterStatement';
}

function isMember(node: Node): node is Node & { readonly object: Node; readonly property: Node } {
  return node.type === 'MemberExpression' && !('computed' in node && node.computed === true);
}

function nameOf(node: Node): string | undefined {
  return node.type === 'Identifier' && 'value' in node ? String(node.value) : undefined;
}

/** The expression of `name=…` and `**…`. */
function valueOfArgument(node: Node): Node {
  if (node.type === 'KeywordArgumentExpression' && 'value' in node) return node.value as Node;
  if (node.type === 'KeywordSpreadExpression' && 'argument' in node) return node.argument as Node;
  return node;
}

function stringLiteral(value: string): Node {
  return { type: 'StringLiteral', value } as Node;
}

// ---- Functions that templates expect ----

function globals(now: Date): Record<string, unknown> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    range,
    strftime_now: (format: unknown) => strftime(now, String(format)),
    raise_exception: (message: unknown) => {
      throw invalidInput(`The model's chat template refuses this conversation: ${String(message).slice(0, 300)}`);
    },
  };
}

function range(...args: unknown[]): number[] {
  const [first, second, third] = args;
  const start = second === undefined ? 0 : Number(first);
  const stop = Number(second === undefined ? first : second);
  const step = third === undefined ? 1 : Number(third);
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!(count <= limits.text.templateItems)) throw tooMuch(`a range of more than ${limits.text.templateItems} numbers`);
  return Array.from({ length: count }, (_, index) => start + index * step);
}

/** Python's directives that templates use, in English and local time. */
function strftime(now: Date, format: string): string {
  const english = (options: Intl.DateTimeFormatOptions): string => now.toLocaleString('en-US', options);
  const two = (value: number): string => String(value).padStart(2, '0');
  const directives: Record<string, () => string> = {
    Y: () => String(now.getFullYear()),
    y: () => two(now.getFullYear() % 100),
    m: () => two(now.getMonth() + 1),
    d: () => two(now.getDate()),
    B: () => english({ month: 'long' }),
    b: () => english({ month: 'short' }),
    A: () => english({ weekday: 'long' }),
    a: () => english({ weekday: 'short' }),
    H: () => two(now.getHours()),
    M: () => two(now.getMinutes()),
    S: () => two(now.getSeconds()),
    '%': () => '%',
  };
  return format.replace(/%(.)/g, (whole, directive: string) => directives[directive]?.() ?? whole);
}
