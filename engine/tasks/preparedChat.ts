/** From a conversation to the prompt that fits the context, while others are answered. */
import type { ChatMessage, Tool } from '../prompt/conversation.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from '../prompt/formats/promptFormat.ts';
import type { Sliced } from '../tokenizer/sliced.ts';
import { fitHistory } from './history.ts';
import { runInSlices, type SliceOptions } from './slices.ts';

export interface PreparedChat {
  readonly prompt: ChatPrompt;
  readonly droppedMessages: number;
}

/** @throws HearthError `context-overflow` when the last message alone does not fit, `cancelled`, `timeout`. */
export async function prepareChat(
  { format, contextTokens }: { readonly format: PromptFormat; readonly contextTokens: number },
  messages: readonly ChatMessage[],
  options: PromptOptions,
  { maxTokens = contextTokens, ...slices }: SliceOptions & { readonly maxTokens?: number | undefined },
): Promise<PreparedChat> {
  // Room for an answer, whatever it will need: without a limit, a quarter of the context.
  const budgetTokens = contextTokens - Math.min(maxTokens, Math.floor(contextTokens / 4));
  const fixedChars = await runInSlices(charsOfTools(options.tools ?? []), slices);
  const { prompt, droppedMessages } = await fitHistory(
    messages,
    async (kept) => {
      const rendered = await runInSlices(format.renderSliced(kept, options), slices);
      return { rendered, tokens: rendered.ids.length };
    },
    { budgetTokens, fixedChars },
  );
  return { prompt: prompt.rendered, droppedMessages };
}

/** Formats leave some of a schema's syntax out, never its names and descriptions. */
function* charsOfTools(tools: readonly Tool[]): Sliced<number> {
  let chars = 0;
  for (const { name, description, parameters } of tools) {
    yield;
    chars += name.length + description.length + charsOfTexts(parameters);
  }
  return chars;
}

function charsOfTexts(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.entries(value).reduce(
    (sum, [key, item]) => sum + (Array.isArray(value) ? 0 : key.length) + charsOfTexts(item),
    0,
  );
}
