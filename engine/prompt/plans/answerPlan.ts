/**
 * The plan that constrains an answer: fixed texts, grammars between them, and the openers that begin a call in a free
 * answer. Within the tools' schemas, the model chooses names and arguments of calls.
 */
import type { Form, Part } from '../../grammar/machine.ts';
import { argumentTypes, type Tool } from '../conversation.ts';
import type { ToolSyntax } from '../formats/chatTemplate.ts';
import type { PromptOptions } from '../formats/promptFormat.ts';

export type Step =
  /** Framing tokens in it are parsed. */
  | { readonly kind: 'write'; readonly text: string }
  | { readonly kind: 'choose'; readonly grammar: AnswerGrammar; readonly follow?: (text: string) => readonly Step[] }
  /** Unconstrained until the model has finished thinking. */
  | { readonly kind: 'think' }
  /** The turn ends. */
  | { readonly kind: 'end' };

export interface AnswerGrammar {
  readonly form: Form;
  /** The answer ends after it. */
  readonly last?: boolean;
}

export interface AnswerPlan {
  /** The constraint starts at the first token. */
  readonly steps: readonly Step[];
  /** The openers that begin a call in a free answer, and the rest of the call. */
  readonly calls?: {
    /** A pattern matches at the start of the answer only (a bare call is the whole answer). */
    readonly opener: string | RegExp;
    /** The opener is recognised in a message header only (harmony). */
    readonly inHeader: boolean;
    /**
     * @param before text of the header before the opener.
     * @param written text after the opener in the token that completed it, if the opener is a pattern.
     */
    readonly steps: (before: string, written: string) => readonly Step[];
  };
  readonly forbidden: Forbidden;
}

/** Text that a free answer must not contain. */
export interface Forbidden {
  /** Framing tokens. */
  readonly tokens: readonly string[];
  /** Regardless of how it is tokenised. */
  readonly text?: string;
  /** Where the text is forbidden: everywhere, in a message header (harmony), or at the start of the answer. */
  readonly where?: 'anywhere' | 'header' | 'start';
}

export const nothingForbidden: Forbidden = { tokens: [] };
export const freeAnswer: AnswerPlan = { steps: [], forbidden: nothingForbidden };

/** Which tools may be called, whether one must be, and whether a call ends the turn. */
export function wantedCalls({ tools = [], toolChoice = 'auto', parallelToolCalls = true }: PromptOptions): {
  readonly tools: readonly Tool[];
  readonly required: boolean;
  readonly afterCall: readonly Step[];
} {
  const isNamed = typeof toolChoice !== 'string';
  const required = isNamed || (toolChoice === 'required' && tools.length > 0);
  const named = isNamed ? tools.filter(({ name }) => name === toolChoice.name) : tools;
  // After a forced call, a model continues with what it would have written: an invented result, or more calls.
  const afterCall: readonly Step[] = required || !parallelToolCalls ? [{ kind: 'end' }] : [];
  return { tools: toolChoice === 'none' ? [] : named, required, afterCall };
}

/** The parts of a constrained answer; empty if it is free. */
export function answerSteps({ responseFormat }: Pick<PromptOptions, 'responseFormat'>): readonly Step[] {
  if (responseFormat === undefined || responseFormat.kind === 'text') return [];
  if (responseFormat.kind === 'choice') {
    const form = responseFormat.choices.map((text) => [literal(text)]);
    return [{ kind: 'choose', grammar: { form, last: true } }];
  }
  return [jsonAnswer(responseFormat.kind === 'json' ? { type: 'object' } : responseFormat.schema)];
}

/** Tools are shown, but none may be called. */
export const callsNothing = (options: PromptOptions): boolean =>
  (options.tools ?? []).length > 0 && wantedCalls(options).tools.length === 0;

function jsonAnswer(schema: unknown): Step {
  return { kind: 'choose', grammar: { form: [[{ kind: 'json', schema }]], last: true } };
}

/**
 * A tool's name and the text after it, then its arguments and the text after them.
 * @param written the part of the name that is already written.
 */
export function callSteps(
  tools: readonly Tool[],
  afterName: string,
  afterArguments: string,
  written = '',
): readonly Step[] {
  const possible = tools.filter(({ name }) => name.startsWith(written));
  if (possible.length === 0) return [];
  const call = ({ parameters }: Tool): readonly Step[] => [
    {
      kind: 'choose',
      grammar: {
        form: [
          [
            { kind: 'json', schema: argumentsSchema(parameters) },
            ...(afterArguments === '' ? [] : [literal(afterArguments)]),
          ],
        ],
      },
    },
  ];
  return [chooseName(possible, afterName, call, written)];
}

