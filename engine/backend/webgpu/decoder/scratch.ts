/** The buffers that a token's values pass through, allocated once for the largest run. */
import { type DecoderSpec, type FeedForwardSpec, outputSize } from '../../../model/spec/spec.ts';
import type { Allocator } from '../device/gpu.ts';
import { attentionShape, attentionSplits } from '../kernels/attention.ts';
import { groupingBytes } from '../kernels/groupExperts.ts';
import { tileTokens } from '../kernels/matrixTiles.ts';
import { paddedWidth } from './gpuWeights.ts';

/** Rows of logits that are computed and read back at once. */
export const logitRowsAtOnce = 16;

export const maxTokensPerRun = 512;

/** `[tokens, …]` each, but for `grouping`, `parts`, `halves`, `chosen` and `logits`. */
export interface Scratch {
  /** The residual stream: `hidden`. */
  readonly hidden: GPUBuffer;
  /** `hidden` */
  readonly normed: GPUBuffer;
  /** Latent: the compressed query, and the same normalised. `queryRank` */
  readonly queryDown: GPUBuffer;
  readonly queryNormed: GPUBuffer;
  /** `heads · headDim`; latent: `heads · (nope + rope)` */
  readonly query: GPUBuffer;
  /** `kvHeads · headDim`; latent: `keyValueRank + rope` in `key` */
  readonly key: GPUBuffer;
  readonly value: GPUBuffer;
  /** Latent: `heads · nope`, `heads · rope`, `heads · keyValueRank` */
  readonly nopeQuery: GPUBuffer;
  readonly ropeQuery: GPUBuffer;
  readonly latentQuery: GPUBuffer;
  /** `heads · headDim`; latent: `heads · keyValueRank` */
  readonly attended: GPUBuffer;
  /** Latent: `heads · value` */
  readonly headValues: GPUBuffer;
  /** `[splits, rows, heads, headDim + 4]` */
  readonly parts: GPUBuffer;
  /** `intermediate` */
  readonly gate: GPUBuffer;
  readonly up: GPUBuffer;
  /** Router logits: `experts` */
  readonly scores: GPUBuffer;
  /** Experts' numbers and their weights: `topK` */
  readonly experts: GPUBuffer;
  readonly expertWeights: GPUBuffer;
  /** `topK · intermediate` of the chosen experts */
  readonly expertStates: GPUBuffer;
  /** Prompts: `topK · intermediate` of the gates, `topK · hidden` of the chosen experts' outputs. */
  readonly expertGates: GPUBuffer;
  readonly expertOutputs: GPUBuffer;
  /** Prompts: the tokens of each expert, as groupExperts leaves them. */
  readonly grouping: GPUBuffer;
  /** Prompts with subgroup matrices: what is multiplied, in halves (splitHalves), and the scales of its rows. */
  readonly halves: GPUBuffer;
  readonly halfScales: GPUBuffer;
  /** Rows of `hidden` whose logits are asked for. `[logitRowsAtOnce, hidden]` */
  readonly chosen: GPUBuffer;
  /** `[logitRowsAtOnce, vocabulary]`, or hidden of an embedding model. */
  readonly logits: GPUBuffer;
  /** The same on their way to the host. */
  readonly reading: GPUBuffer;
  readonly bytes: number;
}

export interface ScratchLimits {
  readonly maxTokensPerRun: number;
  /** Rows of the runs that split the keys. */
  readonly rowBuckets: readonly number[];
  /** Prompts are multiplied in halves. */
  readonly halves: boolean;
}

/** Values a token of every buffer that holds some for each token of a run. */
function widths(spec: DecoderSpec) {
  const grouped = spec.layers.flatMap(({ attention }) => (attention.kind === 'grouped-query' ? [attention] : []));
  const latent = spec.layers.flatMap(({ attention }) => (attention.kind === 'latent' ? [attention] : []));
  const dense = spec.layers.map(({ feedForward }) => feedForward);
  const experts = dense.flatMap((feedForward) => (feedForward.kind === 'experts' ? [feedForward] : []));
  const queries = grouped.map(({ numAttentionHeads, headDim }) => numAttentionHeads * headDim);
  const keys = grouped.map(({ numKeyValueHeads, headDim }) => numKeyValueHeads * headDim);
  const ofHeads = (width: (spec: (typeof latent)[number]) => number) =>
    latent.map((attention) => attention.numAttentionHeads * width(attention));
  const latents = ofHeads(({ keyValueRank }) => keyValueRank);
  return {
    hidden: [spec.hiddenSize],
    normed: [spec.hiddenSize],
    queryDown: latent.map(({ queryRank = 0 }) => queryRank),
    queryNormed: latent.map(({ queryRank = 0 }) => queryRank),
    query: [...queries, ...ofHeads(({ nopeHeadDim, ropeHeadDim }) => nopeHeadDim + ropeHeadDim)],
    key: [...keys, ...latent.map(({ keyValueRank, ropeHeadDim }) => keyValueRank + ropeHeadDim)],
    value: keys,
    nopeQuery: ofHeads(({ nopeHeadDim }) => nopeHeadDim),
    ropeQuery: ofHeads(({ ropeHeadDim }) => ropeHeadDim),
    latentQuery: latents,
    attended: [...queries, ...latents],
    headValues: ofHeads(({ valueHeadDim }) => valueHeadDim),
    gate: dense.map(denseWidth),
    up: dense.map(denseWidth),
    scores: experts.map(({ numExperts }) => numExperts),
    experts: experts.map(({ expertsPerToken }) => expertsPerToken),
    expertWeights: experts.map(({ expertsPerToken }) => expertsPerToken),
    expertStates: experts.map(({ expertsPerToken, intermediateSize }) => expertsPerToken * intermediateSize),
    expertGates: experts.map(({ expertsPerToken, intermediateSize }) => expertsPerToken * intermediateSize),
    expertOutputs: experts.map(({ expertsPerToken }) => expertsPerToken * spec.hiddenSize),
  } satisfies Partial<Record<keyof Scratch, number[]>>;
}

