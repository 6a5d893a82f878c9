/** A conversation as every prompt format is given it. */
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
      /** What it thought before it said `content`. Most formats leave it out. */
      readonly thinking?: string | undefined;
      readonly toolCalls?: readonly ToolCall[] | undefined;
    }
  | { readonly role: 'tool'; readonly toolCallId: string; readonly content: string };

export interface Tool {
  readonly name: string;
  readonly description: string;
  /** JSON Schema of the arguments, an object's. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** The tool that each call of the conversation names, by the call's id. */
export function toolNames(messages: readonly ChatMessage[]): ReadonlyMap<string, string> {
  const calls = messages.flatMap((message) => (message.role === 'assistant' ? (message.toolCalls ?? []) : []));
  return new Map(calls.map(({ id, name }) => [id, name]));
}

/** Calls are numbered through a conversation. */
export function callId(number: number): string {
  return `call_${number}`;
}

/** The number that no call of the conversation has, nor any after it. */
export function firstFreeCall(messages: readonly ChatMessage[]): number {
  const numbers = [...toolNames(messages).keys()].map((id) => Number(/^call_(\d{1,9})$/.exec(id)?.[1] ?? 0));
  return 1 + numbers.reduce((a, b) => Math.max(a, b), 0);
}

/** @throws HearthError `invalid-input` when the arguments are no JSON object. */
export function argumentsOf({ name, arguments: json }: ToolCall): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    value = undefined;
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw invalidInput(`The arguments of the call of '${name}' are no JSON object; leave the call out.`);
}

/** The parameters of a tool by name, and which of them are texts where a format writes values without quotes. */
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

/** What has no type is text: that is what most tools take. */
function isText(schema: Readonly<Record<string, unknown>>): boolean {
  const { type, enum: values, const: value } = schema;
  if (type !== undefined) return type === 'string';
  if (Array.isArray(values)) return values.every((item) => typeof item === 'string');
  if (value !== undefined) return typeof value === 'string';
  return !['anyOf', 'oneOf', 'allOf', '$ref', 'properties', 'items'].some((key) => key in schema);
}

// Where a prompt is made of messages.

/**
 * Lengths at which a message of the prompt ends, ascending; the last is the prompt's own, where the answer begins. What is
 * edited, asked again or written otherwise in a later turn goes its own way from one of them.
 * @param ends ids that end a message.
 */
export function messageBoundaries(ids: readonly number[], ends: ReadonlySet<number>): number[] {
  const boundaries = ids.flatMap((id, i) => (ends.has(id) ? [i + 1] : []));
  return boundaries.at(-1) === ids.length ? boundaries : [...boundaries, ids.length];
}

// The wanted form of an answer, said to the model beside being enforced: a model that does not know it is bent into it
// word by word and answers worse.

/** At the end of the last question: what changes goes last, and small models follow best what stands last. */
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

/** GPT-OSS's own section, at the end of the developer message (openai/harmony, docs/format.md, "Structured output"). */
export function harmonyFormatSection(format: ResponseFormat | undefined): string {
  if (format === undefined || format.kind === 'text') return '';
  const schema =
    format.kind === 'json' ? { type: 'object' } : format.kind === 'choice' ? { enum: format.choices } : format.schema;
  return `# Response Formats\n\n## answer\n\n${JSON.stringify(schema)}`;
}

// What a model generates, told apart while it streams.

export type OutputPiece =
  | {
      readonly kind: 'text' | 'thinking';
      /** Never empty. */
      readonly text: string;
    }
  | {
      readonly kind: 'tool-call';
      /** Which call of this answer, from 0. */
      readonly index: number;
      readonly name: string;
      /** The next characters of its arguments' JSON; those of the first piece may be none. */
      readonly text: string;
    };

/** Reads what a model generates. Malformed output becomes text, never an exception. */
export interface OutputParser {
  /** What comes next would be thinking. */
  readonly isThinking: boolean;
  push(id: number): OutputPiece[];
  end(): OutputPiece[];
}

/** One piece, or none of nothing. */
export function piece(kind: 'text' | 'thinking', text: string): OutputPiece[] {
  return text === '' ? [] : [{ kind, text }];
}
