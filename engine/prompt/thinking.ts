/** The thinking switch of a model, and the separation of thinking from the answer. */
import { HearthError, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type OutputPiece, piece } from './conversation.ts';
import type { ChatTemplate } from './formats/chatTemplate.ts';

// The thinking switch: which modes a model supports, and the template variables for each.

/** Same as in the protocol. */
export type ThinkingMode = 'off' | 'on' | 'low' | 'medium' | 'high';

/** `enable_thinking` is for Qwen3, `thinking` for DeepSeek-V3.1, `reasoning_effort` for GPT-OSS. Each ignores the others. */
export function thinkingVariables(mode: ThinkingMode): Record<string, unknown> {
  const thinks = mode !== 'off';
  const effort = mode === 'off' || mode === 'on' ? {} : { reasoning_effort: mode };
  return { enable_thinking: thinks, thinking: thinks, ...effort };
}

/** A prompt with this ending has already opened the thinking. */
export function endsInsideThinking(prompt: string): boolean {
  return /(<think>|\[THINK\])\s*$/.test(prompt);
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

/** The mode to use instead of one that the model lacks. */
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

export interface ThinkingTags {
  readonly open: string;
  readonly close: string;
}

const usualTags: ThinkingTags = { open: '<think>', close: '</think>' };

/** The tags around thinking. Ministral and Magistral have their own tokens. */
export const thinkingTagsOf = ({ framing }: Pick<Tokenizer, 'framing'>): ThinkingTags =>
  framing.has('[THINK]') && framing.has('[/THINK]') ? { open: '[THINK]', close: '[/THINK]' } : usualTags;

/**
 * Splits `<think>…</think>` from the answer after it. Thinking is recognised only at the start of the output, so an
 * answer may mention the tags. Whitespace around both is dropped, because templates put line feeds there.
 */
export class ThinkingSplitter {
  #state: 'start' | 'thinking' | 'thought' | 'text';
  /** Undecided text; while thinking, whitespace and the possible start of the closing tag. */
  #held = '';
  #begun = false;

  readonly #tags: ThinkingTags;

  /** @param insideThinking the prompt ended with the opening tag. */
  constructor(insideThinking = false, tags = usualTags) {
    this.#tags = tags;
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
    const { open } = this.#tags;
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
    const { close } = this.#tags;
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

// Ends a stream at the first stop string. Holds back only text that may still become one.

interface Stopped {
  /** Text that may be shown now; never part of a stop string. */
  readonly text: string;
  /** The stop string that was found. Nothing more may be pushed. */
  readonly stop?: string;
}

export class StopStrings {
  readonly #stops: readonly string[];
  #held = '';

  /** @throws HearthError `invalid-input` for an empty stop string, or too many or too long ones. */
  constructor(stops: readonly string[]) {
    const { stopStrings, stopStringChars } = limits.text;
    if (stops.length > stopStrings) throw invalidInput(`At most ${stopStrings} stop strings are allowed.`);
    for (const stop of stops) {
      if (stop === '') throw invalidInput('A stop string must not be empty.');
      if (stop.length > stopStringChars) throw invalidInput(`A stop string has at most ${stopStringChars} characters.`);
    }
    this.#stops = stops;
  }

  push(text: string): Stopped {
    const seen = this.#held + text;
    const first = firstOf(seen, this.#stops);
    if (first !== undefined) {
      this.#held = '';
      return { text: seen.slice(0, first.at), stop: first.stop };
    }
    const held = partialMatchLength(seen, this.#stops);
    this.#held = seen.slice(seen.length - held);
    return { text: seen.slice(0, seen.length - held) };
  }

  /** Returns the text that was held back. */
  end(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }
}

function firstOf(text: string, stops: readonly string[]): { at: number; stop: string } | undefined {
  let first: { at: number; stop: string } | undefined;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at >= 0 && (first === undefined || at < first.at)) first = { at, stop };
  }
  return first;
}

/** Length of the longest end of `text` that begins, but is not all of, one of `patterns`. */
export function partialMatchLength(text: string, patterns: readonly string[]): number {
  const longest = Math.max(0, ...patterns.map((pattern) => pattern.length - 1));
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(-length);
    if (patterns.some((pattern) => pattern.length > length && pattern.startsWith(end))) return length;
  }
  return 0;
}
