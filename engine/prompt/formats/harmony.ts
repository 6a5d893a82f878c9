/**
 * GPT-OSS's prompts (openai/harmony, docs/format.md). The checkpoint's template differs from that document: it writes
 * `commentary json` where the document has ` <|constrain|>json`, puts a call's recipient before its channel, and ends
 * the instructions with a blank line. Hearth follows the document, which agrees with the publisher's renderer and with
 * the model's own output, so that each turn's prompt continues the previous one.
 */
import { type PromptPart, runWhole, type Sliced, type Tokenizer } from '../../tokenizer/tokenizer.ts';
import { type ChatMessage, harmonyFormatSection, messageBoundaries, type Tool, toolNames } from '../conversation.ts';
import { ChannelParser } from '../parsers/channels.ts';
import {
  type AnswerPlan,
  answerSteps,
  callSteps,
  callsNothing,
  literal,
  marked,
  nothingForbidden,
  type Step,
  wantedCalls,
} from '../plans/answerPlan.ts';
import { nearestThinkingMode, type ThinkingMode } from '../thinking.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from './promptFormat.ts';

export interface HarmonyMessage {
  /** `system`, `developer`, `user`, `assistant`, or a tool's name. */
  readonly author: string;
  readonly recipient?: string;
  /** Position of the recipient in the header; the document shows both. */
  readonly recipientIn?: 'author' | 'channel';
  readonly channel?: 'analysis' | 'commentary' | 'final';
  /** Content type; `json` follows `<|constrain|>`. */
  readonly type?: 'json';
  readonly text: string;
}

export interface HarmonySystem {
  readonly effort: 'low' | 'medium' | 'high';
  /** `YYYY-MM-DD` */
  readonly date?: string;
  readonly knowledgeCutoff?: string;
  readonly channels?: readonly string[];
  readonly functions: boolean;
}

export class HarmonyFormat implements PromptFormat {
  readonly toolCalling = true;
  readonly thinkingModes: readonly ThinkingMode[] = ['low', 'medium', 'high'];
  readonly #tokenizer: Tokenizer;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  render(messages: readonly ChatMessage[], options: PromptOptions): ChatPrompt {
    return runWhole(this.renderSliced(messages, options));
  }

  *renderSliced(messages: readonly ChatMessage[], options: PromptOptions): Sliced<ChatPrompt> {
    const tokenizer = this.#tokenizer;
    const { tools = [] } = options;
    const mode = nearestThinkingMode(options.thinking, this.thinkingModes);
    const system: HarmonyMessage = {
      author: 'system',
      text: systemText({
        effort: mode === 'low' || mode === 'high' ? mode : 'medium',
        date: localDate(options.now),
        functions: tools.length > 0,
      }),
    };
    const firstTurn = messages.findIndex(({ role }) => role !== 'system');
    const turns = firstTurn < 0 ? [] : messages.slice(firstTurn);
    const instructions = messages.slice(0, firstTurn < 0 ? messages.length : firstTurn).map(({ content }) => content);
    const format = harmonyFormatSection(options.responseFormat);
    const developer = developerText(instructions.join('\n\n'), tools, format);
    const history = [
      system,
      ...(developer === '' ? [] : [{ author: 'developer', text: developer }]),
      ...withoutOldAnalysis(harmonyMessages(turns)),
    ];
    const ids = yield* tokenizer.encodeSliced([...harmonyParts(tokenizer, history), ...assistantStart(tokenizer)]);
    const mark = marksOf(tokenizer);
    return {
      ids,
      boundaries: turnBoundaries(history, messageBoundaries(ids, new Set([mark('<|end|>'), mark('<|call|>')]))),
      stops: tokenizer.endIds,
      stopStrings: [],
      closeThinking: tokenizer.encode(wantedCalls(options).required ? '<|end|>' : `<|end|>${answerStart}`, {
        special: 'parse',
      }),
      plan: harmonyPlan(options),
      parser: () => new ChannelParser(tokenizer, wantedCalls(options).tools),
    };
  }
}

