/** Who computes a decoder. Backends differ in speed, never in meaning: `reference` is the oracle for the others. */

import { HearthError, invalidInput } from '../errors.ts';
import type { DecoderSpec } from '../model/spec/spec.ts';
import type { DecoderWeights } from '../model/weights/weights.ts';
import type { CachePrecision } from '../protocol/engineProtocol.ts';

export type BackendName = 'reference' | 'onnx' | 'webgpu';

export interface LoadOptions {
  /** Longest sequence that will be asked for; absent: what the model was trained for, as far as the backend's memory goes (memoryPlan.ts). */
  readonly contextTokens?: number;
  readonly threads?: number;
  /** How keys and values are kept; absent: as the backend prefers. A backend that cannot keeps them better, and says so in its notes. */
  readonly cachePrecision?: CachePrecision;
  /** Directory for files derived from the weights (packed graphs); absent: nothing is kept on disk. */
  readonly cacheDirectory?: string;
  /** sha256 or another stable name of the weights, to name derived files. */
  readonly digest?: string;
  readonly onProgress?: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
  /** Called when the rest of the load is another thread's or the device's work, if there is such a time: what it does costs nothing. */
  readonly meanwhile?: () => void;
  readonly signal?: AbortSignal;
}

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
   * Most tokens, summed over the batch, that one `run` takes: as many as fill the device, so that a longer run would compute no faster. Memory
   * to compute in is planned for them.
   */
  readonly maxTokensPerRun: number;
  /** Sequences that one `run` may take. */
  readonly maxSequencesPerRun: number;
  /** Sentences for the model card: every place where a weight is not computed in its stored precision, and why. */
  readonly notes: readonly string[];
  createSequence(): Sequence;
  /**
   * Appends each slice's tokens to its sequence and computes their logits.
   * @returns for each slice the rows asked for, `[rows, vocabularySize]` f32, in a buffer the caller may keep. Of a headless
   * spec (an embedding model) hidden states after the final norm, `[rows, hiddenSize]`.
   * @throws HearthError `context-overflow` before anything is changed, `out-of-memory`, `device-lost`.
   */
  run(batch: readonly SequenceSlice[]): Promise<Float32Array[]>;
  /**
   * Whether the key-value memory holds all of that now. Exact: what sequences share counts once, and what a write to shared
   * memory copies counts too.
   */
  hasRoom(demands: readonly CacheDemand[]): boolean;
  readonly storage: SequenceStorage;
  /** Absent where tokens are drawn from logits on the CPU alone. */
  readonly deviceSampling?: DeviceSampling;
  memory(): DecoderMemory;
  /** Of backends that drive a device: what the next token of one sequence asks of it. */
  dispatches?(): Promise<DispatchCounts>;
  /**
   * Bytes a second, read and written, of copies within the device's memory: what the speed of decoding is measured by.
   * @returns undefined where there is no room to copy.
   */
  copyBandwidth?(): Promise<number | undefined>;
  dispose(): Promise<void>;
}

/** Sequences as long as the context that memory is planned for: a chat, a completion, and a summary or old chat. */
export const fullContexts = 3;

/** Tokens that a sequence is about to take. */
export interface CacheDemand {
  readonly sequence: Sequence;
  readonly tokens: number;
}

/** Which tokens a sequence holds. */
export interface SequenceShape {
  readonly tokens: number;
  /** For each group of layers that see equally far, the stretches held: first and end, first and end, and so on. */
  readonly held: readonly (readonly number[])[];
}

/** Takes keys and values out of the decoder as they are, and back in: the restored sequence computes the same bits. */
export interface SequenceStorage {
  /** What the bytes depend on besides the weights and the spec. */
  readonly format: string;
  shapeOf(sequence: Sequence): SequenceShape;
  /** Sizes of the pieces of such a sequence, in order. @throws HearthError `invalid-input`: there is no such sequence here. */
  pieceBytes(shape: SequenceShape): readonly number[];
  /** The sequence must not change meanwhile. */
  save(sequence: Sequence): AsyncIterable<Uint8Array>;
  /** Whether the key-value memory holds such a sequence now. */
  hasRoom(shape: SequenceShape): boolean;
  /**
   * Takes the memory of the pieces over.
   * @throws HearthError `out-of-memory`, `device-lost`, and what `pieces` throws; then nothing is held.
   */
  restore(shape: SequenceShape, pieces: AsyncIterable<Uint8Array>): Promise<Sequence>;
}

