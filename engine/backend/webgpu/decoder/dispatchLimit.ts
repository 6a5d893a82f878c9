/**
 * How many tokens a pass takes so that no dispatch is estimated above 250 ms: Windows resets a GPU that does not answer for two seconds
 * (TdrDelay), and a screen that shares it stands still meanwhile. The estimate is made of multiply-adds and of the speed of earlier passes.
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
/** A pass of so few is computed by rows, which read weights once for all. */
const leastTokens = 16;
/** An attention dispatch takes about as long as products of eight times its operations: 4 against 30 TFLOP/s (docs/kernels.md). */
const attentionWeight = 8;
/** Assumed, not measured: a state goes from token to token, so that few threads work on it. */
const deltaWeight = 64;

/** Operations of one token: of the largest dispatch, and of all. */
interface Operations {
  readonly largest: number;
  readonly all: number;
}

/** @param end positions that its attention sees */
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

  /** @param operationsPerSecond assumed before the first measurement */
  constructor(spec: DecoderSpec, operationsPerSecond: number) {
    this.#spec = spec;
    this.#operationsPerMs = operationsPerSecond / 1000;
  }

  /** Most tokens of a pass that ends at position `end`. */
  tokensUntil(end: number): number {
    const tokens = (longestDispatchMs * this.#operationsPerMs) / operationsOf(this.#spec, end).largest;
    return Math.max(leastTokens, Math.floor(tokens));
  }

  /** A pass of prompt tokens took so long on the device. */
  measured(tokens: number, end: number, ms: number): void {
    if (tokens <= leastTokens || ms <= 0) return;
    this.#operationsPerMs = (operationsOf(this.#spec, end).all * tokens) / ms;
  }
}
