/**
 * Encodes a conversation so that only the template's own framing becomes framing tokens. `<|im_end|>` in a user's
 * message or a file stays text.
 *
 * A template is a program that trims, tests and joins its input, so the output doesn't show where a character came
 * from. Therefore every character of the conversation that starts or ends a framing token (`<`, `>` and others that the
 * vocabulary uses) is replaced by an unused code point before the template runs, and restored after the output is split
 * at framing tokens. No framing token can then start or end with a character of the conversation, whatever the template
 * does. Lengths, whitespace and line ends, which templates test, are unchanged. Templates that look for tags in a message
 * (`'</think>' in content`) don't find them; thinking in an assistant's message is passed as its own field.
 *
 * Text between two framing tokens is encoded as one string, so that the ids equal those of transformers'
 * `apply_chat_template` if the conversation contains no framing tokens.
 */
import { HearthError, invalidInput } from '../../errors.ts';
import { type PromptPart, runWhole, type Sliced, type Tokenizer } from '../../tokenizer/tokenizer.ts';
import { type ChatMessage, type Tool, toolNames } from '../conversation.ts';
import { ThinkingSplitter } from '../thinking.ts';
import type { ChatTemplate, TemplateMessage, TemplateOptions } from './chatTemplate.ts';
import { type ToolSyntax, templateCall, templateCallId, templateTool, withoutToolRoles } from './chatTemplate.ts';

export interface ChatOptions extends Omit<TemplateOptions, 'messages' | 'bosToken' | 'eosToken'> {
  readonly tools?: readonly Tool[];
  readonly toolSyntax?: ToolSyntax;
}

export interface EncodedChat {
  readonly ids: number[];
  /** The last characters of the rendered text; `<` and `>` of the conversation are replaced. */
  readonly ending: string;
}

/** @throws HearthError `invalid-input` if the template refuses the conversation, fails, or exceeds a limit. */
export const encodeChat = (...given: Parameters<typeof encodeChatSliced>): EncodedChat =>
  runWhole(encodeChatSliced(...given));

/** `encodeChat` with pauses between messages and between texts; the template runs without pauses. */
export function* encodeChatSliced(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: ChatOptions,
): Sliced<EncodedChat> {
  const { tools = [], toolSyntax, ...rest } = options;
  const inTemplate = toolSyntax?.inTemplate !== false;
  const turns = inTemplate ? messages : withoutToolRoles(messages, tools);
  const names = toolNames(messages);
  const conversation = yield* eachSliced(turns, (turn) => templateMessage(turn, names, toolSyntax));
  const shownTools = inTemplate && tools.length > 0 ? { tools: tools.map(templateTool) } : {};
  const variables = { ...options.variables, ...shownTools };
  const disguise = new Disguise(tokenizer, [conversation, variables, template.source]);
  yield;
  const disguised = yield* eachSliced(conversation, ({ role, content, ...fields }) => ({
    role,
    content: disguise.put(content ?? ''),
    ...disguise.fields(fields),
  }));
  const text = renderNearest(disguised, (turns) =>
    template.render({
      ...rest,
      variables: disguise.fields(variables),
      messages: turns,
      bosToken: tokenizer.templateTokens.begin,
      eosToken: tokenizer.templateTokens.end,
    }),
  );
  yield;
  const parts = yield* eachSliced(
    tokenizer.split(text),
    (part): PromptPart => (typeof part === 'number' ? part : disguise.lift(part)),
  );
  return { ids: yield* tokenizer.encodeSliced(parts), ending: text.slice(-64) };
}

function* eachSliced<From, To>(items: readonly From[], change: (item: From) => To): Sliced<To[]> {
  const changed: To[] = [];
  for (const item of items) {
    yield;
    changed.push(change(item));
  }
  return changed;
}

function templateMessage(
  message: ChatMessage,
  names: ReadonlyMap<string, string>,
  syntax: ToolSyntax | undefined,
): TemplateMessage {
  const { role, content } = message;
  if (role === 'tool') {
    // Llama 3 and Mistral read the name; most templates ignore it.
    const { toolCallId: id } = message;
    return { role, content, name: names.get(id) ?? '', tool_call_id: templateCallId(id, syntax ?? {}) };
  }
  if (role !== 'assistant') return { role, content };
  const { toolCalls = [] } = message;
  const calls =
    toolCalls.length > 0
      ? { tool_calls: toolCalls.map((call) => templateCall(call, syntax ?? { given: 'json' })) }
      : {};
  const { thinking, answer } =
    message.thinking === undefined ? splitThinking(content) : { ...message, answer: content };
  // Qwen3 reads `reasoning_content`, GPT-OSS `thinking`.
  const thought = thinking ? { reasoning_content: thinking, thinking } : {};
  return { role, content: answer, ...thought, ...calls };
}

/** Clients without support for thinking send it back in the message. */
function splitThinking(content: string): { thinking?: string; answer: string } {
  if (!/^\s*<think>/.test(content) || !content.includes('</think>')) return { answer: content };
  const splitter = new ThinkingSplitter();
  const pieces = [...splitter.push(content), ...splitter.end()];
  const join = (kind: string): string =>
    pieces
      .filter((piece) => piece.kind === kind)
      .map((piece) => piece.text)
      .join('');
  return { thinking: join('thinking'), answer: join('text') };
}

