/** The buffers that a token's values pass through, allocated once for the largest run. */
import type { DecoderSpec, FeedForwardSpec } from '../../model/spec.ts';
import type { Gpu } from './gpu.ts';
import { attentionShape } from './kernels/attention.ts';

/** Rows of logits that are computed and read back at once. */
export const logitRowsAtOnce = 16;

export interface Scratch {
  /** The residual stream. `[tokens, hidden]` */
  readonly hidden: GPUBuffer;
  /** `[tokens, hidden]` */
  readonly normed: GPUBuffer;
  /** `[tokens, heads · headDim]` */
  readonly query: GPUBuffer;
  /** `[tokens, kvHeads · headDim]` */
  readonly key: GPUBuffer;
  readonly value: GPUBuffer;
  /** `[tokens, heads · headDim]` */
  readonly attended: GPUBuffer;
  /** `[splits, up to vectorTokens, heads, headDim + 4]` */
  readonly parts: GPUBuffer;
  /** `[tokens, intermediate]` */
  readonly gate: GPUBuffer;
  readonly up: GPUBuffer;
  /** Rows of `hidden` whose logits are asked for. `[logitRowsAtOnce, hidden]` */
  readonly chosen: GPUBuffer;
  /** `[logitRowsAtOnce, vocabulary]` */
  readonly logits: GPUBuffer;
  readonly bytes: number;
}

export interface ScratchLimits {
  readonly maxTokensPerRun: number;
  /** Most rows of a run that splits the keys. */
  readonly vectorTokens: number;
  readonly splits: number;
}

export async function allocateScratch(gpu: Gpu, spec: DecoderSpec, limits: ScratchLimits): Promise<Scratch> {
  const { hiddenSize, vocabularySize } = spec;
  const shapes = spec.layers.map(({ attention }) => attentionShape(attention));
  const widest = (width: (shape: (typeof shapes)[number]) => number) => Math.max(...shapes.map(width));
  const queryWidth = widest(({ heads, valueDim }) => heads * valueDim);
  const keyWidth = widest(({ kvHeads, keyDim }) => kvHeads * keyDim);
  const partWidth = widest(({ heads, valueDim }) => heads * (valueDim + 4));
  const intermediate = Math.max(...spec.layers.map(({ feedForward }) => intermediateWidth(feedForward)));
  const rows = limits.maxTokensPerRun;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const values = (label: string, count: number) => gpu.allocate(label, 4 * count, usage);
  const before = gpu.allocatedBytes;
  const scratch = {
    hidden: await values('hidden states', rows * hiddenSize),
    normed: await values('normalised states', rows * hiddenSize),
    query: await values('queries', rows * queryWidth),
    key: await values('new keys', rows * keyWidth),
    value: await values('new values', rows * keyWidth),
    attended: await values('attention output', rows * queryWidth),
    parts: await values('attention parts', limits.splits * limits.vectorTokens * partWidth),
    gate: await values('gates', rows * intermediate),
    up: await values('feed-forward states', rows * intermediate),
    chosen: await values('last hidden states', logitRowsAtOnce * hiddenSize),
    logits: await values('logits', logitRowsAtOnce * vocabularySize),
  };
  return { ...scratch, bytes: gpu.allocatedBytes - before };
}

function intermediateWidth(feedForward: FeedForwardSpec): number {
  return feedForward.kind === 'dense' ? feedForward.intermediateSize : (feedForward.sharedIntermediateSize ?? 1);
}
