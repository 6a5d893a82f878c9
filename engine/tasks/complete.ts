/** An inline completion: the prompt, the generation, and where it ends. */
import { limits } from '../limits.ts';
import type { SamplerSettings } from '../sampling/sampler.ts';
import { HealedText } from '../sampling/tokenHealing.ts';
import type { Scheduler } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type CompletionSource, completionPrompt, promptBudgetTokens } from './completionPrompt.ts';
import { type SyntaxErrors, withoutBreaking } from './completionSyntax.ts';
import { trimCompletion } from './completionTrim.ts';
import { type FinishReason, type GenerationStatistics, generate } from './generate.ts';

export interface CompletionRequest extends CompletionSource {
  readonly maxTokens: number;
  readonly multiline: boolean;
  /** As the model writes it, not trimmed to the scope of the cursor. */
  readonly whole: boolean;
  readonly stopStrings: readonly string[];
  /** Of a whole completion: pieces as they come. */
  readonly onText?: ((text: string) => void) | undefined;
  readonly sampling: SamplerSettings;
  readonly random: () => number;
  /** Absent: what breaks the file is offered as well. */
  readonly syntaxErrors?: SyntaxErrors;
  /** Counted from now; absent: as long as anybody waits for the next key. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Completion {
  readonly text: string;
  readonly finish: FinishReason;
  readonly statistics: GenerationStatistics;
}

const nothingToContinue: Completion = {
  text: '',
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
  const budgetTokens = promptBudgetTokens(contextTokens, maxTokens);
  const { ids, boundaries, healing } = completionPrompt(tokenizer, request, budgetTokens);
  if (ids.length === 0) return nothingToContinue;
  let written = '';
  const parser = new HealedText(tokenizer, healing);
  const { finish, statistics } = await generate(scheduler, {
    requestClass: 'keystroke',
    prompt: ids,
    boundaries,
    maxTokens,
    sampling: request.sampling,
    random: request.random,
    stopIds: tokenizer.endIds,
    stopStrings: request.stopStrings,
    parser,
    processors: [parser],
    onPiece: ({ text }) => {
      written += text;
      if (request.whole) {
        request.onText?.(text);
        return 'continue';
      }
      return trimCompletion(written, request, false).complete ? 'stop' : 'continue';
    },
    // Nobody waits for the next key while a whole one is written.
    timeoutMs: request.timeoutMs ?? (request.whole ? undefined : limits.generation.completionMs),
    signal: request.signal,
  });
  if (request.whole) return { text: written, finish, statistics };
  const text = completedText(written, finish, request);
  const { syntaxErrors } = request;
  return { text: syntaxErrors ? await withoutBreaking(text, request, syntaxErrors) : text, finish, statistics };
}

/**
 * What is offered of what was written, trimmed to the scope of the cursor: of a completion that was cut off by its length
 * the lines that are whole, of a single line what there is.
 */
export function completedText(
  written: string,
  finish: FinishReason,
  request: Pick<CompletionRequest, 'prefix' | 'suffix' | 'multiline'>,
): string {
  const { text, complete: ended } = trimCompletion(written, request, finish === 'stop');
  if (ended || finish === 'stop' || !text.trimStart().includes('\n')) return text;
  return text.slice(0, text.lastIndexOf('\n')).trimEnd();
}