/** Replaces the characters that framing tokens start or end with. */
class Disguise {
  readonly #masks = new Map<string, string>();
  readonly #faces = new Map<string, string>();

  constructor(tokenizer: Tokenizer, conversation: unknown) {
    const text = JSON.stringify(conversation) + [...tokenizer.framing.keys()].join('');
    const free = unusedCodePoints(text);
    for (const token of tokenizer.framing.keys()) {
      const characters = [...token];
      for (const character of [characters[0], characters.at(-1)]) {
        // Templates trim whitespace, so a whitespace token is not framing.
        if (character === undefined || this.#masks.has(character) || /\s/u.test(character)) continue;
        const mask = free.next().value;
        if (mask === undefined) throw invalidInput('The conversation uses every private character there is.');
        this.#masks.set(character, mask);
        this.#faces.set(mask, character);
      }
    }
  }

  /** Fields keep their names. */
  fields(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
    return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, this.#deep(value)]));
  }

  put(text: string): string {
    return exchange(text, this.#masks);
  }

  lift(text: string): string {
    return exchange(text, this.#faces);
  }

  #deep(value: unknown): unknown {
    if (typeof value === 'string') return this.put(value);
    if (Array.isArray(value)) return value.map((item) => this.#deep(item));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [this.put(key), this.#deep(item)]));
  }
}

function exchange(text: string, pairs: ReadonlyMap<string, string>): string {
  if (pairs.size === 0) return text;
  const pattern = new RegExp([...pairs.keys()].map(codePointPattern).join('|'), 'gu');
  return text.replace(pattern, (character) => pairs.get(character) ?? character);
}

function codePointPattern(character: string): string {
  return `\\u{${character.codePointAt(0)?.toString(16)}}`;
}

/** Noncharacters, which no text should contain, then private-use ones, which icon fonts use. */
function* unusedCodePoints(text: string): Generator<string, undefined> {
  for (const [first, last] of [
    [0xfdd0, 0xfdef],
    [0xe000, 0xf8ff],
  ] as const) {
    for (let code = first; code <= last; code++) {
      const character = String.fromCharCode(code);
      if (!text.includes(character)) yield character;
    }
  }
  return undefined;
}

// Rewrites conversations for templates that accept only some role orders, like the publishers' code.

/** Separates texts that are merged into one turn (`mistral_common`'s normaliser, Gemma's documentation). */
const between = '\n\n';

/**
 * Renders the conversation. If the template refuses it, renders the nearest one that it accepts: first with all
 * instructions in one system turn and consecutive turns of a role merged, then with the instructions in the first
 * question.
 * @throws HearthError the template's first error if it refuses all of them.
 */
export function renderNearest(
  messages: readonly TemplateMessage[],
  render: (messages: readonly TemplateMessage[]) => string,
): string {
  let refusal: HearthError | undefined;
  const merged = withMergedTurns(messages);
  for (const turns of [messages, merged, withoutSystem(merged)]) {
    try {
      return render(turns);
    } catch (error) {
      if (!(error instanceof HearthError)) throw error;
      refusal ??= error;
    }
  }
  throw refusal;
}

function withMergedTurns(messages: readonly TemplateMessage[]): TemplateMessage[] {
  const instructions = messages.filter(({ role }) => role === 'system').map(({ content }) => textOf(content));
  const system = instructions.length > 0 ? [{ role: 'system', content: instructions.join(between) }] : [];
  return [...system, ...joinedTurns(messages.filter(({ role }) => role !== 'system'))];
}

function joinedTurns(messages: readonly TemplateMessage[]): TemplateMessage[] {
  const turns: TemplateMessage[] = [];
  for (const message of messages) {
    const last = turns.at(-1);
    if (last === undefined || !isPlain(last) || !isPlain(message) || last.role !== message.role) turns.push(message);
    else turns[turns.length - 1] = { ...last, ...message, content: joined(last, message) };
  }
  return turns;
}

/** The instructions go before the first question. */
function withoutSystem(messages: readonly TemplateMessage[]): TemplateMessage[] {
  const [system, ...turns] = messages;
  if (system?.role !== 'system') return [...messages];
  const at = turns.findIndex(({ role }) => role === 'user');
  const question = turns[at];
  if (question === undefined) return [{ ...system, role: 'user' }, ...turns];
  return turns.with(at, { ...question, content: joined(system, question) });
}

/** Calls and their results stay separate turns. */
const isPlain = ({ role, tool_calls: calls }: TemplateMessage): boolean =>
  (role === 'user' || role === 'assistant') && calls === undefined;

const joined = (first: TemplateMessage, second: TemplateMessage): string =>
  [first, second]
    .map(({ content }) => textOf(content))
    .filter((text) => text !== '')
    .join(between);

const textOf = (content: unknown): string => (typeof content === 'string' ? content : '');
