/** Every weight of a decoder with its role, in the order of computation: for loading progress and model cards. */
import type { AttentionWeights, DecoderWeights, DenseWeights, FeedForwardWeights, Linear, Weight } from './weights.ts';

export type WeightRole = 'embedding' | 'attention' | 'feed-forward' | 'routed-experts' | 'norm' | 'head';

export interface ListedWeight {
  readonly role: WeightRole;
  readonly weight: Weight;
}

/** A head tied to the embedding is listed once, as the head. */
export function listWeights(weights: DecoderWeights): ListedWeight[] {
  const tied = weights.head === weights.embedding;
  return [
    ...(tied ? [] : [{ role: 'embedding', weight: weights.embedding } as const]),
    ...weights.layers.flatMap((layer) => [
      { role: 'norm', weight: layer.attentionNorm } as const,
      ...attentionWeights(layer.attention),
      { role: 'norm', weight: layer.feedForwardNorm } as const,
      ...feedForwardWeights(layer.feedForward),
    ]),
    { role: 'norm', weight: weights.finalNorm },
    { role: 'head', weight: weights.head },
  ];
}

function attentionWeights(attention: AttentionWeights): ListedWeight[] {
  if (attention.kind === 'latent') {
    const { queryDown, queryNorm, queryUp, keyValueDown, keyValueNorm, keyUp, valueUp, output } = attention;
    return [
      ...as('attention', queryDown, queryUp, keyValueDown, keyUp.weight, valueUp, output),
      ...as('norm', queryNorm, keyValueNorm),
    ];
  }
  const { query, key, value, output, queryNorm, keyNorm, sinks } = attention;
  return [
    ...[query, key, value, output].flatMap((linear) => linearAs('attention', linear)),
    ...as('attention', sinks),
    ...as('norm', queryNorm, keyNorm),
  ];
}

function feedForwardWeights(feedForward: FeedForwardWeights): ListedWeight[] {
  if (feedForward.kind === 'dense') return denseWeights(feedForward);
  const { router, selectionBias, gate, up, down, shared } = feedForward;
  return [
    ...linearAs('feed-forward', router),
    ...as('feed-forward', selectionBias),
    ...[gate, up, down].flatMap((linear) => linearAs('routed-experts', linear)),
    ...(shared ? denseWeights(shared) : []),
  ];
}

function denseWeights({ gate, up, down }: DenseWeights): ListedWeight[] {
  return as('feed-forward', gate, up, down);
}

function linearAs(role: WeightRole, { weight, bias }: Linear): ListedWeight[] {
  return as(role, weight, bias);
}

function as(role: WeightRole, ...weights: readonly (Weight | undefined)[]): ListedWeight[] {
  return weights.flatMap((weight) => (weight ? [{ role, weight }] : []));
}
