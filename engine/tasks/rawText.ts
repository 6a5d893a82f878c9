/** Raw completion: continues a text without a chat template; special tokens in it are parsed. */
import { HearthError, invalidInput } from '../errors.ts';
import { checkSchemaBounds } from '../grammar/schemaDocument.ts';
import { limits } from '../limits.ts';
import type { ResponseFormat } from '../prompt/formats/promptFormat.ts';
import { TaggedParser } from '../prompt/parsers/toolCallText.ts';
import { answerSteps, freeAnswer } from '../prompt/plans/answerPlan.ts';
import { MinimumTokens } from '../sampling/logitsProcessor.ts';
import { LogprobRecorder } from '../sampling/logprobs.ts';
import { PlanProcessor } from '../sampling/planProcessor.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type ChatModel, planned } from './chat.ts';
import { type Generated, type GenerationRequest, generate, runInSlices } from './generate.ts';

export interface RawRequest
  extends Pick<
    GenerationRequest,
    'maxTokens' | 'sampling' | 'random' | 'stopStrings' | 'onPiece' | 'timeoutMs' | 'signal'
  > {
  /** Text, or ids of the model's vocabulary. */
  readonly prompt: string | readonly number[];
  readonly stopIds: readonly number[];
  readonly minTokens: number;
  readonly responseFormat: ResponseFormat;
  /** How many alternatives `onPiece` gets log-probabilities for; absent: no log-probabilities. */
  readonly logprobs?: number | undefined;
}

/** @throws HearthError `context-overflow`, `invalid-input`, and as `generate`. */
export async function continueText(
  { scheduler, tokenizer, grammars, contextTokens }: Omit<ChatModel, 'format' | 'now'>,
  request: RawRequest,
): Promise<Generated> {
  const { prompt, stopIds, minTokens, responseFormat, logprobs, ...common } = request;
  if (responseFormat.kind === 'json-schema') checkSchemaBounds(responseFormat.schema);
  const ids = await promptIds(tokenizer, prompt, contextTokens, request.signal);
  const parser = new TaggedParser(tokenizer, false);
  const answer = { ...freeAnswer, steps: answerSteps({ responseFormat }) };
  const plan = new PlanProcessor({ plan: answer, tokenizer, grammars, parser, signal: request.signal });
  const processors = [
    ...(answer.steps.length > 0 ? [plan] : []),
    ...(minTokens > 0 ? [new MinimumTokens(minTokens, tokenizer.endIds)] : []),
  ];
  const written = generate(scheduler, {
    ...common,
    requestClass: 'chat',
    prompt: ids,
    stopIds: new Set([...tokenizer.endIds, ...stopIds]),
    parser,
    processors,
    logprobs: logprobs === undefined ? undefined : new LogprobRecorder(tokenizer, logprobs),
  });
  return planned(plan, written);
}

async function promptIds(
  tokenizer: Tokenizer,
  prompt: RawRequest['prompt'],
  contextTokens: number,
  signal: AbortSignal | undefined,
): Promise<readonly number[]> {
  if (typeof prompt !== 'string') {
    if (prompt.length === 0) throw invalidInput('The prompt has no tokens.');
    const unknown = prompt.find((id) => id >= tokenizer.vocabularySize);
    if (unknown === undefined) return prompt;
    throw invalidInput(`The prompt has token ${unknown}; the vocabulary has ${tokenizer.vocabularySize}.`);
  }
  requireShort(prompt, contextTokens);
  const begin = tokenizer.beginId === undefined ? [] : [tokenizer.beginId];
  const ids = [...begin, ...(await runInSlices(tokenizer.encodeSliced(tokenizer.split(prompt)), { signal }))];
  // Like OpenAI's API: an empty prompt starts after an end token.
  return ids.length > 0 ? ids : [...tokenizer.endIds].slice(0, 1);
}

/**
 * Refuses a text that can't fit before encoding it.
 * @throws HearthError `context-overflow`
 */
export function requireShort({ length }: string | readonly number[], contextTokens: number): void {
  if (length <= contextTokens * limits.generation.charsPerToken) return;
  throw new HearthError(
    'context-overflow',
    `The text has ${length} characters; the context holds ${contextTokens} tokens. Shorten it.`,
  );
}
