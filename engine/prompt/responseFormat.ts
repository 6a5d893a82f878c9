/**
 * The wanted form of an answer, said to the model beside being enforced: a model that does not know it is bent into it
 * word by word and answers worse.
 */
import type { ChatMessage } from './conversation.ts';
import type { ResponseFormat } from './formats/promptFormat.ts';

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
