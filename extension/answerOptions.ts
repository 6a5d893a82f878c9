import type { ChatParams, ModelCard } from '../engine/protocol/engineProtocol.ts';
import { chatSettings } from './settings.ts';
import type { Thinking } from './thinking.ts';

/** The user's answer settings for this model, shared by Hearth's chat and VS Code's own. */
export function answerOptions(
  card: ModelCard,
  thinking: Thinking,
): Pick<ChatParams, 'thinking' | 'thinkingTokens' | 'maxTokens' | 'sampling' | 'endRepetition'> {
  const { sampling, maxTokens, thinkingTokens } = chatSettings();
  return {
    thinking: thinking.mode(card),
    sampling,
    endRepetition: true,
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(thinkingTokens === undefined ? {} : { thinkingTokens }),
  };
}
