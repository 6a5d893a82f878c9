/** The lines of `hearth inspect` that a DecoderSpec gives. */
import type { Inspection, LayersOf } from '../model/spec/inspect.ts';
import type { Activation, AttentionSpec, FeedForwardSpec, RopeSpec, RouterSpec } from '../model/spec/spec.ts';
import type { Row } from './inspectRows.ts';

/** 1,234,567; up to two digits after the point. */
export function count(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 2 });
}

const billions = (parameters: number): string =>
  parameters >= 999.5e6
    ? `${Number((parameters / 1e9).toPrecision(3))} billion`
    : `${Number((parameters / 1e6).toPrecision(3))} million`;

export function architectureRows(model: Inspection): Row[] {
  const attention = model.attention[0]?.spec;
  // Publishers differ: OpenAI leaves the embedding out, Qwen and DeepSeek count it.
  const withEmbedding = model.activeParameters + (model.tiedEmbeddings ? 0 : model.vocabularySize * model.hiddenSize);
  return [
    { label: 'Family', value: model.family },
    { label: 'Parameters', value: billions(model.parameters) },
    {
      label: 'Active a token',
      value: billions(model.activeParameters),
      why: `multiplied with; ${billions(withEmbedding)} with the embedding, which is only looked up in`,
    },
    { label: 'Layers', value: `${model.layers}, hidden size ${count(model.hiddenSize)}` },
    { label: 'Vocabulary', value: count(model.vocabularySize) },
    ...(attention ? [...attentionRows(attention), ...groupedQueryRows(attention), ...windowRows(model)] : []),
    ...feedForwardRows(model),
    normRow(model, attention),
    ...(attention
      ? [...ropeRows(attention.rope), yarnRow(model, attention.rope), contextRow(model, attention.rope)]
      : []),
  ];
}

function attentionRows(attention: AttentionSpec): Row[] {
  const { kind, numAttentionHeads: heads } = attention;
  if (kind === 'latent') {
    const { nopeHeadDim, ropeHeadDim, valueHeadDim, queryRank, keyValueRank } = attention;
    const query = queryRank === undefined ? '' : `, query ${count(queryRank)}`;
    return [
      { label: 'Attention', value: 'latent', why: 'keys and values of all heads are rebuilt from one latent a token' },
      { label: 'Heads', value: `${heads} of ${nopeHeadDim} + ${ropeHeadDim} rotated, values ${valueHeadDim}` },
      { label: 'Latent ranks', value: `key/value ${count(keyValueRank)}${query}` },
    ];
  }
  const { numKeyValueHeads, headDim } = attention;
  const shared = heads / numKeyValueHeads;
  return [
    {
      label: 'Attention',
      value: shared === 1 ? 'multi-head' : 'grouped-query',
      ...(shared > 1 && { why: `${count(shared)} query heads share a key and a value head` }),
    },
    { label: 'Heads', value: `${heads} query, ${numKeyValueHeads} key/value of ${headDim}` },
    { label: 'Latent ranks', value: '' },
  ];
}

function groupedQueryRows(attention: AttentionSpec): Row[] {
  const grouped = attention.kind === 'grouped-query' ? attention : undefined;
  const biases = [...(grouped?.bias.qkv ? ['q', 'k', 'v'] : []), ...(grouped?.bias.output ? ['output'] : [])];
  return [
    {
      label: 'Sinks',
      value: grouped?.sinks ? 'one a query head' : '',
      why: 'a learned logit that draws attention to nothing',
    },
    { label: 'Biases', value: biases.join(', ') },
  ];
}

function windowRows({ attention, layers }: Inspection): Row[] {
  const windows = attention.flatMap(({ spec, layers: number }) =>
    spec.kind === 'grouped-query' && spec.slidingWindow !== undefined
      ? [`${count(spec.slidingWindow)} tokens in ${number} of ${layers} layers`]
      : [],
  );
  return [{ label: 'Sliding window', value: windows.join('; '), why: 'the other layers see the whole context' }];
}

