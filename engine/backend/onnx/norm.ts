/** Root-mean-square normalisation. */
import type { Weight } from '../../model/weights/weights.ts';
import type { Value } from './graphBuilder.ts';
import type { GraphContext } from './linear.ts';
import { allRows } from './weightsFile.ts';

/** Over the last dimension, times `weight`. */
export function rmsNorm({ graph, layout, normEpsilon }: GraphContext, input: Value, weight: Weight): Value {
  const scale = graph.stored(layout.floats([allRows(weight)]));
  return graph.op('SimplifiedLayerNormalization', [input, scale], {
    axis: -1,
    epsilon: { float: normEpsilon },
    stash_type: 1,
  });
}

/** The stream of hidden states, to which every block adds; the last addition waits for the norm that follows it. */
export interface Residual {
  readonly stream: Value;
  readonly addition?: Value;
}

/** Adds what waits, and normalises the sum. */
export function addAndNorm(context: GraphContext, { stream, addition }: Residual, weight: Weight) {
  if (addition === undefined) return { stream, normed: rmsNorm(context, stream, weight) };
  const { graph, layout, normEpsilon } = context;
  const [normed, sum] = graph.contribOutputs(
    'SkipSimplifiedLayerNormalization',
    [stream, addition, graph.stored(layout.floats([allRows(weight)]))],
    { epsilon: { float: normEpsilon } },
    [true, false, false, true],
  );
  return { stream: sum as Value, normed: normed as Value };
}
