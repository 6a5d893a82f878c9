/** A conversation as the input of every prompt format, and the pieces of its answer. */
import { invalidInput } from '../errors.ts';
import type { ResponseFormat } from './formats/promptFormat.ts';

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
}

export type ChatMessage =
  | { readonly role: 'system' | 'user'; readonly content: string }
  | {
      readonly role: 'assistant';
      readonly content: string;
      /** The thinking before `content`. Most formats omit it. */
      readonly thinking?: string | undefined;
      readonly toolCalls?: readonly ToolCall[] | undefined;
    }
  | { readonly role: 'tool'; readonly toolCallId: string; readonly content: string };

export interface Tool {
  readonly name: string;
  readonly description: string;
  /** JSON Schema of the arguments, which form an object. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** The tool that each call of the conversation names, by the call's id. */
export function toolNames(messages: readonly ChatMessage[]): ReadonlyMap<string, string> {
  const calls = messages.flatMap((message) => (message.role === 'assistant' ? (message.toolCalls ?? []) : []));
  return new Map(calls.map(({ id, name }) => [id, name]));
}

/** Id of a call; calls are numbered throughout a conversation. */
export function callId(number: number): string {
  return `call_${number}`;
}

/** The first number that no call of the conversation has. */
export function firstFreeCall(messages: readonly ChatMessage[]): number {
  const numbers = [...toolNames(messages).keys()].map((id) => Number(/^call_(\d{1,9})$/.exec(id)?.[1] ?? 0));
  return 1 + numbers.reduce((a, b) => Math.max(a, b), 0);
}

/** @throws HearthError `invalid-input` if the arguments aren't a JSON object. */
export function argumentsOf({ name, arguments: json }: ToolCall): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    value = undefined;
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw invalidInput(`The arguments of the call to '${name}' are not a JSON object; remove the call.`);
}

/** The parameters of a tool by name, and which of them a format without quotes writes as text. */
export function argumentTypes({
  parameters,
}: Tool): Record<string, { readonly schema: Readonly<Record<string, unknown>>; readonly isText: boolean }> {
  const { properties } = parameters;
  if (typeof properties !== 'object' || properties === null) return {};
  return Object.fromEntries(
    Object.entries(properties).map(([name, value]: [string, unknown]) => {
      const schema = typeof value === 'object' && value !== null ? { ...value } : {};
      return [name, { schema, isText: isText(schema) }];
    }),
  );
}

/** A parameter without a type is text, like most parameters. */
function isText(schema: Readonly<Record<string, unknown>>): boolean {
  const { type, enum: values, const: value } = schema;
  if (type !== undefined) return type === 'string';
  if (Array.isArray(values)) return values.every((item) => typeof item === 'string');
  if (value !== undefined) return typeof value === 'string';
  return !['anyOf', 'oneOf', 'allOf', '$ref', 'properties', 'items'].some((key) => key in schema);
}

// Message boundaries.

/**
 * Prefix lengths at which a message of the prompt ends, ascending; the last is the whole prompt. Later prompts diverge at
 * one of them if a turn is edited, repeated or rendered differently.
 * @param ends ids that end a message.
 */
export function messageBoundaries(ids: readonly number[], ends: ReadonlySet<number>): number[] {
  const boundaries = ids.flatMap((id, i) => (ends.has(id) ? [i + 1] : []));
  return boundaries.at(-1) === ids.length ? boundaries : [...boundaries, ids.length];
}

// The required format of an answer. It is enforced, and also stated in the prompt, because a model that doesn't know
// the format answers worse.

/** At the end of the last question: changing text goes last for the cache, and small models follow the last text best. */
export function withStatedFormat(
  messages: readonly ChatMessage[],
  format: ResponseFormat | undefined,
): readonly ChatMessage[] {
  const words = format === undefined ? '' : statement(format);
  const last = messages.findLastIndex(({ role }) => role === 'user');
  if (words === '' || last < 0) return messages;
  return messages.map((message, i) =>
    i === last ? { ...message, content: message.content === '' ? words : `${message.content}\n\n${words}` } : message,
  );
}

function statement(format: ResponseFormat): string {
  if (format.kind === 'text') return '';
  if (format.kind === 'json') return 'Answer with a JSON object and nothing else.';
  if (format.kind === 'choice') return `Answer with one of these, and nothing else:\n${format.choices.join('\n')}`;
  return `Answer with JSON that follows this JSON Schema, and nothing else:\n${JSON.stringify(format.schema)}`;
}

/** GPT-OSS's section, at the end of the developer message (openai/harmony, docs/format.md, "Structured output"). */
export function harmonyFormatSection(format: ResponseFormat | undefined): string {
  if (format === undefined || format.kind === 'text') return '';
  const schema =
    format.kind === 'json' ? { type: 'object' } : format.kind === 'choice' ? { enum: format.choices } : format.schema;
  return `# Response Formats\n\n## answer\n\n${JSON.stringify(schema)}`;
}

// The pieces of a streamed answer.

export type OutputPiece =
  | {
      readonly kind: 'text' | 'thinking';
      /** Never empty. */
      readonly text: string;
    }
  | {
      readonly kind: 'tool-call';
      /** Index of the call in this answer. */
      readonly index: number;
      readonly name: string;
      /** The next characters of its arguments' JSON; may be empty in the first piece. */
      readonly text: string;
    };

/** Parses generated text. Malformed output becomes text, never an exception. */
export interface OutputParser {
  /** Whether the next text would be thinking. */
  readonly isThinking: boolean;
  push(id: number): OutputPiece[];
  end(): OutputPiece[];
}

/** One piece, or none for empty text. */
export function piece(kind: 'text' | 'thinking', text: string): OutputPiece[] {
  return text === '' ? [] : [{ kind, text }];
}
