/** Which turns of a conversation go into the prompt when the context does not hold them all. */
import { HearthError } from '../errors.ts';
import type { ChatMessage } from '../prompt/conversation.ts';

export interface FittedHistory {
  readonly messages: readonly ChatMessage[];
  readonly droppedMessages: number;
}

/**
 * Drops the earliest turns until the prompt has at most `budgetTokens`; the system messages at the beginning and the last turn
 * stay. Turns go a quarter of the budget at a time, so that the prompts of the turns that follow begin alike and the cache
 * serves them.
 * @throws HearthError `context-overflow` when the last turn alone is too long.
 */
export function fitHistory(
  messages: readonly ChatMessage[],
  countTokens: (messages: readonly ChatMessage[]) => number,
  budgetTokens: number,
): FittedHistory {
  const total = countTokens(messages);
  if (total <= budgetTokens) return { messages, droppedMessages: 0 };
  const firstTurn = messages.findIndex(({ role }) => role !== 'system');
  const system = messages.slice(0, firstTurn);
  const step = Math.max(1, Math.floor(budgetTokens / 4));
  const goal = total - Math.ceil((total - budgetTokens) / step) * step;
  let fitting: FittedHistory | undefined;
  for (const start of turnStarts(messages, firstTurn)) {
    const kept = { messages: [...system, ...messages.slice(start)], droppedMessages: start - firstTurn };
    const tokens = countTokens(kept.messages);
    if (tokens <= goal) return kept;
    if (tokens <= budgetTokens) fitting ??= kept;
  }
  if (fitting) return fitting;
  const last = countTokens([...system, ...messages.slice(turnStarts(messages, firstTurn).at(-1))]);
  throw new HearthError(
    'context-overflow',
    `The last message has ${last} tokens with its framing; ${budgetTokens} fit beside the answer. Shorten it or load the model with a longer context.`,
  );
}

/** Indexes at which the conversation may begin: at each user message after the first turn, so that roles stay in order. */
function turnStarts(messages: readonly ChatMessage[], firstTurn: number): number[] {
  const starts = messages.flatMap(({ role }, i) => (role === 'user' && i > firstTurn ? [i] : []));
  return starts.length > 0 ? starts : [firstTurn];
}
