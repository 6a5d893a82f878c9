import { citing, quote, title } from '../../engine/index/question/planner.ts';
import type { ChatMessage } from '../../engine/protocol/engineProtocol.ts';
import { isRule } from '../context/rules.ts';
import { apply, type Conversation, emptyConversation, isQueued, type StoredTurn } from './conversation.ts';

/** The same for every turn, so that the prefix cache applies. */
const system = [
  "You are Hearth, a coding assistant that runs on the user's own computer.",
  'Answer briefly and precisely, in Markdown. Put code into fenced blocks that name their language.',
].join(' ');

/**
 * Builds the prompt of the last turn: earlier turns first, exactly as sent before. Leaves out turns
 * without an answer, because many templates require that question and answer alternate, and queued ones.
 */
export function promptMessages(all: readonly StoredTurn[], instructions: string): ChatMessage[] {
  const turns = all.filter((turn) => !isQueued(turn));
  const content = instructions === '' ? system : `${system}\n\n${instructions}`;
  const messages: ChatMessage[] = [{ role: 'system', content }];
  const sent = new Set<string>();
  const forgetful = turns.some(({ view }) => view.outcome.kind === 'done' && view.outcome.dropped > 0);
  const last = turns.length - 1;
  turns.forEach((turn, index) => {
    const answer = turn.view.answer.trim();
    if (index < last && answer === '') return;
    // "As above" may point to a message that was dropped from the context window.
    const known = forgetful && index === last ? new Set<string>() : sent;
    messages.push({ role: 'user', content: question(turn, known) });
    if (index < last) messages.push({ role: 'assistant', content: answer });
  });
  return messages;
}

/** The prompt up to the next question, for warm-up. */
export function beforeQuestion(turns: readonly StoredTurn[], instructions: string): ChatMessage[] {
  const conversation: Conversation = { ...emptyConversation(''), turns: [...turns] };
  apply(conversation, { type: 'ask', turn: '', at: 0, kind: 'chat', question: '', attachments: [], omitted: [] });
  return promptMessages(conversation.turns, instructions);
}

const ruleTitle = (path: string): string => `Follow what the repository says in ${path}:`;

/** Sends an attachment once. A repeated attachment is only named. */
function question(turn: StoredTurn, sent: Set<string>): string {
  const parts = turn.attachments
    .filter((attached) => attached.text !== '')
    .map((attached) => {
      const key = `${attached.path}\n${attached.detail}\n${attached.text}`;
      const quoted = { ...attached, whole: attached.detail === '' };
      const known = sent.has(key);
      sent.add(key);
      if (isRule(attached)) return known ? '' : `${ruleTitle(attached.path)}\n\n${attached.text}`;
      return known ? `${title(quoted)}, as above.` : quote(quoted);
    });
  const citable = turn.attachments.some(({ firstLine, text }) => firstLine > 0 && text !== '');
  return [...parts.filter((part) => part !== ''), ...(citable ? [citing] : []), turn.view.question].join('\n\n');
}
