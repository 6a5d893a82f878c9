/** Log-probabilities in the format of both APIs. */
import type OpenAI from 'openai';
import type { Delta, TokenLogprob } from '../protocol/engineProtocol.ts';

export const logprobsOf = (delta: Delta): readonly TokenLogprob[] =>
  delta.kind === 'tool-call' ? [] : (delta.logprobs ?? []);

export const chatLogprobs = (tokens: readonly TokenLogprob[]): OpenAI.ChatCompletion.Choice.Logprobs => ({
  content: tokens.map(({ token, bytes, logprob, top }) => ({
    token,
    bytes: [...bytes],
    logprob,
    top_logprobs: top.map((other) => ({ ...other, bytes: [...other.bytes] })),
  })),
  refusal: null,
});

/** @param offset of the first token, in characters of the choice's text. */
export function textLogprobs(tokens: readonly TokenLogprob[], offset: number): OpenAI.CompletionChoice.Logprobs {
  let at = offset;
  const offsets = tokens.map(({ token }) => {
    at += token.length;
    return at - token.length;
  });
  return {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top }) => Object.fromEntries(top.map(({ token, logprob }) => [token, logprob]))),
    text_offset: offsets,
  };
}
