/** Embeds texts: the L2-normalised hidden state of the last token, as embedding models are trained. */
import { cancelled, HearthError } from '../errors.ts';
import type { RequestClass } from '../scheduler/job.ts';
import type { Submitter } from '../scheduler/scheduler.ts';
import type { Sliced, Tokenizer } from '../tokenizer/tokenizer.ts';

export interface EmbeddingModel {
  /** The scheduler of a headless decoder. */
  readonly scheduler: Submitter;
  readonly tokenizer: Tokenizer;
  /** Prefix of queries; documents have none. */
  readonly queryPrefix: string;
  /** Length of a vector. */
  readonly dimensions: number;
}

export interface EmbeddingRequest {
  readonly requestClass: RequestClass;
  readonly signal?: AbortSignal | undefined;
}

/** Ids of a text (or given ids) as the model expects them: most models need an end token. */
export function* embeddingTokens(tokenizer: Tokenizer, input: string | readonly number[]): Sliced<number[]> {
  const { beginId, appendedId } = tokenizer;
  const isText = typeof input === 'string';
  const ids = isText ? yield* tokenizer.encodeSliced([input]) : [...input];
  if (isText && beginId !== undefined) ids.unshift(beginId);
  if (appendedId !== undefined && (isText || ids.at(-1) !== appendedId)) ids.push(appendedId);
  return ids;
}

/** Truncates `tokens` to the context, and keeps the end token. */
export function cutToContext(tokens: readonly number[], contextTokens: number): readonly number[] {
  return tokens.length <= contextTokens ? tokens : [...tokens.slice(0, contextTokens - 1), ...tokens.slice(-1)];
}

/**
 * Embeds as many inputs at once as the decoder takes.
 * @returns for each input `[hidden]`, of length 1.
 * @throws HearthError `context-overflow`, `cancelled`, and what the scheduler throws.
 */
export async function embedAll(
  { scheduler }: EmbeddingModel,
  inputs: readonly (readonly number[])[],
  request: EmbeddingRequest,
): Promise<Float32Array[]> {
  const atOnce = scheduler.decoder.maxSequencesPerRun;
  const vectors: Float32Array[] = [];
  while (vectors.length < inputs.length) {
    const group = inputs.slice(vectors.length, vectors.length + atOnce);
    vectors.push(...(await Promise.all(group.map((tokens) => embed(scheduler, tokens, request)))));
  }
  return vectors;
}

async function embed(
  scheduler: Submitter,
  prompt: readonly number[],
  { requestClass, signal }: EmbeddingRequest,
): Promise<Float32Array> {
  let state: Float32Array | undefined;
  const { finish } = await scheduler.submit({
    requestClass,
    prompt,
    maxTokens: 1,
    choose: (row) => {
      state = row.slice();
      return 0;
    },
    deliver: () => 'stop',
    signal,
  });
  if (finish === 'cancelled') throw cancelled();
  if (!state) throw new Error('The decoder returned no hidden state.');
  return normalised(state);
}

/** Truncates a vector and normalises it again; models trained for it (Kusupati et al. 2022) lose little. */
export function shortened(vector: Float32Array, dimensions: number): Float32Array {
  return dimensions === vector.length ? vector : normalised(vector.slice(0, dimensions));
}

/** Normalises in place. */
function normalised(vector: Float32Array): Float32Array {
  let squares = 0;
  for (const value of vector) squares += value * value;
  const length = Math.sqrt(squares);
  if (!(length > 0 && Number.isFinite(length))) {
    throw new HearthError('unsupported', 'The model returned no vector for this text; its weights may be damaged.');
  }
  for (const [i, value] of vector.entries()) vector[i] = value / length;
  return vector;
}