/**
 * The message ends around user messages. Later prompts may diverge there: when a turn is edited, or when its answer is
 * rendered without its thinking.
 */
function turnBoundaries(history: readonly HarmonyMessage[], ends: readonly number[]): number[] {
  const isUser = (message: HarmonyMessage | undefined): boolean => message?.author === 'user';
  return ends.filter((_, i) => i === history.length || isUser(history[i]) || isUser(history[i + 1]));
}

export function systemText(system: HarmonySystem): string {
  const { effort, date, knowledgeCutoff = '2024-06', channels = ['analysis', 'commentary', 'final'] } = system;
  const dates = [`Knowledge cutoff: ${knowledgeCutoff}`, ...(date === undefined ? [] : [`Current date: ${date}`])];
  const calls = system.functions ? "\nCalls to these tools must go to the commentary channel: 'functions'." : '';
  return `You are ChatGPT, a large language model trained by OpenAI.
${dates.join('\n')}

Reasoning: ${effort}

# Valid channels: ${channels.join(', ')}. Channel must be included for every message.${calls}`;
}

/** Empty without instructions and tools. */
export function developerText(instructions: string, tools: readonly Tool[], responseFormat = ''): string {
  const sections = [
    ...(instructions === '' ? [] : [`# Instructions\n\n${instructions}`]),
    ...(tools.length === 0 ? [] : [toolsSection(tools)]),
    ...(responseFormat === '' ? [] : [responseFormat]),
  ];
  return sections.join('\n\n');
}

export function harmonyParts(tokenizer: Tokenizer, messages: readonly HarmonyMessage[]): PromptPart[] {
  const mark = marksOf(tokenizer);
  return messages.flatMap(({ author, recipient, recipientIn = 'channel', channel, type, text }) => {
    const to = recipient === undefined ? '' : ` to=${recipient}`;
    const head = channel === undefined || recipientIn === 'author' ? author + to : author;
    const kind = channel === undefined ? [] : [mark('<|channel|>'), recipientIn === 'author' ? channel : channel + to];
    const constraint = type === undefined ? [] : [' ', mark('<|constrain|>'), type];
    const end = author === 'assistant' && recipient !== undefined ? '<|call|>' : '<|end|>';
    return [mark('<|start|>'), head, ...kind, ...constraint, mark('<|message|>'), text, mark(end)];
  });
}

export function assistantStart(tokenizer: Tokenizer): PromptPart[] {
  return [marksOf(tokenizer)('<|start|>'), 'assistant'];
}

/**
 * Drops the thinking of completed turns, like the document and the checkpoint's template; the publisher's renderer
 * keeps it from the second answer on. Keeps it around calls that still wait for an answer.
 */
export function withoutOldAnalysis(messages: readonly HarmonyMessage[]): HarmonyMessage[] {
  const kept: HarmonyMessage[] = [];
  let isLastTurn = true;
  let isAnswered = false;
  for (const message of messages.toReversed()) {
    if (message.author === 'user') [isLastTurn, isAnswered] = [false, false];
    else if (message.channel === 'final') isAnswered = true;
    if (message.channel !== 'analysis' || isLastTurn || !isAnswered) kept.push(message);
  }
  return kept.reverse();
}

function harmonyMessages(messages: readonly ChatMessage[]): HarmonyMessage[] {
  const names = toolNames(messages);
  return messages.flatMap((message) => {
    if (message.role === 'assistant') return assistantMessages(message);
    if (message.role === 'tool') return [toolMessage(message, names)];
    const { role, content } = message;
    return [
      role === 'user' ? { author: role, text: content } : { author: 'developer', text: developerText(content, []) },
    ];
  });
}

function toolMessage(
  { toolCallId, content }: Extract<ChatMessage, { readonly role: 'tool' }>,
  names: ReadonlyMap<string, string>,
): HarmonyMessage {
  const author = `functions.${names.get(toolCallId) ?? 'unknown'}`;
  return { author, recipient: 'assistant', recipientIn: 'author', channel: 'commentary', text: content };
}