/** Draws tokens where the logits are, several in a row without a read-back between them. */
export interface DeviceSampling {
  /** Tokens that one call may draw for each sequence. */
  readonly mostSteps: number;
  /** Whether these rules are followed as sampling/sampler.ts follows them, but for the rounding of probabilities to f32. */
  follows(rules: SamplingRules): boolean;
  /**
   * Appends each slice's token, draws the next, appends that, and so on; the last one drawn is not appended. A slice ends
   * early at a stop id, and its sequence is then as long as if nothing had been drawn after it.
   * @param steps 1 to `mostSteps`; the contexts hold as many tokens more.
   * @returns for each slice the tokens drawn, at least one.
   * @throws HearthError as `run` does.
   */
  sample(slices: readonly SamplingSlice[], steps: number): Promise<number[][]>;
}

/** Of sampling/sampler.ts, without what needs the logits on the CPU. */
export interface SamplingRules {
  /** 0 is greedy. */
  readonly temperature: number;
  /** Keep the k most probable tokens; 0: all. */
  readonly topK: number;
  /** Keep the most probable tokens whose mass reaches p (Holtzman et al. 2019); 1: all. */
  readonly topP: number;
  /** Drop tokens less probable than this share of the most probable one (Nguyen et al. 2024); 0: none. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of every token of the sequence (Keskar et al. 2019); 1: off. */
  readonly repetitionPenalty: number;
  /** Subtracted once from the logit of each token that was generated (the OpenAI API's meaning); 0: off. */
  readonly presencePenalty: number;
}

export interface SamplingSlice {
  readonly sequence: Sequence;
  readonly token: number;
  readonly rules: SamplingRules;
  /** What the penalties look at, `token` included: prompt and answer, and the answer alone. */
  readonly history: { readonly sequence: ReadonlySet<number>; readonly generated: ReadonlySet<number> };
  /** Ids that are never drawn, in any of the steps. */
  readonly forbidden: readonly number[];
  /** Numbers in [0, 1), one for each step. */
  readonly uniforms: readonly number[];
  readonly stopIds: ReadonlySet<number>;
}

/** Kernels started for one token. */
export interface DispatchCounts {
  /** Of each layer. */
  readonly layers: readonly number[];
  /** Of all layers, the embedding and the head. */
  readonly token: number;
}

export interface SequenceSlice {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  readonly logits: 'none' | 'last' | 'all';
}

/** The key-value cache of one token sequence in one decoder. */
export interface Sequence {
  /** Tokens whose keys and values are cached. */
  readonly length: number;
  /**
   * Forgets every token from `length` on.
   * @returns the length kept: `length`, or less where a sliding window no longer holds what that position needs.
   */
  truncate(length: number): number;
  /** The length that `truncate` would keep. */
  reachable(length: number): number;
  /**
   * Tells at which lengths, passed or to come, a rewind is likely; takes the place of what was told before, and forks know
   * it too. What a sliding window sees from there stays in memory, but for a few lengths alone (rewind.ts).
   */
  mark(lengths: readonly number[]): void;
  /** A sequence with the same cached tokens, sharing memory where the backend can. */
  fork(): Sequence;
  dispose(): void;
}

export interface DecoderMemory {
  readonly weightBytes: number;
  /** Of keys and values that sequences hold, and the most that they may hold. */
  readonly cacheBytes: number;
  readonly cacheCapacityBytes: number;
  /** Of a cached value, scales included where there are some. */
  readonly cacheBytesPerValue: number;
}

// What every backend asks of a batch before it changes anything.

export type OwnSlice<Own extends Sequence> = Omit<SequenceSlice, 'sequence'> & { readonly sequence: Own };

/**
 * The batch with its sequences as the decoder's own.
 * @param own the sequence as the decoder made it, or undefined: another decoder's, or one that was disposed.
 * @throws HearthError `context-overflow`, `invalid-input`.
 */
