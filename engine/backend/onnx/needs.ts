/** What a model needs of the machine's memory when the processor computes it. */

import { cacheBytesPerToken, processorPrecision } from '../../model/spec/cachePrecision.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { CachePrecision } from '../../protocol/engineProtocol.ts';
import type { ModelNeeds } from '../memoryPlan.ts';
import { roomFor } from './cacheExtent.ts';

/** The runtime, and the activations of the longest chunk. */
const scratchBytes = 400e6;

/** Layers with a window count like the others: what is kept of them to go back to grows with the context as well. */
export function hostNeeds(spec: DecoderSpec, weightBytes: number, asked?: CachePrecision): ModelNeeds {
  const attentions = spec.layers.map(({ attention }) => attention);
  const tokenBytes = cacheBytesPerToken(attentions, processorPrecision(asked));
  return {
    weightBytes,
    scratchBytes,
    cacheBytes: (tokens) => roomFor(tokens) * tokenBytes,
    longestTokens: spec.contextTokens,
  };
}
