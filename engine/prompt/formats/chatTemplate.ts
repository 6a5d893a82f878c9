/** A checkpoint's chat template: renders a conversation as the text that the model was trained to continue. */
import { HearthError, invalidInput } from '../../errors.ts';
import { limits } from '../../limits.ts';
import { DeadlineError, withDeadline } from '../../tokenizer/preTokenise.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import { argumentsOf, type ChatMessage, type Tool, type ToolCall } from '../conversation.ts';
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

/** Members from a mapping or pairs, and from named arguments. */
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

// A checkpoint's tool-call syntax, found by rendering a call with its template, because the model was trained on that.

export interface ToolSyntax {
  /**
   * `invoke`: MiniMax's; `keyed`: GLM's, where names and values have separate tags; `named` and `listed`: Mistral's
   * (parsers/markedCall.ts).
   */
  readonly kind: 'json' | 'xml' | 'invoke' | 'keyed' | 'named' | 'listed';
  /** `keyed`: no line feeds between the tags (GLM-4.7). */
  readonly dense?: true;
  /** Empty: a bare call is the whole answer (Llama 3). */
  readonly open: string;
  readonly close: string;
  /** The key of a JSON call's arguments. */
  readonly argumentsKey: 'arguments' | 'parameters';
  /** The form in which the template takes arguments; `texts`: a mapping of names to the text between the tags. */
  readonly given: 'json' | 'mapping' | 'texts';
  /** Whether the template shows tools, calls and results; otherwise they are turned into ordinary turns first. */
  readonly inTemplate: boolean;
  /** Mistral's templates before 2025 refuse shorter call ids. */
  readonly callIds?: 'nine characters';
}

/** The syntax of Nous Hermes and Qwen, for templates without tools. */
const hermes: ToolSyntax = {
  kind: 'json',
  open: '<tool_call>',
  close: '</tool_call>',
  argumentsKey: 'arguments',
  given: 'json',
  inTemplate: false,
};

const probeTool: Tool = {
  name: 'probe_tool',
  description: 'Probes.',
  parameters: { type: 'object', properties: { city: { type: 'string' } } },
};
const probeCall: ToolCall = { id: 'call_1', name: probeTool.name, arguments: '{"city": "Paris"}' };

export function toolSyntaxOf(template: ChatTemplate, tokenizer: Pick<Tokenizer, 'templateTokens'>): ToolSyntax {
  for (const given of ['json', 'mapping'] as const) {
    for (const ids of [{}, { callIds: 'nine characters' }] as const) {
      const shown = probe(template, tokenizer, { given, ...ids });
      const syntax = shown === undefined ? undefined : syntaxIn(shown, given);
      if (syntax) return { ...syntax, ...ids };
    }
  }
  return hermes;
}

function probe(
  template: ChatTemplate,
  tokenizer: Pick<Tokenizer, 'templateTokens'>,
  calls: Pick<ToolSyntax, 'given' | 'callIds'>,
): string | undefined {
  try {
    return template.render({
      messages: [
        { role: 'user', content: 'x' },
        { role: 'assistant', content: '', tool_calls: [templateCall(probeCall, calls)] },
        {
          role: 'tool',
          content: 'probe_result',
          name: probeTool.name,
          tool_call_id: templateCallId(probeCall.id, calls),
        },
      ],
      variables: { tools: [templateTool(probeTool)] },
      addGenerationPrompt: true,
      bosToken: tokenizer.templateTokens.begin,
      eosToken: tokenizer.templateTokens.end,
      now: new Date(0),
    });
  } catch (error) {
    // A template that refuses tools doesn't show any.
    if (error instanceof HearthError) return undefined;
    throw error;
  }
}