/** Qwen3-Coder's format: a tag for each parameter, in the schema's order. */
export function xmlCallSteps(tools: readonly Tool[]): readonly Step[] {
  const write: Step = { kind: 'write', text: '\n<function=' };
  return [write, chooseName(tools, '>\n', (tool) => parameterSteps(tool, Object.keys(argumentTypes(tool)), xmlTags))];
}

/** MiniMax's format. */
export function invokeCallSteps(tools: readonly Tool[]): readonly Step[] {
  const write: Step = { kind: 'write', text: '\n<invoke name="' };
  return [
    write,
    chooseName(tools, '">\n', (tool) => parameterSteps(tool, Object.keys(argumentTypes(tool)), invokeTags)),
  ];
}

/** GLM's format: a key and a value for each parameter, in the schema's order. `dense`: without line feeds. */
export function keyedCallSteps(tools: readonly Tool[], dense = false): readonly Step[] {
  const names = (tool: Tool) => Object.keys(argumentTypes(tool));
  if (!dense) return [chooseName(tools, '\n', (tool) => parameterSteps(tool, names(tool), keyedTags))];
  // The tag after a name distinguishes it from longer names.
  const choices = tools.flatMap((tool) =>
    nextTags(tool, names(tool), denseTags).map((next) => ({ ...next, text: tool.name + next.text })),
  );
  return [chooseTag(choices)];
}

/** Mistral's calls of tokenizers before v11: a list, closed after the first call if `single`. */
function listedCallSteps(tools: readonly Tool[], single: boolean): readonly Step[] {
  const named: readonly Step[] = callSteps(tools, '", "arguments": ', '');
  const end: Step = {
    kind: 'choose',
    grammar: { form: [[literal('}]')], ...(single ? [] : [[literal(`}, ${bareStart}`)]])] },
    follow: (text) => (text.startsWith('}]') ? [] : [...named, end]),
  };
  return [{ kind: 'write', text: `[${bareStart}` }, ...named, end];
}

/** The tags of a parameter and of the call's end. */
interface ParameterTags {
  readonly start: (name: string) => string;
  readonly beforeEnd: string;
  readonly end: string;
  readonly afterEnd: string;
  readonly callEnd: string;
}

const xmlTags: ParameterTags = {
  start: (name) => `<parameter=${name}>\n`,
  beforeEnd: '\n',
  end: '</parameter>',
  afterEnd: '\n',
  callEnd: '</function>\n</tool_call>',
};

const invokeTags: ParameterTags = {
  start: (name) => `<parameter name="${name}">`,
  beforeEnd: '',
  end: '</parameter>',
  afterEnd: '\n',
  callEnd: '</invoke>\n</minimax:tool_call>',
};

const keyedTags: ParameterTags = {
  start: (name) => `<arg_key>${name}</arg_key>\n<arg_value>`,
  beforeEnd: '',
  end: '</arg_value>',
  afterEnd: '\n',
  callEnd: '</tool_call>',
};

const denseTags: ParameterTags = {
  ...keyedTags,
  start: (name) => `<arg_key>${name}</arg_key><arg_value>`,
  afterEnd: '',
};

function chooseName(tools: readonly Tool[], after: string, then: (tool: Tool) => readonly Step[], written = ''): Step {
  return {
    kind: 'choose',
    grammar: { form: tools.map(({ name }) => [literal(name.slice(written.length) + after)]) },
    follow: (text) => {
      const tool = tools.find(({ name }) => (written + text).startsWith(name + after.replaceAll('\r', '')));
      return tool ? then(tool) : [];
    },
  };
}

/** A tag, and the steps that follow it. */
interface NextTag {
  readonly text: string;
  readonly follow: () => readonly Step[];
}

function nextTags(tool: Tool, left: readonly string[], tags: ParameterTags): NextTag[] {
  const { required } = tool.parameters;
  const needed = left.findIndex((name) => Array.isArray(required) && required.includes(name));
  const starts = (needed < 0 ? left : left.slice(0, needed + 1)).map((name, i) => ({
    text: tags.start(name),
    follow: () => [parameterValue(tool, name, tags), ...parameterSteps(tool, left.slice(i + 1), tags)],
  }));
  return needed < 0 ? [...starts, { text: tags.callEnd, follow: () => [] }] : starts;
}

const chooseTag = (choices: readonly NextTag[]): Step => ({
  kind: 'choose',
  grammar: { form: choices.map(({ text }) => [literal(text)]) },
  follow: (written) => choices.find(({ text }) => written.startsWith(text.trimEnd()))?.follow() ?? [],
});

