/** An inline completion: the prompt, the generation, and what of it is offered. */
import { limits } from '../limits.ts';
import { free, type LogitsProcessor } from '../sampling/logitsProcessor.ts';
import type { SamplerSettings } from '../sampling/sampler.ts';
import { HealedText } from '../sampling/tokenHealing.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Confidence, ConfidenceMeter, type FirstToken, isSureEnough } from './completionConfidence.ts';
import {
  type CompletionPrompt,
  type CompletionSource,
  completionPrompt,
  promptBudgetTokens,
} from './completionPrompt.ts';
import { CompletionShape, type Multiline } from './completionShape.ts';
import { type Place, withoutBreaking } from './completionSyntax.ts';
import { type FinishReason, type GenerationStatistics, generate } from './generate.ts';

export interface CompletionRequest extends CompletionSource {
  readonly maxTokens: number;
  readonly multiline: Multiline;
  readonly candidates: number;
  readonly confidence: Confidence;
  /** As the model writes it, not cut to where the cursor is. */
  readonly whole: boolean;
  readonly stopStrings: readonly string[];
  /** Of a whole completion: pieces as they come. */
  readonly onText?: ((text: string) => void) | undefined;
  readonly sampling: SamplerSettings;
  readonly random: () => number;
  /** Counted from now; absent: as long as anybody waits for the next key. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Completion {
  readonly text: string;
  /** Less likely ones, the likeliest first. */
  readonly alternatives: readonly string[];
  /** Of the first tokens, the mean; absent where none was sampled. */
  readonly logProbability?: number;
  readonly finish: FinishReason;
  readonly statistics: GenerationStatistics;
}

const nothingToContinue: Completion = {
  text: '',
  alternatives: [],
  finish: 'stop',
  statistics: { promptTokens: 0, cachedTokens: 0, generatedTokens: 0, timeToFirstTokenMs: 0, tokensPerSecond: 0 },
};

export async function complete(
  scheduler: Scheduler,
  tokenizer: Tokenizer,
  contextTokens: number,
  request: CompletionRequest,
): Promise<Completion> {
  const maxTokens = Math.min(request.maxTokens, Math.floor(contextTokens / 2));
  const prompt = completionPrompt(tokenizer, request, promptBudgetTokens(contextTokens, maxTokens));
  const shape = new CompletionShape(request);
  if (prompt.ids.length === 0 || !(request.whole || shape.isWorthwhile)) return nothingToContinue;
  const write = (first?: FirstToken) => attempt({ scheduler, tokenizer, request, shape, prompt, maxTokens }, first);
  const best = await write();
  const others = await Promise.all(best.otherFirst.map((first) => write(first)));
  const { logProbability, finish, statistics } = best;
  const told = { ...(logProbability !== undefined && { logProbability }), finish, statistics };
  if (request.whole) return { text: best.text, alternatives: [], ...told };
  const ranked = [best, ...others.toSorted((a, b) => (b.logProbability ?? 0) - (a.logProbability ?? 0))];
  const sure = ranked.filter((one) => isSureEnough(one.logProbability, request.confidence));
  const [text = '', ...alternatives] = new Set(sure.flatMap((one) => (one.text === '' ? [] : [one.text])));
  return { text, alternatives, ...told };
}

interface Attempt {
  readonly scheduler: Scheduler;
  readonly tokenizer: Tokenizer;
  readonly request: CompletionRequest;
  readonly shape: CompletionShape;
  readonly prompt: CompletionPrompt;
  readonly maxTokens: number;
}

interface Attempted extends Omit<Completion, 'alternatives'> {
  readonly otherFirst: readonly FirstToken[];
}

/** @param first the token that the text begins with, if not with the likeliest */
async function attempt(
  { scheduler, tokenizer, request, shape, prompt, maxTokens }: Attempt,
  first: FirstToken | undefined,
): Promise<Attempted> {
  const { whole, confidence, candidates } = request;
  const parser = new HealedText(tokenizer, prompt.healing);
  const meter = new ConfidenceMeter(tokenizer.endIds, first ?? candidates - 1);
  let written = '';
  const { finish, statistics } = await generate(scheduler, {
    ...request,
    requestClass: 'keystroke',
    prompt: prompt.ids,
    boundaries: prompt.boundaries,
    maxTokens,
    stopIds: tokenizer.endIds,
    parser,
    processors: first ? [startingWith(first), parser] : [parser],
    observer: whole || (confidence === 'eager' && candidates === 1) ? undefined : meter,
    onPiece: ({ text }) => {
      written += text;
      if (!whole) return shape.shape(written, false).complete ? 'stop' : 'continue';
      request.onText?.(text);
      return 'continue';
    },
    // Nobody waits for the next key while a whole one is written.
    timeoutMs: request.timeoutMs ?? (whole ? undefined : limits.generation.completionMs),
  });
  const text = whole ? written : await completedText(shape, written, finish, request);
  const { logProbability, otherFirst } = meter;
  return { text, ...(logProbability !== undefined && { logProbability }), otherFirst, finish, statistics };
}

function startingWith({ id }: FirstToken): LogitsProcessor {
  let isFirst = true;
  return {
    next: () => (isFirst ? { kind: 'forced', token: id } : free),
    take: () => {
      isFirst = false;
    },
  };
}

/** What is offered of what was written; of a text that was cut off by its length, the lines that are whole. */
export async function completedText(
  shape: CompletionShape,
  written: string,
  finish: FinishReason,
  place: Place,
): Promise<string> {
  const ended = finish === 'stop';
  const shaped = shape.shape(written, ended);
  const isCutOff = !ended && !shaped.complete;
  if (!isCutOff || !shaped.text.trimStart().includes('\n')) return withoutBreaking(shaped, place, isCutOff);
  const text = shaped.text.slice(0, shaped.text.lastIndexOf('\n')).trimEnd();
  return withoutBreaking({ text, complete: false }, place, isCutOff);
}