function assistantMessages(message: Extract<ChatMessage, { readonly role: 'assistant' }>): HarmonyMessage[] {
  const { content, thinking = '', toolCalls = [] } = message;
  const said = { author: 'assistant', channel: toolCalls.length > 0 ? 'commentary' : 'final', text: content } as const;
  const calls = toolCalls.map((call) => ({
    author: 'assistant',
    recipient: `functions.${call.name}`,
    channel: 'commentary' as const,
    type: 'json' as const,
    text: call.arguments,
  }));
  return [
    ...(thinking === '' ? [] : [{ author: 'assistant', channel: 'analysis' as const, text: thinking }]),
    ...(content === '' && toolCalls.length > 0 ? [] : [said]),
    ...calls,
  ];
}

function marksOf(tokenizer: Tokenizer): (name: string) => number {
  return (name) => {
    const id = tokenizer.framing.get(name);
    if (id === undefined) throw new Error(`The vocabulary lacks ${name}.`);
    return id;
  };
}

function localDate(now: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
}

// JSON Schema as the TypeScript-like types that GPT-OSS was trained on (openai/harmony, docs/format.md, "Function calling").

type Schema = Readonly<Record<string, unknown>>;

/** `# Tools` of the developer message. */
function toolsSection(tools: readonly Tool[]): string {
  const functions = tools.map(
    (tool) => `${comment(tool.description)}type ${tool.name} = ${signature(tool)} => any;\n\n`,
  );
  return `# Tools\n\n## functions\n\nnamespace functions {\n\n${functions.join('')}} // namespace functions`;
}

function signature({ parameters }: Tool): string {
  const properties = asSchema(parameters['properties']);
  return properties && Object.keys(properties).length > 0 ? `(_: ${typeOf(parameters, '')})` : '()';
}

function typeOf(schema: Schema, indent: string): string {
  const { type, oneOf, anyOf } = schema;
  const variants = schemasIn(oneOf) ?? schemasIn(anyOf);
  if (variants) return variants.map((variant) => `\n${indent} | ${nullable(variant, `${indent}   `)}`).join('');
  if (Array.isArray(type)) return type.map((name) => typeOf({ ...schema, type: name }, indent)).join(' | ');
  switch (type) {
    case 'object':
      return objectType(schema, indent);
    case 'array':
      return arrayType(schema, indent);
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
    case 'null':
      return type;
    default:
      return enumType(schema) ?? (type === 'string' ? 'string' : 'any');
  }
}

function objectType(schema: Schema, indent: string): string {
  const properties = asSchema(schema['properties']) ?? {};
  const required = Array.isArray(schema['required']) ? schema['required'] : [];
  const members = Object.entries(properties).map(([name, value]) =>
    member(required.includes(name) ? name : `${name}?`, asSchema(value) ?? {}, indent),
  );
  const { description } = schema;
  const heading = typeof description === 'string' ? `${indent}// ${oneLine(description)}\n` : '';
  return `${heading}{\n${members.join('')}${indent}}`;
}

function member(name: string, schema: Schema, indent: string): string {
  const variants = schemasIn(schema['oneOf']);
  return variants
    ? variantMember(name, schema, variants, indent)
    : `${above(schema, indent)}${indent}${name}: ${nullable(schema, `${indent}    `)},${defaultComment(schema)}\n`;
}

/** A union has a line for each of its types, below its default. */
function variantMember(name: string, schema: Schema, variants: readonly Schema[], indent: string): string {
  const { description } = schema;
  const lines = variants.map((variant, i) => {
    const { description: own } = variant;
    const isNew = typeof own === 'string' && own !== description && (i > 0 || typeof description !== 'string');
    const notes = [...(isNew ? [oneLine(own)] : []), ...defaultNote(variant)];
    const note = notes.length > 0 ? ` // ${notes.join(' ')}` : '';
    return `${indent} | ${nullable(variant, `${indent}   `)}${note}\n`;
  });
  const byDefault = defaultNote(schema).map((note) => `${indent}// ${note}\n`);
  return `${above(schema, indent)}${byDefault.join('')}${indent}${name}:\n${lines.join('')}${indent},\n`;
}

