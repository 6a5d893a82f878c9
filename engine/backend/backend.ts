/**
 * The interface of a backend: load a decoder, run forward passes, manage KV-cache sequences. Backends differ in speed,
 * never in results: `reference` is the oracle that the others are tested against.
 */

import { HearthError, invalidInput } from '../errors.ts';
import { type CacheDemand, requireOwn, type Sequence, type SequenceSerializer } from '../kv/blockCache.ts';
import type { DecoderSpec } from '../model/spec/spec.ts';
import type { DecoderWeights } from '../model/weights/weights.ts';
import type { CachePrecision } from '../protocol/models.ts';

export type BackendName = 'reference' | 'ggml' | 'onnx' | 'webgpu' | 'split';

export interface LoadOptions {
  /** Longest sequence to support. Default: the model's trained context, or less if memory is short (memoryPlan.ts). */
  readonly contextTokens?: number;
  readonly threads?: number;
  /**
   * KV-cache precision; default: the backend's own. A backend without that precision uses a higher one and reports it
   * in `notes`.
   */
  readonly cachePrecision?: CachePrecision;
  /**
   * Directory for files derived from the weights (packed weights) and for measurements of the device. Absent: nothing
   * is kept on disk.
   */
  readonly cacheDirectory?: string;
  /** Models of other windows are loaded: refuse memory that is not free now, even if the system could make room. */
  readonly besideOthers?: boolean;
  /** sha256 or another stable identifier of the weights; names the derived files. */
  readonly digest?: string;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
  /**
   * Called once the rest of the load runs on another thread or on the device, so that the caller can use the time for
   * other work.
   */
  readonly meanwhile?: () => void;
  readonly signal?: AbortSignal;
}

/** The error for logits that are not finite although the weights match the file. */
export const notFinite = (): HearthError =>
  new HearthError(
    'unsupported',
    "The model's results are not finite numbers: its weights are damaged or exceed this backend's range. " +
      'Download the model again, or convert it again.',
  );

/** Also for the error of a thread, which loses its identity. */
export const isNotFinite = (error: unknown): boolean =>
  error instanceof HearthError && error.message === notFinite().message;

export interface Backend {
  readonly name: BackendName;
  /** @throws HearthError `unsupported`, `out-of-memory`, `invalid-input`, `cancelled`. */
  load(spec: DecoderSpec, weights: DecoderWeights, options: LoadOptions): Promise<Decoder>;
}

/** A loaded model. One `run` at a time; the scheduler owns the order. */
export interface Decoder {
  readonly spec: DecoderSpec;
  readonly backend: BackendName;
  readonly contextTokens: number;
  /**
   * Most tokens of one `run`, summed over the batch. A longer forward pass would not be faster. Scratch memory is
   * planned for this size.
   */
  readonly maxTokensPerRun: number;
  /** Most sequences of one `run`. */
  readonly maxSequencesPerRun: number;
  /** Sentences for the model card: each weight type that isn't computed in its stored precision, and why. */
  readonly notes: readonly string[];
  createSequence(): Sequence;
  /**
   * Runs a forward pass: appends each slice's tokens to its sequence and computes logits.
   * @returns for each slice the requested rows, `[rows, vocabularySize]` f32, in a buffer the caller may keep. A
   * headless spec (an embedding model) returns hidden states after the final norm, `[rows, hiddenSize]` f32; an inner stage
   * returns them as they leave its layers.
   * @throws HearthError `context-overflow` (nothing has changed), `out-of-memory`, `device-lost`.
   */
  run(batch: readonly SequenceSlice[]): Promise<Float32Array[]>;
  /**
   * GPU backends only: starts a forward pass that asks for no logits. Resolves once the pass is submitted and its tokens count
   * as cached; passes that follow are computed after it. At most one may be in flight when another is started.
   * @throws HearthError as `run` does, `device-lost` also from `done`.
   */
  submit?(batch: readonly SequenceSlice[]): Promise<SubmittedPass>;
  /**
   * Whether the KV cache can take all of these tokens now. Exact: blocks shared between sequences count once, and
   * copies made by a write to a shared block are included.
   */
  canAllocate(demands: readonly CacheDemand[]): boolean;
  readonly serializer: SequenceSerializer;
  /** Absent if only the engine's thread can sample, from logits. */
  readonly deviceSampling?: DeviceSampling;
  memory(): DecoderMemory;
  /** GPU backends only: kernels dispatched to decode one token. */
  dispatches?(): Promise<DispatchCounts>;
  /**
   * Bandwidth of copies within device memory, bytes read plus bytes written, a second. The upper bound of decode speed
   * follows from it.
   * @returns undefined if there isn't enough free memory for the copy.
   */
  copyBandwidth?(): Promise<number | undefined>;
  /** GPU backends only: times variants of its kernels. */
  readonly tuner?: Tuner;
  dispose(): Promise<void>;
}

