import { PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { Scheduler } from '../../../engine/scheduler/scheduler.ts';
import type { Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { FakeDecoder, type FakeDecoderOptions } from './fakeDecoder.ts';

/** Better classes may hold up worse ones for ever. */
export const patient = {
  keystroke: Number.POSITIVE_INFINITY,
  chat: Number.POSITIVE_INFINITY,
  summary: Number.POSITIVE_INFINITY,
  'warm-up': Number.POSITIVE_INFINITY,
};

/** A scheduler over a fake decoder, whose runs take a millisecond each unless another clock is given. */
export function schedulerOf(decoder: FakeDecoder, now = () => decoder.runs.length): Scheduler {
  return new Scheduler({
    decoder,
    cache: new PrefixCache({ decoder, maxIdle: () => 2 }),
    maxPendingPerClass: 64,
    patienceMs: patient,
    now,
    yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
  });
}

/** A model that answers every prompt with the tokens that `reply` gives for its text. */
export function replying(
  tokenizer: Tokenizer,
  reply: (prompt: string, ids: readonly number[]) => readonly number[],
  options: FakeDecoderOptions = {},
): { decoder: FakeDecoder; prompts: string[] } {
  const prompts: string[] = [];
  let prompt: readonly number[] = [];
  let answer: readonly number[] = [];
  const follow = (tokens: readonly number[]): number => {
    const continues = prompt.length > 0 && tokens.length > prompt.length && startsWith(tokens, prompt);
    if (!continues || !startsWith([...prompt, ...answer], tokens)) {
      prompt = [...tokens];
      const text = showIds(tokenizer, tokens);
      prompts.push(text);
      answer = reply(text, tokens);
    }
    return answer[tokens.length - prompt.length] ?? [...tokenizer.endIds][0] ?? 0;
  };
  const decoder = new FakeDecoder({
    vocabularySize: tokenizer.vocabularySize,
    contextTokens: 4096,
    follow,
    ...options,
  });
  return { decoder, prompts };
}

/** Text of ids, framing tokens by name. */
export function showIds(tokenizer: Tokenizer, ids: readonly number[]): string {
  return Buffer.concat(ids.map((id) => tokenizer.bytesOf(id))).toString();
}

function startsWith(tokens: readonly number[], beginning: readonly number[]): boolean {
  return beginning.every((token, i) => tokens[i] === token);
}
