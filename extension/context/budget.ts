import type { ModelCard } from '../../engine/server/protocol.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';

/**
 * Tokens that text may have which goes with a question. What the conversation fills is not there for it; but as the
 * engine leaves out the beginning of a long one, half of the share always is. `card` undefined: no model is loaded yet.
 */
export function contextBudget(
  card: Pick<ModelCard, 'contextTokens' | 'backend'> | undefined,
  conversationTokens: number,
): number {
  const { attachmentShare, attachmentTokens, answerShare, assumedContextTokens, cpuAttachmentTokens } = limits.chat;
  const contextTokens = card?.contextTokens ?? assumedContextTokens;
  const share = Math.floor(contextTokens * attachmentShare);
  const free = Math.floor(contextTokens * (1 - answerShare)) - conversationTokens;
  const room = Math.min(attachmentTokens, Math.max(Math.min(share, free), Math.floor(share / 2)));
  return readsFast(card) ? room : Math.min(room, cpuAttachmentTokens);
}

/** A GPU, here or in a server: on a CPU a prompt is read at some hundred tokens a second. */
export const readsFast = (card: Pick<ModelCard, 'backend'> | undefined): boolean =>
  card?.backend === 'webgpu' || card?.backend === 'remote';

export const estimatedTokens = (text: string): number => Math.ceil(text.length / limits.chat.charsPerToken);

/** As the loaded model counts; estimated, on the safe side, where it cannot be asked. */
export async function countTokens(engine: EngineHost, texts: readonly string[]): Promise<number[]> {
  const client = engine.current;
  if (texts.length === 0) return [];
  if (client?.warmModel === undefined) return texts.map(estimatedTokens);
  // An engine that does not count still answers.
  return client.countTokens([...texts]).catch(() => texts.map(estimatedTokens));
}
