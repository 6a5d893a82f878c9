/**
 * Tokens that a compute thread samples by itself, one after the other. For a small model, a message to the engine's thread
 * and back takes a tenth of a token's time.
 */
import type { MessagePort } from 'node:worker_threads';
import type { SamplingSlice } from '../backend.ts';
import { emptyHistory, penalises, sample, without } from '../sampler.ts';
import type { EmbeddingRows, RecentRows } from './embeddingRows.ts';
import type { CacheLayout } from './messages.ts';

/** Most tokens of a message. A cancellation waits for all of them. */
export const maxSteps = 16;

/** Answered with the tokens that each slice drew. */
export interface DrawMessage {
  readonly kind: 'draw';
  readonly slices: readonly DrawSlice[];
  readonly steps: number;
  /** Absent: the graph takes ids. */
  readonly row?: SharedRow;
}

export interface DrawSlice extends Pick<SamplingSlice, 'token' | 'rules' | 'forbidden' | 'uniforms' | 'stopIds'> {
  readonly sequence: number;
  /** Layout with room for a token a step. */
  readonly layout: CacheLayout;
  /** `SamplingSlice.history`. Absent: nothing is penalised. */
  readonly history?: { readonly sequence: Int32Array; readonly generated: Int32Array };
}

/** A slice as a message; the ids of its history only if they are needed, because a long prompt has thousands. */
export function drawSlice(slice: SamplingSlice, sequence: number, layout: CacheLayout): DrawSlice {
  const { token, rules, forbidden, uniforms, stopIds, history } = slice;
  const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty } = rules;
  return {
    sequence,
    layout,
    token,
    rules: { temperature, topK, topP, minP, repetitionPenalty, presencePenalty },
    forbidden,
    uniforms,
    stopIds,
    ...(penalises(rules) && {
      history: { sequence: Int32Array.from(history.sequence), generated: Int32Array.from(history.generated) },
    }),
  };
}

const noBias = new Map<number, number>();

/**
 * The thread's side: yields a token to compute and is given the logits after it, `[vocabulary]`.
 * @returns the sampled tokens, `steps` of them or up to the first stop id.
 */
export function* drawing(slice: DrawSlice, steps: number): Generator<number, number[], Float32Array> {
  const { rules, forbidden, uniforms, stopIds, history } = slice;
  const settings = { ...rules, logitBias: noBias };
  const said = history && { sequence: new Set(history.sequence), generated: new Set(history.generated) };
  const drawn: number[] = [];
  let { token } = slice;
  do {
    const logits = yield token;
    const uniform = uniforms[drawn.length] ?? 0;
    token = sample(without(logits, forbidden), settings, said ?? emptyHistory, () => uniform);
    drawn.push(token);
    said?.sequence.add(token);
    said?.generated.add(token);
  } while (drawn.length < steps && !stopIds.has(token));
  return drawn;
}

// A token's row of the embedding, which the engine's thread reads from the file while the compute thread waits.

/** Memory of both threads for the row of one token. */
export interface SharedRow {
  /** One of `rowStates`. */
  readonly state: Int32Array<SharedArrayBuffer>;
  /** `[hidden]` */
  readonly values: Float32Array<SharedArrayBuffer>;
}

const rowStates = { awaited: 0, read: 1, failed: 2 } as const;

export const sharedRow = (hiddenSize: number): SharedRow => ({
  state: new Int32Array(new SharedArrayBuffer(4)),
  values: new Float32Array(new SharedArrayBuffer(4 * hiddenSize)),
});

/** Reads the row that the thread waits for. @throws what the read throws, after the thread was told. */
export async function provideRow(rows: EmbeddingRows, token: number, { state, values }: SharedRow): Promise<void> {
  let outcome: number = rowStates.failed;
  try {
    values.set(await rows.of([token]));
    outcome = rowStates.read;
  } finally {
    Atomics.store(state, 0, outcome);
    Atomics.notify(state, 0);
  }
}

/** The thread's side: recent rows, and a wait for others. */
export class AwaitedRows {
  readonly #port: MessagePort;
  readonly #recent: RecentRows;

  constructor(port: MessagePort, recent: RecentRows) {
    this.#port = port;
    this.#recent = recent;
  }

  /** `[hidden]` */
  of(token: number, { state, values }: SharedRow): Float32Array {
    const known = this.#recent.get(token);
    if (known) return known;
    Atomics.store(state, 0, rowStates.awaited);
    this.#port.postMessage({ kind: 'row', token });
    Atomics.wait(state, 0, rowStates.awaited);
    if (Atomics.load(state, 0) === rowStates.failed) throw new Error(`The embedding of token ${token} was not read.`);
    const row = Float32Array.from(values);
    this.#recent.keep(token, row);
    return row;
  }
}