/** Title, description and examples, as comments. */
function above(schema: Schema, indent: string): string {
  const { title, description, examples } = schema;
  const lines: string[] = [];
  if (typeof title === 'string') lines.push(title, '');
  if (typeof description === 'string') lines.push(...description.split('\n'));
  if (Array.isArray(examples) && examples.length > 0) {
    lines.push('Examples:', ...examples.map((example) => `- ${JSON.stringify(example)}`));
  }
  return lines.map((line) => `${indent}// ${line}`.trimEnd().concat('\n')).join('');
}

function comment(description: string): string {
  return description === ''
    ? ''
    : description
        .split('\n')
        .map((line) => `// ${line}\n`)
        .join('');
}

function nullable(schema: Schema, indent: string): string {
  const type = typeOf(schema, indent);
  return schema['nullable'] === true && !type.includes('null') ? `${type} | null` : type;
}

function arrayType({ items }: Schema, indent: string): string {
  const schema = asSchema(items);
  return schema ? `${typeOf(schema, indent)}[]` : 'Array<any>';
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ');
}

function enumType({ enum: values }: Schema): string | undefined {
  return Array.isArray(values) && values.length > 0
    ? values.map((value) => JSON.stringify(value)).join(' | ')
    : undefined;
}

function defaultComment(schema: Schema): string {
  return defaultNote(schema)
    .map((note) => ` // ${note}`)
    .join('');
}

/** A name from a list is not quoted. */
function defaultNote(schema: Schema): string[] {
  const { default: value } = schema;
  if (value === undefined) return [];
  return [`default: ${typeof value === 'string' && schema['enum'] !== undefined ? value : JSON.stringify(value)}`];
}

function asSchema(value: unknown): Schema | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined;
}

function schemasIn(value: unknown): readonly Schema[] | undefined {
  return Array.isArray(value) && value.length > 0 ? value.map((item) => asSchema(item) ?? {}) : undefined;
}

// The plan of GPT-OSS's answers.

/** Starts the answer after another message. */
const answerStart = '<|start|>assistant<|channel|>final<|message|>';

function harmonyPlan(options: PromptOptions): AnswerPlan {
  const { tools, required } = wantedCalls(options);
  const afterName = `${' '}${marked('<|constrain|>')}json${marked('<|message|>')}`;
  // It ends the turn, so a grammar must not accept it.
  const end: Step = { kind: 'write', text: '<|call|>' };
  const named = (after: string): readonly Step[] => [...callSteps(tools, after, ''), end];
  const call = '<|channel|>commentary to=functions.';
  const answer: readonly Step[] = required ? named(afterName) : answerSteps(options);
  const start = required ? call : '<|channel|>final<|message|>';
  return {
    steps: answer.length > 0 ? [thoughtOr(start, answer)] : [],
    ...(tools.length > 0 && {
      calls: {
        opener: ' to=',
        inHeader: true,
        // The recipient may stand before the channel as well.
        steps: (before) => [
          { kind: 'write', text: 'functions.' },
          ...named(before.includes('<|channel|>') ? afterName : `${marked('<|channel|>')}commentary${afterName}`),
        ],
      },
    }),
    forbidden: callsNothing(options)
      ? { tokens: ['<|call|>', '<|constrain|>'], text: ' to=', where: 'header' }
      : nothingForbidden,
  };
}

/** The first message: an analysis followed by the answer, or the answer alone. */
function thoughtOr(start: string, answer: readonly Step[]): Step {
  const analysis = `${marked('<|channel|>')}analysis${marked('<|message|>')}`;
  const direct = start.replace(/<\|\w+\|>/g, (name) => marked(name));
  return {
    kind: 'choose',
    grammar: { form: [[literal(analysis)], [literal(direct)]] },
    follow: (text) =>
      text.startsWith('<|channel|>analysis')
        ? [{ kind: 'think' }, { kind: 'write', text: `<|start|>assistant${start}` }, ...answer]
        : answer,
  };
}
