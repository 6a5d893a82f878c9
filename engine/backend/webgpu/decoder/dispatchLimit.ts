/**
 * Limits the tokens of a pass so that no dispatch is estimated to take more than 250 ms: Windows resets a GPU that does
 * not answer for two seconds (TdrDelay), and a screen on the same GPU freezes meanwhile. The estimate uses the number
 * of multiply-adds and the speed of earlier passes.
 */
import type {
  AttentionSpec,
  DecoderSpec,
  FeedForwardSpec,
  GatedDeltaSpec,
  LayerSpec,
} from '../../../model/spec/spec.ts';
import { attentionShape } from '../kernels/attention.ts';
import { slidingWindowOf } from './cache.ts';

export const longestDispatchMs = 250;
/** A pass of this few tokens is computed by rows, which read the weights once for all. */
const leastTokens = 16;
/**
 * An attention dispatch takes about as long as matmuls with eight times its operations: 4 against 30 TFLOP/s
 * (docs/kernels.md).
 */
const attentionWeight = 8;
/** Assumed, not measured. A state is updated token by token, so few threads work on it. */
const deltaWeight = 64;

/** Operations of one token: in the largest dispatch, and in all. */
interface Operations {
  readonly largest: number;
  readonly all: number;
}

/** @param end number of positions that its attention sees. */
export function operationsOf(spec: DecoderSpec, end: number): Operations {
  const layers = spec.layers.map((layer) => {
    const products = productsOf(layer, spec.hiddenSize);
    const { attention } = layer;
    if (attention.kind === 'gated-delta') return [...products, deltaWeight * deltaOperations(attention)];
    const { heads, keyDim, valueDim } = attentionShape(attention);
    const seen = Math.min(end, slidingWindowOf(attention) ?? end);
    return [...products, attentionWeight * 2 * heads * (keyDim + valueDim) * seen];
  });
  const largest = Math.max(...layers.flat());
  return { largest, all: layers.flat().reduce((sum, operations) => sum + operations, 0) };
}

function productsOf({ attention, feedForward }: LayerSpec, hiddenSize: number): number[] {
  return [2 * hiddenSize * outputWidth(attention), ...feedForwardProducts(feedForward, hiddenSize)];
}

function outputWidth(attention: AttentionSpec): number {
  if (attention.kind === 'gated-delta') return attention.numValueHeads * attention.valueHeadDim;
  return attention.numAttentionHeads * (attention.kind === 'latent' ? attention.valueHeadDim : attention.headDim);
}

/** Each element of a state is read, changed and multiplied. */
const deltaOperations = ({ numValueHeads, keyHeadDim, valueHeadDim }: GatedDeltaSpec): number =>
  6 * numValueHeads * keyHeadDim * valueHeadDim;

function feedForwardProducts(feedForward: FeedForwardSpec, hiddenSize: number): number[] {
  const each = 2 * hiddenSize * feedForward.intermediateSize;
  if (feedForward.kind === 'plain') return [each, each];
  const operations = feedForward.kind === 'dense' ? each : each * feedForward.expertsPerToken;
  // Gate, up and down.
  return [operations, operations, operations];
}

export class DispatchLimit {
  readonly #spec: DecoderSpec;
  #operationsPerMs: number;

  /** @param operationsPerSecond assumed before the first measurement. */
  constructor(spec: DecoderSpec, operationsPerSecond: number) {
    this.#spec = spec;
    this.#operationsPerMs = operationsPerSecond / 1000;
  }

  /** Most tokens of a pass that ends at position `end`. */
  tokensUntil(end: number): number {
    const tokens = (longestDispatchMs * this.#operationsPerMs) / operationsOf(this.#spec, end).largest;
    return Math.max(leastTokens, Math.floor(tokens));
  }

  /** Records how long a pass of prompt tokens took on the device. */
  measured(tokens: number, end: number, ms: number): void {
    if (tokens <= leastTokens || ms <= 0) return;
    this.#operationsPerMs = (operationsOf(this.#spec, end).all * tokens) / ms;
  }
}