const parameterSteps = (tool: Tool, left: readonly string[], tags: ParameterTags): readonly Step[] => [
  chooseTag(nextTags(tool, left, tags)),
];

function parameterValue(tool: Tool, name: string, tags: ParameterTags): Step {
  const { schema, isText } = argumentTypes(tool)[name] ?? { schema: {}, isText: true };
  const end = literal(tags.beforeEnd + tags.end + tags.afterEnd);
  const values = isText && 'enum' in schema && Array.isArray(schema['enum']) ? schema['enum'].map(String) : undefined;
  const form: Form = values
    ? values.map((value) => [literal(value), end])
    : [[isText ? { kind: 'without', tag: tags.end } : { kind: 'json', schema: withDefinitions(schema, tool) }, end]];
  return { kind: 'choose', grammar: { form } };
}

function withDefinitions(schema: Readonly<Record<string, unknown>>, { parameters }: Tool): unknown {
  const { $defs, definitions } = parameters;
  return {
    ...schema,
    ...($defs === undefined ? {} : { $defs }),
    ...(definitions === undefined ? {} : { definitions }),
  };
}

/**
 * Arguments are an object even if the schema doesn't say so. If it only lists properties, others are forbidden: the
 * tool couldn't use them.
 */
function argumentsSchema(parameters: Tool['parameters']): unknown {
  const { properties, required } = parameters;
  const open = [
    'additionalProperties',
    'unevaluatedProperties',
    'patternProperties',
    '$ref',
    'allOf',
    'anyOf',
    'oneOf',
    'if',
  ];
  const named = typeof properties === 'object' && properties !== null ? Object.keys(properties) : undefined;
  const needed: readonly unknown[] = Array.isArray(required) ? required : [];
  const closed =
    named && !open.some((key) => key in parameters) && needed.every((name) => named.includes(String(name)));
  return { ...parameters, type: 'object', ...(closed && { additionalProperties: false }) };
}

export const literal = (text: string): Part => ({ kind: 'literal', text });

/** A framing token in a grammar. */
export function marked(name: string): string {
  return `\r${name}`;
}

// Plans for formats that write thinking and calls as text between tags.

interface TaggedState {
  readonly thinks: boolean;
  /** The prompt has opened the thinking. */
  readonly insideThinking: boolean;
}

export function taggedPlan(syntax: ToolSyntax, options: PromptOptions, state: TaggedState): AnswerPlan {
  const { tools, required, afterCall } = wantedCalls(options);
  const { open, close, kind, argumentsKey } = syntax;
  const named = (written = ''): readonly Step[] =>
    callSteps(tools, `", "${argumentsKey}": `, open === '' ? '}' : `}\n${close}`, written);
  const json = (): readonly Step[] => [{ kind: 'write', text: open === '' ? bareStart : `\n${bareStart}` }, ...named()];
  const callOf: Record<ToolSyntax['kind'], () => readonly Step[]> = {
    json,
    xml: () => xmlCallSteps(tools),
    invoke: () => invokeCallSteps(tools),
    keyed: () => keyedCallSteps(tools, syntax.dense),
    named: () => callSteps(tools, '[ARGS]', ''),
    listed: () => listedCallSteps(tools, afterCall.length > 0),
  };
  const call = (): readonly Step[] => [...callOf[kind](), ...afterCall];
  const bare = (written: string): readonly Step[] => {
    const steps = named(written);
    return steps.length > 0 ? [...steps, { kind: 'end' }] : [];
  };
  const opened: readonly Step[] = open === '' ? [] : [{ kind: 'write', text: open }];
  const answer = required ? [...opened, ...call()] : answerSteps(options);
  return {
    steps: answer.length > 0 && (state.thinks || state.insideThinking) ? [...thinking(state), ...answer] : answer,
    ...(tools.length > 0 && {
      calls:
        open === ''
          ? { opener: bareOpener, inHeader: false, steps: (_, written) => bare(written) }
          : { opener: open, inHeader: false, steps: call },
    }),
    forbidden: callsNothing(options) ? noCall(open) : nothingForbidden,
  };
}

const bareStart = '{"name": "';
const bareOpener = /^\s*\{\s*"name"\s*:\s*"/;

/** A bare call is the whole answer. */
const noCall = (open: string): Forbidden =>
  open === '' ? { tokens: [], text: '{"name":', where: 'start' } : { tokens: [open], text: open };

/** If the prompt doesn't open the thinking, the answer does. */
function thinking({ insideThinking }: TaggedState): readonly Step[] {
  const open: readonly Step[] = insideThinking ? [] : [{ kind: 'write', text: '<think>\n' }];
  return [...open, { kind: 'think' }, { kind: 'write', text: '\n\n' }];
}
