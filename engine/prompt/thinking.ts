/** The thinking switch of a model, and the separation of thinking from the answer. */

import { HearthError } from '../errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type OutputPiece, piece } from './conversation.ts';
import type { ChatTemplate } from './formats/chatTemplate.ts';
import { partialMatchLength } from './stopStrings.ts';

// The thinking switch: which modes a model supports, and the template variables for each.

/** As in the protocol. */
export type ThinkingMode = 'off' | 'on' | 'low' | 'medium' | 'high';

/** `enable_thinking` is for Qwen3, `thinking` for DeepSeek-V3.1, `reasoning_effort` for GPT-OSS. Each ignores the others. */
export function thinkingVariables(mode: ThinkingMode): Record<string, unknown> {
  const thinks = mode !== 'off';
  const effort = mode === 'off' || mode === 'on' ? {} : { reasoning_effort: mode };
  return { enable_thinking: thinks, thinking: thinks, ...effort };
}

/** A prompt with this ending has already opened the thinking. */
export function endsInsideThinking(prompt: string): boolean {
  return /<think>\s*$/.test(prompt);
}

/**
 * The modes that change the prompt, found by rendering one, because the output of a template says more than the names
 * of its variables. `off` alone: the model never thinks; `on` alone: it always does.
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
    // A template that refuses a single user message has no switch.
    if (error instanceof HearthError) return ['off'];
    throw error;
  }
}

/** Renders the prompt of a short question. */
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

/** The mode that replaces one that the model lacks. */
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

const open = '<think>';
const close = '</think>';

/**
 * Splits `<think>…</think>` from the answer after it. Thinking is recognised only at the start of the output, so an
 * answer may mention the tags. Whitespace around both is dropped, because templates put line feeds there.
 */
export class ThinkingSplitter {
  #state: 'start' | 'thinking' | 'thought' | 'text';
  /** Undecided text; while thinking, whitespace and the possible start of the closing tag. */
  #held = '';
  #begun = false;

  /** @param insideThinking the prompt ended with the opening tag. */
  constructor(insideThinking = false) {
    this.#state = insideThinking ? 'thinking' : 'start';
  }

  get isThinking(): boolean {
    return this.#state === 'thinking';
  }

  push(text: string): OutputPiece[] {
    this.#held += text;
    const pieces: OutputPiece[] = [];
    while (this.#step(pieces)) {}
    return pieces;
  }

  end(): OutputPiece[] {
    const rest = this.#held;
    this.#held = '';
    if (this.#state === 'thinking') return piece('thinking', rest.trimEnd());
    return this.#state === 'thought' ? [] : piece('text', rest);
  }

  /** Whether the state changed, so that the remaining text must be parsed again. */
  #step(pieces: OutputPiece[]): boolean {
    switch (this.#state) {
      case 'start':
        return this.#start();
      case 'thinking':
        return this.#think(pieces);
      case 'thought':
        return this.#skipBlanks();
      case 'text':
        pieces.push(...piece('text', this.#held));
        this.#held = '';
        return false;
    }
  }

  #start(): boolean {
    const begin = this.#held.trimStart();
    if (begin.startsWith(open)) {
      this.#held = begin.slice(open.length);
      this.#state = 'thinking';
      return true;
    }
    if (open.startsWith(begin)) return false;
    this.#state = 'text';
    return true;
  }

  #think(pieces: OutputPiece[]): boolean {
    if (!this.#begun) this.#held = this.#held.trimStart();
    this.#begun ||= this.#held !== '';
    const end = this.#held.indexOf(close);
    const held = this.#held;
    const shown = end >= 0 ? held.slice(0, end) : held.slice(0, held.length - partialMatchLength(held, [close]));
    pieces.push(...piece('thinking', shown.trimEnd()));
    this.#held = end >= 0 ? held.slice(end + close.length) : held.slice(shown.trimEnd().length);
    if (end >= 0) this.#state = 'thought';
    return end >= 0;
  }

  #skipBlanks(): boolean {
    this.#held = this.#held.trimStart();
    if (this.#held === '') return false;
    this.#state = 'text';
    return true;
  }
}
