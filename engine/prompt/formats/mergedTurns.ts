/** Conversations for templates that take only some orders of roles, put right as the publishers' own code does. */
import { HearthError } from '../../errors.ts';
import type { TemplateMessage } from './chatTemplate.ts';

/** Between texts that become one turn (`mistral_common`'s normaliser, Gemma's documentation). */
const between = '\n\n';

/**
 * What `render` gives for the conversation; where its template refuses that, for the nearest one that it takes: all
 * instructions in one system turn at the start and turns of one role in a row as one, then instructions in the first
 * question.
 * @throws HearthError the template's first one, where it takes none of them.
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

/** The instructions stand before the first question. */
function withoutSystem(messages: readonly TemplateMessage[]): TemplateMessage[] {
  const [system, ...turns] = messages;
  if (system?.role !== 'system') return [...messages];
  const at = turns.findIndex(({ role }) => role === 'user');
  const question = turns[at];
  if (question === undefined) return [{ ...system, role: 'user' }, ...turns];
  return turns.with(at, { ...question, content: joined(system, question) });
}

/** Calls and their results stay turns of their own. */
const isPlain = ({ role, tool_calls: calls }: TemplateMessage): boolean =>
  (role === 'user' || role === 'assistant') && calls === undefined;

const joined = (first: TemplateMessage, second: TemplateMessage): string =>
  [first, second]
    .map(({ content }) => textOf(content))
    .filter((text) => text !== '')
    .join(between);

const textOf = (content: unknown): string => (typeof content === 'string' ? content : '');
