/** The feed-forward half of a layer: one gated network, or a few chosen of many. */
import type { FeedForwardSpec } from '../../model/spec/spec.ts';
import type { FeedForwardWeights } from '../../model/weights/weights.ts';
import { expertNetworks } from './experts.ts';
import { gatedNetwork } from './gatedNetwork.ts';
import type { Value } from './graphBuilder.ts';
import type { GraphContext } from './linear.ts';

/** `input` and result: `[1, tokens, hidden]` */
export function feedForward(
  context: GraphContext,
  spec: FeedForwardSpec,
  weights: FeedForwardWeights,
  input: Value,
): Value {
  if (spec.kind === 'dense' && weights.kind === 'dense') return gatedNetwork(context, spec.activation, weights, input);
  if (spec.kind === 'experts' && weights.kind === 'experts') return expertNetworks(context, spec, weights, input);
  throw new Error(`${weights.kind} weights for a ${spec.kind} feed-forward`);
}