export interface SubmittedPass {
  /** Resolves when the device has computed it. */
  readonly done: Promise<void>;
}

/** Finds the fastest variants of a decoder's kernels while nothing else runs. */
export interface Tuner {
  /** Whether to tune in idle time: not yet done on this device and driver, and the device is not a software GPU. */
  readonly isDue: boolean;
  /** Compiles the kernels of the next step. @returns false when tuning is complete. */
  ready(): Promise<boolean>;
  /** Times kernels for about ten milliseconds; nothing else may run on the decoder meanwhile. */
  step(): Promise<void>;
  /** Present when tuning is complete; the decoder then uses the fastest variants. */
  readonly report: TuningReport | undefined;
}

export interface TuningReport {
  readonly trials: readonly { readonly name: string; readonly tokenMs: number; readonly chosen: boolean }[];
  /** Kernels of one decoded token, the slowest first; bytes of weights read by all their dispatches. */
  readonly kernels: readonly {
    readonly name: string;
    readonly dispatches: number;
    readonly ms: number;
    readonly bytes?: number | undefined;
  }[];
  readonly copyBytesPerSecond?: number | undefined;
}

/** Full contexts that the KV cache is sized for: one chat, one completion, and one summary or older chat. */
export const fullContexts = 3;

/** Samples where logits are computed (a GPU, a compute thread), several tokens in a row without a message in between. */
export interface DeviceSampling {
  /** Most tokens that one call samples for each sequence. */
  readonly maxSteps: number;
  /** `sample` supports `ahead`. */
  readonly samplesAhead: boolean;
  /**
   * Whether the device implements these parameters as backend/sampler.ts does, up to rounding of probabilities to f32.
   */
  supports(rules: SamplingParams): boolean;
  /**
   * For each step: appends the slice's token and samples the next one, which is the token of the following step. The
   * last sampled token is not appended. A slice ends early at a stop id; tokens sampled after it are removed from its
   * sequence.
   * @param steps 1 to `maxSteps`; each sequence's context must have space for as many tokens.
   * @param ahead further steps that the device starts meanwhile, 0 to `maxSteps`; they need space too. The next call
   * returns their tokens if it continues all slices with `steps` equal to this number; any other call drops them.
   * @returns the sampled tokens of each slice, at least one.
   * @throws HearthError as `run` does.
   */
  sample(slices: readonly SamplingSlice[], steps: number, ahead?: number): Promise<number[][]>;
}

/** The sampling parameters that a device can apply without reading logits back. */
export interface SamplingParams {
  /** 0 is greedy. */
  readonly temperature: number;
  /** Keep the k most probable tokens; 0: all. */
  readonly topK: number;
  /** Keep the most probable tokens whose mass reaches p (Holtzman et al. 2019); 1: all. */
  readonly topP: number;
  /** Drop tokens less probable than this share of the most probable one (Nguyen et al. 2024); 0: none. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of every token in the sequence (Keskar et al. 2019); 1: off. */
  readonly repetitionPenalty: number;
  /** Subtracted once from the logit of each generated token (as in the OpenAI API); 0: off. */
  readonly presencePenalty: number;
}

export interface SamplingSlice {
  readonly sequence: Sequence;
  readonly token: number;
  readonly rules: SamplingParams;
  /** Token ids that penalties apply to, `token` included: `sequence` is prompt and answer, `generated` the answer. */
  readonly history: { readonly sequence: ReadonlySet<number>; readonly generated: ReadonlySet<number> };
  /** Ids that are masked in every step. */
  readonly forbidden: readonly number[];
  /** Random numbers in [0, 1), one a step, including the steps ahead. */
  readonly uniforms: readonly number[];
  readonly stopIds: ReadonlySet<number>;
}

/** Kernel dispatches for one decoded token. */
export interface DispatchCounts {
  /** For each layer. */
  readonly layers: readonly number[];
  /** In total, with embedding and head. */
  readonly token: number;
}

export interface SequenceSlice {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  readonly logits: 'none' | 'last' | 'all';
  /** Present for a stage (`DecoderSpec.stage`): the tokens' hidden states as they enter it. `[tokens, hiddenSize]` */
  readonly hidden?: Float32Array;
}

