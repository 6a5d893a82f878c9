/** How long to think, in the words of several servers: OpenAI's, OpenRouter's, vLLM's and llama-server's. */
import { z } from 'zod';
import type { ThinkingMode } from '../protocol/engineProtocol.ts';
import { optional, optionalOrOff, reasoningEffort, refuse, refuseFields, thinkingOf, unsupported } from './fields.ts';

const budget = optionalOrOff(z.number().int().min(0));

/** What templates are told of thinking; other variables of a template cannot be set. */
const templateArguments = z.looseObject({
  enable_thinking: optional(z.boolean()),
  thinking: optional(z.boolean()),
  reasoning_effort: optional(reasoningEffort),
});

const nothing: z.output<typeof templateArguments> = {
  enable_thinking: undefined,
  thinking: undefined,
  reasoning_effort: undefined,
};

export const thinkingFields = {
  reasoning_effort: optional(reasoningEffort),
  reasoning: optional(
    z.object({
      effort: optional(reasoningEffort),
      max_tokens: budget,
      enabled: optional(z.boolean()),
      exclude: unsupported,
    }),
  ),
  chat_template_kwargs: optional(templateArguments),
  thinking_token_budget: budget,
  thinking_budget_tokens: budget,
};

export function chatThinking(fields: z.output<z.ZodObject<typeof thinkingFields>>): {
  readonly thinking: ThinkingMode;
  readonly thinkingTokens: number | undefined;
} {
  const { reasoning, chat_template_kwargs = nothing, thinking_token_budget, thinking_budget_tokens } = fields;
  refuseFields({ 'reasoning.exclude': reasoning?.exclude });
  const { enable_thinking, thinking, reasoning_effort, ...others } = chat_template_kwargs;
  const [other] = Object.keys(others);
  if (other !== undefined) refuse(`chat_template_kwargs.${other}`);
  const effort = fields.reasoning_effort ?? reasoning?.effort ?? reasoning_effort;
  const switched = reasoning?.enabled ?? enable_thinking ?? thinking ?? reasoning?.max_tokens !== undefined;
  return {
    thinking: effort === undefined && switched ? 'on' : thinkingOf(effort),
    thinkingTokens: thinking_token_budget ?? thinking_budget_tokens ?? reasoning?.max_tokens,
  };
}