export function checkedBatch<Own extends Sequence>(
  batch: readonly SequenceSlice[],
  decoder: Decoder,
  own: (sequence: Sequence) => Own | undefined,
): OwnSlice<Own>[] {
  const slices = batch.map((slice) => {
    const sequence = own(slice.sequence);
    if (!sequence) throw new Error('a sequence of another decoder, or one that was disposed');
    return { ...slice, sequence };
  });
  if (new Set(slices.map(({ sequence }) => sequence)).size < slices.length) {
    throw new Error('a sequence may appear once in a run');
  }
  const tokens = slices.reduce((sum, slice) => sum + slice.tokens.length, 0);
  if (slices.length > decoder.maxSequencesPerRun) throw new Error('a run larger than maxSequencesPerRun');
  if (tokens > decoder.maxTokensPerRun) throw new Error('a run larger than maxTokensPerRun');
  for (const slice of slices) checkTokens(slice, decoder);
  return slices;
}

function checkTokens({ sequence, tokens }: SequenceSlice, { contextTokens, spec }: Decoder): void {
  const needed = sequence.length + tokens.length;
  if (needed > contextTokens) {
    throw new HearthError(
      'context-overflow',
      `${needed} tokens do not fit the context of ${contextTokens}; nothing was changed. Shorten the prompt.`,
    );
  }
  const strange = tokens.find((id) => !Number.isInteger(id) || id < 0 || id >= spec.vocabularySize);
  if (strange !== undefined) throw invalidInput(`Token ${strange} is not in the vocabulary.`);
}

// How far back a sequence can go. Layers with a sliding window forget what no later token sees; what is seen from some
// lengths they keep, so that a sequence can be truncated to those.

/** Tokens that a sliding window keeps beyond what the next token sees, so that a short way back costs nothing. */
export const rewindTokens = 256;

/** What is seen from every multiple of this is kept. */
export const snapshotTokens = (slidingWindow: number): number => Math.max(512, 4 * slidingWindow);

/** Lengths that one sequence keeps besides: what bounds their memory. */
export const mostMarks = 8;

/** Of the lengths at which a rewind is likely those that are kept: the first, which conversations share, and the last ones. */
export function chosenMarks(lengths: readonly number[]): number[] {
  const ascending = [...new Set(lengths)].filter((length) => length > 0).sort((a, b) => a - b);
  return ascending.length > mostMarks ? [...ascending.slice(0, 1), ...ascending.slice(1 - mostMarks)] : ascending;
}

// What every backend asks of a stored sequence before it takes it in.

/**
 * @param windows how far each group of layers sees; undefined: back to the first token.
 * @throws HearthError `invalid-input` unless it is the shape of a sequence within the context that can be continued.
 */
export function checkShape(
  { tokens, held }: SequenceShape,
  contextTokens: number,
  windows: readonly (number | undefined)[],
): void {
  const fits = Number.isInteger(tokens) && tokens > 0 && tokens <= contextTokens && held.length === windows.length;
  if (fits && windows.every((window, group) => canContinue(held[group] ?? [], tokens, window))) return;
  throw invalidInput(`A stored sequence of ${tokens} tokens does not fit this model.`);
}

/** Stretches ascend, lie apart from each other, and the last one has all that the next token sees. */
function canContinue(stretches: readonly number[], tokens: number, window: number | undefined): boolean {
  const ascends = stretches.every((at, i) => Number.isInteger(at) && at > (stretches[i - 1] ?? -1));
  const firstSeen = window === undefined ? 0 : Math.max(0, tokens - window + 1);
  const [first = tokens, end] = stretches.slice(-2);
  return ascends && stretches.length % 2 === 0 && end === tokens && first <= firstSeen;
}

/** The pieces with their places. @throws Error when they are not of these sizes. */
export async function* piecesFor(
  sizes: readonly number[],
  pieces: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly [number, Uint8Array]> {
  let index = 0;
  for await (const piece of pieces) {
    if (piece.byteLength !== sizes[index]) throw new Error(`piece ${index} of a stored sequence has another size`);
    yield [index++, piece];
  }
  if (index < sizes.length) throw new Error('a stored sequence lacks pieces');
}

/** The bytes as floats, without a copy where they lie at a multiple of four. */
export function floatsOf(bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Float32Array(buffer, byteOffset, byteLength / 4);
}
