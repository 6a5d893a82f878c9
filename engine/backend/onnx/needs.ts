/** Memory that a model needs on the CPU. */

import { cacheBytesPerToken, processorPrecision } from '../../model/spec/cachePrecision.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import type { ModelNeeds } from '../memoryPlan.ts';
import { allocatedTokens } from './decoder.ts';

/** The runtime, and activations of the longest chunk. */
const scratchBytes = 400e6;

/** Windowed layers count in full: their checkpoints grow with the context as well. */
export function hostNeeds(spec: DecoderSpec, weightBytes: number, asked?: CachePrecision): ModelNeeds {
  const attentions = spec.layers.map(({ attention }) => attention);
  const tokenBytes = cacheBytesPerToken(attentions, processorPrecision(asked));
  return {
    weightBytes,
    scratchBytes,
    cacheBytes: (tokens) => allocatedTokens(tokens) * tokenBytes,
    longestTokens: spec.contextTokens,
  };
}
