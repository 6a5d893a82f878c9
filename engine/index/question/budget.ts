/** How much text may go with a question. */
import { limits } from '../../limits.ts';

/** Of a model's card. */
export interface Reader {
  readonly contextTokens: number;
  readonly backend: string;
}

/**
 * Tokens that text may have which goes with a question. What the conversation fills is not there for it; but as the
 * engine leaves out the beginning of a long one, half of the share always is. `reader` undefined: no model is loaded yet.
 */
export function contextBudget(reader: Reader | undefined, conversationTokens: number): number {
  const { attachmentShare, attachmentTokens, answerShare, assumedContextTokens, cpuAttachmentTokens } = limits.question;
  const contextTokens = reader?.contextTokens ?? assumedContextTokens;
  const share = Math.floor(contextTokens * attachmentShare);
  const free = Math.floor(contextTokens * (1 - answerShare)) - conversationTokens;
  const room = Math.min(attachmentTokens, Math.max(Math.min(share, free), Math.floor(share / 2)));
  return readsFast(reader) ? room : Math.min(room, cpuAttachmentTokens);
}

/** A GPU, here or in a server: on a CPU a prompt is read at some hundred tokens a second. */
export const readsFast = (reader: Pick<Reader, 'backend'> | undefined): boolean =>
  reader?.backend === 'webgpu' || reader?.backend === 'remote';

export const estimatedTokens = (text: string): number => Math.ceil(text.length / limits.question.charsPerToken);