function syntaxIn(shown: string, given: 'json' | 'mapping'): ToolSyntax | undefined {
  // The template showed the tool and its result.
  if (!shown.includes(probeTool.description) || !shown.includes('probe_result')) return undefined;
  if (/<function=probe_tool>\s*<parameter=city>\s*Paris\s*<\/parameter>/.test(shown)) {
    return { ...hermes, kind: 'xml', given: 'texts', inTemplate: true };
  }
  const keyed =
    /<tool_call>probe_tool(\s*)<arg_key>city<\/arg_key>\s*<arg_value>Paris<\/arg_value>\s*<\/tool_call>/.exec(shown);
  if (keyed) return { ...hermes, kind: 'keyed', ...(keyed[1] === '' && { dense: true }), given, inTemplate: true };
  if (/<minimax:tool_call>\s*<invoke name="probe_tool">\s*<parameter name="city">Paris<\/parameter>/.test(shown)) {
    const tags = { open: '<minimax:tool_call>', close: '</minimax:tool_call>' };
    return { ...hermes, ...tags, kind: 'invoke', given, inTemplate: true };
  }
  if (/\[TOOL_CALLS\]probe_tool(\[CALL_ID\]\w+)?\[ARGS\]\{"city":\s*"Paris"\}/.test(shown)) {
    return { ...hermes, kind: 'named', open: '[TOOL_CALLS]', close: '', given, inTemplate: true };
  }
  if (/\[TOOL_CALLS\]\s*\[\{"name":\s*"probe_tool",\s*"arguments":\s*\{"city":\s*"Paris"\}/.test(shown)) {
    return { ...hermes, kind: 'listed', open: '[TOOL_CALLS]', close: '', given, inTemplate: true };
  }
  const match =
    /(<tool_call>)?\s*\{\s*"name":\s*"probe_tool",\s*"(arguments|parameters)":\s*\{"city":\s*"Paris"\}\s*\}/.exec(
      shown,
    );
  if (!match) return undefined;
  const tags = match[1] === undefined ? { open: '', close: '' } : {};
  return {
    ...hermes,
    ...tags,
    argumentsKey: match[2] === 'parameters' ? 'parameters' : 'arguments',
    given,
    inTemplate: true,
  };
}

/** A tool as in OpenAI's API, which templates expect. */
export function templateTool({ name, description, parameters }: Tool): Record<string, unknown> {
  return { type: 'function', function: { name, description, parameters } };
}

export function templateCall(
  call: ToolCall,
  { given, callIds }: Pick<ToolSyntax, 'given' | 'callIds'>,
): Record<string, unknown> {
  const id = templateCallId(call.id, { callIds });
  return { id, type: 'function', function: { name: call.name, arguments: argumentsFor(call, given) } };
}

/** `call_1` as `0000call1` if the syntax requires nine letters and digits. */
export function templateCallId(id: string, syntax: { readonly callIds?: ToolSyntax['callIds'] | undefined }): string {
  if (!syntax.callIds) return id;
  return id
    .replace(/[^A-Za-z0-9]/g, '')
    .slice(-9)
    .padStart(9, '0');
}

/** @throws HearthError `invalid-input` if a mapping is needed and the arguments aren't a JSON object. */
function argumentsFor(call: ToolCall, given: ToolSyntax['given']): unknown {
  if (given === 'json') return call.arguments;
  const values = argumentsOf(call);
  if (given === 'mapping') return values;
  // Passed as the model wrote them: Python would print True and 1.0 for true and 1.
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)]),
  );
}

/** A conversation for a template without tools: they are described in system and user turns. */
export function withoutToolRoles(messages: readonly ChatMessage[], tools: readonly Tool[]): ChatMessage[] {
  const [first, ...others] = messages;
  const instructions = first?.role === 'system' ? `${first.content}\n\n` : '';
  const turns = first?.role === 'system' ? others : messages;
  const system: ChatMessage[] =
    tools.length > 0 ? [{ role: 'system', content: instructions + toolInstructions(tools) }] : [];
  const kept = system.length === 0 && first?.role === 'system' ? [first] : system;
  return [...kept, ...turns.flatMap((_, i) => plainTurn(turns, i))];
}

function plainTurn(turns: readonly ChatMessage[], at: number): readonly ChatMessage[] {
  const message = turns[at];
  if (message === undefined) return [];
  if (message.role === 'assistant' && message.toolCalls) {
    const calls = message.toolCalls.map(
      ({ name, arguments: given }) =>
        `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": ${given}}\n</tool_call>`,
    );
    const { toolCalls: _, ...turn } = message;
    return [{ ...turn, content: [message.content, ...calls].filter((text) => text !== '').join('\n') }];
  }
  if (message.role !== 'tool') return [message];
  // Consecutive results form one turn.
  if (turns[at - 1]?.role === 'tool') return [];
  let end = at + 1;
  while (turns[end]?.role === 'tool') end++;
  const results = turns.slice(at, end);
  const content = results.map((result) => `<tool_response>\n${result.content}\n</tool_response>`).join('\n');
  return [{ role: 'user', content }];
}

/** The wording of Qwen's template, which other models follow as well. */
function toolInstructions(tools: readonly Tool[]): string {
  const signatures = tools.map((tool) => JSON.stringify(templateTool(tool))).join('\n');
  return `# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
${signatures}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>`;
}

// Functions of Python and transformers that templates rely on.

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

/** `json.dumps(value, ensure_ascii=False)` */
export function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${pythonJson(item)}`);
  return `{${members.join(', ')}}`;
}