function denseWidth(feedForward: FeedForwardSpec): number {
  const { kind } = feedForward;
  return paddedWidth(kind === 'dense' ? feedForward.intermediateSize : (feedForward.sharedIntermediateSize ?? 0));
}

function groupingWords(spec: DecoderSpec, maxTokens: number): number {
  const words = spec.layers.map(({ feedForward }) => {
    if (feedForward.kind === 'dense') return 0;
    const { numExperts, expertsPerToken: topK } = feedForward;
    return groupingBytes({ numExperts, topK, tileTokens, maxTokens }) / 4;
  });
  return Math.max(0, ...words);
}

/** Values and rows a token of the largest operand of a prompt's products. */
function largestOperand(spec: DecoderSpec): { readonly values: number; readonly rows: number } {
  const { normed, queryNormed, nopeQuery, attended, headValues, up, expertStates } = widths(spec);
  const chosen = spec.layers.map(({ feedForward }) =>
    feedForward.kind === 'experts' ? feedForward.expertsPerToken : 1,
  );
  const values = [normed, queryNormed, nopeQuery, attended, headValues, up, expertStates].flat();
  return { values: Math.max(...values), rows: Math.max(...chosen) };
}

/** Values of the largest parts that split attention leaves. */
function partValues(spec: DecoderSpec, rowBuckets: readonly number[]): number {
  const sizes = spec.layers.flatMap(({ attention }) => {
    const shape = attentionShape(attention);
    return rowBuckets.map((rows) => attentionSplits(shape, rows) * rows * shape.heads * (shape.valueDim + 4));
  });
  return Math.max(...sizes);
}

export async function allocateScratch(gpu: Allocator, spec: DecoderSpec, limits: ScratchLimits): Promise<Scratch> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const before = gpu.allocatedBytes;
  const values = (label: string, count: number) => gpu.allocate(`${label} of a run`, 4 * count, usage);
  const wanted = widths(spec);
  const perToken = (name: keyof typeof wanted) => values(name, limits.maxTokensPerRun * Math.max(0, ...wanted[name]));
  const halved = limits.halves ? largestOperand(spec) : { values: 0, rows: 0 };
  return {
    hidden: await perToken('hidden'),
    normed: await perToken('normed'),
    queryDown: await perToken('queryDown'),
    queryNormed: await perToken('queryNormed'),
    query: await perToken('query'),
    key: await perToken('key'),
    value: await perToken('value'),
    nopeQuery: await perToken('nopeQuery'),
    ropeQuery: await perToken('ropeQuery'),
    latentQuery: await perToken('latentQuery'),
    attended: await perToken('attended'),
    headValues: await perToken('headValues'),
    gate: await perToken('gate'),
    up: await perToken('up'),
    scores: await perToken('scores'),
    experts: await perToken('experts'),
    expertWeights: await perToken('expertWeights'),
    expertStates: await perToken('expertStates'),
    expertGates: await perToken('expertGates'),
    expertOutputs: await perToken('expertOutputs'),
    grouping: await values('experts of tokens', groupingWords(spec, limits.maxTokensPerRun)),
    parts: await values('attention parts', partValues(spec, limits.rowBuckets)),
    halves: await values('halves', limits.maxTokensPerRun * halved.values),
    halfScales: await values('scales of halves', limits.maxTokensPerRun * halved.rows),
    chosen: await values('last hidden states', logitRowsAtOnce * spec.hiddenSize),
    logits: await values('logits', logitRowsAtOnce * outputSize(spec)),
    reading: await gpu.allocate(
      'logits on their way',
      4 * logitRowsAtOnce * outputSize(spec),
      GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    ),
    bytes: gpu.allocatedBytes - before,
  };
}
