/** The thinking switch: which of its positions a model knows, and what its template is told for each. */
import { HearthError } from '../errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { ChatTemplate } from './formats/chatTemplate.ts';

/** As in the protocol. */
export type ThinkingMode = 'off' | 'on' | 'low' | 'medium' | 'high';

/** `enable_thinking` is Qwen3's, `thinking` DeepSeek-V3.1's, `reasoning_effort` GPT-OSS's; each ignores the others. */
export function thinkingVariables(mode: ThinkingMode): Record<string, unknown> {
  const thinks = mode !== 'off';
  const effort = mode === 'off' || mode === 'on' ? {} : { reasoning_effort: mode };
  return { enable_thinking: thinks, thinking: thinks, ...effort };
}

/** A prompt that ends so has already opened the thinking. */
export function endsInsideThinking(prompt: string): boolean {
  return /<think>\s*$/.test(prompt);
}

/**
 * The modes that change the prompt, found by rendering one: what a template does tells more than the names of its
 * variables. Only `off`: the model does not think; only `on`: it always does.
 */
export function thinkingModes(template: ChatTemplate, tokenizer: Pick<Tokenizer, 'templateTokens'>): ThinkingMode[] {
  const prompt = (mode: ThinkingMode): string => probeThinking(template, tokenizer, mode);
  try {
    const [off, on, low, high] = [prompt('off'), prompt('on'), prompt('low'), prompt('high')];
    const modes: ThinkingMode[] = off === on ? [] : ['off'];
    if (low !== high) modes.push('low', 'medium', 'high');
    else if (off !== on) modes.push('on');
    if (modes.length > 0) return modes;
    return endsInsideThinking(on) ? ['on'] : ['off'];
  } catch (error) {
    // A template that refuses a single user message has nothing to switch.
    if (error instanceof HearthError) return ['off'];
    throw error;
  }
}

/** The prompt of a short question. */
export function probeThinking(
  template: ChatTemplate,
  tokenizer: Pick<Tokenizer, 'templateTokens'>,
  mode: ThinkingMode,
): string {
  return template.render({
    messages: [{ role: 'user', content: 'x' }],
    addGenerationPrompt: true,
    bosToken: tokenizer.templateTokens.begin,
    eosToken: tokenizer.templateTokens.end,
    variables: thinkingVariables(mode),
    now: new Date(0),
  });
}

/** The mode a model is asked for when it lacks the wanted one. */
export function nearestThinkingMode(wanted: ThinkingMode, modes: readonly ThinkingMode[]): ThinkingMode {
  if (modes.includes(wanted)) return wanted;
  const nearest: Record<ThinkingMode, readonly ThinkingMode[]> = {
    off: ['low', 'on'],
    on: ['medium', 'off'],
    low: ['on', 'off'],
    medium: ['on', 'off'],
    high: ['on', 'off'],
  };
  return nearest[wanted].find((mode) => modes.includes(mode)) ?? 'off';
}
