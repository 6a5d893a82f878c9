/**
 * The text after the cursor stands behind the text before it, as models that fill in were trained, so it would be read again at
 * every key. The lines that are being typed therefore stand behind both, as the beginning of the middle, which the model goes
 * on with (as the `prompt` of llama.cpp's `/infill`).
 */
import { limits } from '../limits.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

export interface BegunMiddle {
  readonly ids: readonly number[];
  readonly chars: number;
  /** Kept free for it, however long it is, so that the cut of the text before stays where it is. */
  readonly reservedTokens: number;
  /** It will begin further down within some lines. */
  readonly nearsMove: boolean;
}

export const unbegun: BegunMiddle = { ids: [], chars: 0, reservedTokens: 0, nearsMove: false };

/** Share of the prompt that it may have: twelve lines of code have some 150 tokens. */
const share = 1 / 10;

/** Of it, the lines above the cursor's: whether they fit doesn't change while a line is typed. */
const aboveShare = 3 / 4;

/** It begins at a line whose number is a multiple of this; where lines are long, in smaller steps. */
const steps = [8, 4, 1];

/** @param isAhead begins where it will begin after some more lines: half a step earlier, so that this can be read between keys. */
export function begunMiddle(tokenizer: Tokenizer, prefix: string, promptTokens: number, isAhead: boolean): BegunMiddle {
  const reservedTokens = Math.floor(promptTokens * share);
  const lines = prefix.split('\n');
  const line = lines.length - 1;
  for (const step of steps) {
    const [later, now] = [line, line - Math.floor(step / 2)].map((at) => step * Math.floor(Math.max(0, at) / step));
    const start = isAhead ? later : now;
    if (fitting(tokenizer, lines.slice(start, line).join('\n'), reservedTokens * aboveShare) === undefined) continue;
    const text = lines.slice(start).join('\n');
    const ids = fitting(tokenizer, text, reservedTokens);
    return ids ? { ids, chars: text.length, reservedTokens, nearsMove: now !== later } : unbegun;
  }
  return unbegun;
}

function fitting(tokenizer: Tokenizer, text: string, tokens: number): readonly number[] | undefined {
  if (text.length > tokens * limits.generation.charsPerToken) return undefined;
  const ids = tokenizer.encode(text, { special: 'plain' });
  return ids.length <= tokens ? ids : undefined;
}