function feedForwardRows({ feedForward, layers }: Inspection): Row[] {
  const dense = feedForward.flatMap(({ spec, layers: number }) =>
    spec.kind === 'dense' ? [`${count(spec.intermediateSize)} wide${where(number, layers)}`] : [],
  );
  const [experts] = feedForward.flatMap(({ spec, layers: number }) =>
    spec.kind === 'experts' ? [{ spec, layers: number }] : [],
  );
  return [
    { label: 'Dense feed-forward', value: dense.join('; ') },
    ...expertRows(experts, layers),
    { label: 'Activation', value: activation(feedForward) },
  ];
}

const where = (number: number, layers: number): string =>
  number === layers ? '' : ` in ${number} of ${layers} layers`;

function expertRows(experts: LayersOf<FeedForwardSpec & { kind: 'experts' }> | undefined, layers: number): Row[] {
  const spec = experts?.spec;
  const shared =
    spec?.sharedIntermediateSize === undefined ? '' : ` and one of ${count(spec.sharedIntermediateSize)} always`;
  return [
    {
      label: 'Experts a layer',
      value: experts
        ? `${count(experts.spec.numExperts)} of ${count(experts.spec.intermediateSize)}${where(experts.layers, layers)}`
        : '',
    },
    { label: 'Experts a token', value: spec ? `${spec.expertsPerToken}${shared}` : '' },
    { label: 'Router', value: spec ? router(spec.router) : '' },
  ];
}

function router(spec: RouterSpec): string {
  switch (spec.kind) {
    case 'topk-then-softmax':
      return 'softmax of the chosen';
    case 'softmax-then-topk':
      return `softmax of all${spec.renormalise ? ', chosen sum to 1' : ''}`;
    case 'sigmoid-grouped':
      return `sigmoid, from ${spec.groupsUsed} of ${spec.groups} groups`;
  }
}

function activation(feedForward: Inspection['feedForward']): string {
  return [...new Set(feedForward.map(({ spec }) => activationName(spec.activation)))].join('; ');
}

function activationName(spec: Activation): string {
  return spec.kind === 'silu-gate' ? 'SwiGLU' : `SwiGLU clamped at ${count(spec.limit)}`;
}

function normRow({ normEpsilon }: Inspection, attention: AttentionSpec | undefined): Row {
  const inside =
    attention?.kind === 'latent' ? '; the latents too' : attention?.qkNorm ? '; query and key heads too' : '';
  return { label: 'Normalisation', value: `RMS${inside}`, why: `before each block, epsilon ${normEpsilon}` };
}

function ropeRows({ theta, layout, dimensions }: RopeSpec): Row[] {
  return [
    { label: 'Rotary base', value: count(theta) },
    {
      label: 'Rotary layout',
      value: `${layout}, ${dimensions} dimensions`,
      why: layout === 'half-split' ? 'element i turns with i + half' : 'element 2i turns with 2i + 1',
    },
  ];
}

function yarnRow({ yarnOnRequest: request }: Inspection, { yarn }: RopeSpec): Row {
  const label = 'YaRN';
  if (yarn)
    return { label, value: `× ${count(yarn.factor)} on ${count(yarn.originalContextTokens)}`, why: 'always on' };
  if (!request) return { label, value: '' };
  const { largestFactor, originalContextTokens } = request;
  return {
    label,
    value: `on request, to × ${largestFactor} on ${count(originalContextTokens)}`,
    why: 'with the smallest factor that the context asked for needs',
  };
}

function contextRow(model: Inspection, rope: RopeSpec): Row {
  const { contextTokens, longestContextTokens } = model;
  const longer = longestContextTokens > contextTokens ? `; with YaRN ${count(longestContextTokens)}` : '';
  return { label: 'Context', value: `${count(contextTokens)}${longer}`, why: `tokens; ${howReached(rope)}` };
}

function howReached({ yarn, linearFactor, frequencyFactors, theta }: RopeSpec): string {
  if (yarn) return `${count(yarn.originalContextTokens)} stretched by YaRN`;
  if (linearFactor !== undefined) return `positions are divided by ${count(linearFactor)}`;
  if (frequencyFactors) return "slow rotations are slowed further, as Llama 3's are";
  return `by the rotary base of ${count(theta)}, without scaling`;
}