export interface DecoderMemory {
  readonly weightBytes: number;
  /** Bytes of keys and values in use, and the most that may be in use. */
  readonly cacheBytes: number;
  readonly cacheCapacityBytes: number;
  /** Beyond this, idle sequences are evicted even while there is room. Absent: no limit. */
  readonly idleLimitBytes?: number;
  /** Bytes of one cached value, including its share of the scales. */
  readonly cacheBytesPerValue: number;
}

// Checks for all backends, made before a forward pass changes anything.

export type OwnSlice<Own extends Sequence> = Omit<SequenceSlice, 'sequence'> & { readonly sequence: Own };

export const demandsOf = <Own extends Sequence>(slices: readonly OwnSlice<Own>[]) =>
  slices.map(({ sequence, tokens }) => ({ sequence, tokens: tokens.length }));

/**
 * The batch with each sequence as the backend's own type.
 * @param own returns undefined for a disposed sequence or one of another decoder.
 * @throws HearthError `context-overflow`, `invalid-input`.
 */
export function checkedBatch<Own extends Sequence>(
  batch: readonly SequenceSlice[],
  decoder: Decoder,
  own: (sequence: Sequence) => Own | undefined,
): OwnSlice<Own>[] {
  const slices = batch.map((slice) => ({ ...slice, sequence: requireOwn(own(slice.sequence)) }));
  if (new Set(slices.map(({ sequence }) => sequence)).size < slices.length) {
    throw new Error('A sequence may appear only once in a batch.');
  }
  const tokens = slices.reduce((sum, slice) => sum + slice.tokens.length, 0);
  if (slices.length > decoder.maxSequencesPerRun) throw new Error('The batch exceeds maxSequencesPerRun.');
  if (tokens > decoder.maxTokensPerRun) throw new Error('The batch exceeds maxTokensPerRun.');
  for (const slice of slices) checkTokens(slice, decoder);
  return slices;
}

function checkTokens({ sequence, tokens, hidden }: SequenceSlice, { contextTokens, spec }: Decoder): void {
  if ((hidden?.length ?? 0) !== (spec.stage ? tokens.length * spec.hiddenSize : 0)) {
    throw new Error('Hidden states are given to stages, one row a token.');
  }
  const needed = sequence.length + tokens.length;
  if (needed > contextTokens) {
    throw new HearthError(
      'context-overflow',
      `${needed} tokens don't fit the context window of ${contextTokens}. Nothing was changed. Shorten the prompt.`,
    );
  }
  const strange = tokens.find((id) => !Number.isInteger(id) || id < 0 || id >= spec.vocabularySize);
  if (strange !== undefined) throw invalidInput(`Token ${strange} is not in the vocabulary.`);
}

// A batch that is computed in several passes.

interface PassSlice {
  readonly sequence: { readonly length: number; tokensUntilCheckpoint(length: number): number };
  readonly tokens: readonly number[];
  readonly logits: SequenceSlice['logits'];
  readonly hidden?: Float32Array;
}

/**
 * Splits the batch into passes of at most this many tokens, in the order of each slice; `index` is a piece's slice. A
 * pass ends where a sequence must keep its state.
 */
export function passesOf<Slice extends PassSlice>(
  slices: readonly Slice[],
  mostTokens: number,
): { readonly index: number; readonly slice: Slice }[][] {
  const passes: { index: number; slice: Slice }[][] = [[]];
  let room = mostTokens;
  for (const [index, slice] of slices.entries()) {
    for (let at = 0; at < slice.tokens.length; ) {
      if (room === 0) {
        passes.push([]);
        room = mostTokens;
      }
      const { length } = slice.sequence;
      const tokens = slice.tokens.slice(at, at + Math.min(room, slice.sequence.tokensUntilCheckpoint(length + at)));
      const width = (slice.hidden?.length ?? 0) / slice.tokens.length;
      const hidden = slice.hidden?.subarray(at * width, (at + tokens.length) * width);
      at += tokens.length;
      const isLast = at === slice.tokens.length;
      // A sequence may appear only once in a pass.
      room = isLast ? room - tokens.length : 0;
      const logits = slice.logits === 'last' && !isLast ? 'none' : slice.logits;
      passes.at(-1)?.push({ index, slice: { ...slice, tokens, logits, ...(hidden && { hidden }) } });
    }
  }
  return passes;
}

/** Concatenates the logits of two passes of a slice. */
export function joined(
  before: Float32Array = new Float32Array(),
  after: Float32Array = new Float32Array(),
): Float32Array {
  if (before.length === 0) return after;
  const both = new Float32Array(before.length + after.length);
  both.set(before);
  both.set(after, before.length);
  return both;
}
