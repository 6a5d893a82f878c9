/** Formats `hearth inspect`: a page about one model, or a table that compares several. */
import { leastContextTokens } from '../backend/memoryPlan.ts';
import { places, showBytes } from '../errors.ts';
import type { Inspection, LayersOf } from '../model/spec/describe.ts';
import {
  activationName,
  type CachedAttentionSpec,
  type FeedForwardSpec,
  type QueryTemperature,
  type RopeSpec,
  type RouterSpec,
} from '../model/spec/spec.ts';
import type { WeightRole } from '../model/weights/specTensors.ts';
import type { InspectedModel } from './inspectModel.ts';

// Rows about one model. Values are short enough to fit in a table with other models.

export interface Row {
  readonly label: string;
  /** Empty if it doesn't apply to the model. */
  readonly value: string;
  /** Explanation, shown only on a page about one model. */
  readonly why?: string;
}

export function rowsOf(model: InspectedModel): Row[] {
  return [
    ...originRows(model),
    ...architectureRows(model),
    thinkingRow(model),
    ...weightRows(model),
    ...cacheRows(model),
    ...memoryRows(model),
    fitRow(model),
  ];
}

function originRows({ model, state, licence, download }: InspectedModel): Row[] {
  const about = download?.estimated ? 'about ' : '';
  const pull = `not on this machine; download it ${places().pull(model)}`;
  return [
    { label: 'Licence', value: licence ?? 'not stated' },
    {
      label: 'Download',
      value: download ? `${about}${showBytes(download.bytes)}` : '',
      why: state === 'present' ? 'on this machine' : pull,
    },
  ];
}

function thinkingRow({ thinkingModes: modes }: InspectedModel): Row {
  const label = 'Thinking';
  if (!modes) return { label, value: 'not known', why: 'there is no chat template' };
  if (modes.length > 1) return { label, value: modes.join(', '), why: 'thinking modes' };
  return modes[0] === 'off' ? { label, value: 'no' } : { label, value: 'always' };
}

const origins: Readonly<Record<InspectedModel['weightsKnownFrom'], string>> = {
  file: 'types and bytes read from the file',
  publication: 'types and bytes of the published weights',
  assumption: 'config.json does not say; BF16 is assumed',
};

const roles: readonly WeightRole[] = ['embedding', 'attention', 'feed-forward', 'routed-experts', 'norm', 'head'];

function weightRows({ weights, quantisation, weightsKnownFrom, tiedEmbeddings }: InspectedModel): Row[] {
  const types = [...weights.groups].sort((a, b) => b.bytes - a.bytes).map(({ type }) => type);
  return [
    {
      label: 'Quantisation',
      value: quantisation ?? [...new Set(types)].slice(0, 2).join(', '),
      why: origins[weightsKnownFrom],
    },
    ...roles.map((role) => {
      const groups = weights.groups.filter((group) => group.role === role).sort((a, b) => b.bytes - a.bytes);
      return {
        label: `  ${role.replace('-', ' ')}`,
        value: groups.map(({ type, bytes }) => `${type} ${showBytes(bytes)}`).join(', '),
        ...(role === 'head' && tiedEmbeddings && { why: 'the embedding is the same matrix' }),
      };
    }),
    { label: 'Weights', value: showBytes(weights.bytes) },
    {
      label: 'Weights read a token',
      value: showBytes(weights.bytesPerToken),
      why: 'read from memory for every decoded token',
    },
  ];
}

const inPrecision = { f32: 'f32', f16: 'f16', q8: '8 bits' } as const;

function cacheRows({ cache, attention }: InspectedModel): Row[] {
  const windowed = cache.windowBytes > 0;
  const keepsStates = attention.some(({ spec }) => spec.kind === 'gated-delta');
  return [
    {
      label: 'KV a token',
      value: showBytes(cache.bytesPerToken),
      why: `KV cache in ${inPrecision[cache.precision]}${windowed ? `, ${keepsStates ? 'layers with attention' : 'layers without a sliding window'}` : ''}; f32 on the CPU`,
    },
    {
      label: keepsStates ? 'States' : 'KV of windows',
      value: windowed ? showBytes(cache.windowBytes) : '',
      why: 'upper limit for any context length',
    },
  ];
}

function memoryRows({ memory, contextTokens, yarnOnRequest }: InspectedModel): Row[] {
  return memory.map(({ contextTokens: tokens, bytes, cacheBytes }) => {
    const stretch = tokens > contextTokens && yarnOnRequest;
    const factor = stretch ? `, YaRN × ${count(tokens / stretch.originalContextTokens)}` : '';
    return {
      label: `Memory at ${count(tokens)}`,
      value: bytes === undefined ? 'exceeds its context' : showBytes(bytes),
      ...(bytes !== undefined && { why: `weights and ${showBytes(cacheBytes)} of KV cache${factor}` }),
    };
  });
}

function fitRow({ thisMachine, longestContextTokens, weights }: InspectedModel): Row {
  const label = 'Fits this machine';
  const { contextTokens, memoryBytes } = thisMachine;
  const room = `${showBytes(memoryBytes)} of memory available for a model`;
  if (contextTokens === longestContextTokens) {
    return { label, value: `${count(contextTokens)} tokens`, why: `its full context; ${room}` };
  }
  if (contextTokens < leastContextTokens) {
    const remaining = contextTokens > 0 ? ` and leave space for ${contextTokens} tokens` : '';
    return { label, value: 'no', why: `the weights take ${showBytes(weights.bytes)}${remaining}; ${room}` };
  }
  return { label, value: `${count(contextTokens)} tokens`, why: room };
}

/** `1,234,567`, with up to two decimals. */
export function count(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 2 });
}

const billions = (parameters: number): string =>
  parameters >= 999.5e6
    ? `${Number((parameters / 1e9).toPrecision(3))} billion`
    : `${Number((parameters / 1e6).toPrecision(3))} million`;

export function architectureRows(model: Inspection): Row[] {
  const attention = model.attention.flatMap(({ spec }) => (spec.kind === 'gated-delta' ? [] : [spec]))[0];
  // Publishers differ: OpenAI excludes the embedding, Qwen and DeepSeek include it.
  const withEmbedding = model.activeParameters + (model.tiedEmbeddings ? 0 : model.vocabularySize * model.hiddenSize);
  return [
    { label: 'Family', value: model.family },
    { label: 'Parameters', value: billions(model.parameters) },
    {
      label: 'Active a token',
      value: billions(model.activeParameters),
      why: `used in matmuls; ${billions(withEmbedding)} with the embedding, which is only a lookup`,
    },
    { label: 'Layers', value: `${model.layers}, hidden size ${count(model.hiddenSize)}` },
    { label: 'Vocabulary', value: count(model.vocabularySize) },
    ...(attention ? [...attentionRows(attention), ...groupedQueryRows(attention, model), ...windowRows(model)] : []),
    deltaRow(model),
    ...feedForwardRows(model),
    normRow(model, attention),
    ...(attention
      ? [...ropeRows(attention.rope), yarnRow(model, attention.rope), contextRow(model, attention.rope)]
      : []),
  ];
}

function deltaRow({ attention, layers }: Inspection): Row {
  const [delta] = attention.flatMap(({ spec, layers: number }) =>
    spec.kind === 'gated-delta' ? [{ spec, number }] : [],
  );
  return {
    label: 'Gated delta net',
    value: delta
      ? `${delta.spec.numValueHeads} states of ${delta.spec.keyHeadDim} x ${delta.spec.valueHeadDim}${where(delta.number, layers)}`
      : '',
    why: 'a state of constant size instead of keys and values',
  };
}

function attentionRows(attention: CachedAttentionSpec): Row[] {
  const { kind, numAttentionHeads: heads } = attention;
  if (kind === 'latent') {
    const { nopeHeadDim, ropeHeadDim, valueHeadDim, queryRank, keyValueRank } = attention;
    const query = queryRank === undefined ? '' : `, query ${count(queryRank)}`;
    return [
      {
        label: 'Attention',
        value: 'latent',
        why: 'keys and values of all heads are projected from one latent a token',
      },
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
      ...(shared > 1 && { why: `${count(shared)} query heads share one KV head` }),
    },
    { label: 'Heads', value: `${heads} query, ${numKeyValueHeads} key/value of ${headDim}` },
    { label: 'Latent ranks', value: '' },
  ];
}

function groupedQueryRows(attention: CachedAttentionSpec, { feedForward }: Inspection): Row[] {
  const grouped = attention.kind === 'grouped-query' ? attention : undefined;
  const biases = [
    ...(grouped?.bias.qkv ? ['q', 'k', 'v'] : []),
    ...(grouped?.bias.output ? ['output'] : []),
    ...(feedForward.some(({ spec }) => spec.kind === 'plain') ? ['feed-forward'] : []),
  ];
  return [
    {
      label: 'Sinks',
      value: grouped?.sinks ? 'one a query head' : '',
      why: 'a learned logit that takes part of the attention',
    },
    { label: 'Biases', value: biases.join(', ') },
    temperatureRow(grouped?.queryTemperature),
  ];
}

function temperatureRow(temperature: QueryTemperature | undefined): Row {
  return {
    label: 'Query temperature',
    value: temperature
      ? `1 + ${count(temperature.beta)} ln(1 + position / ${count(temperature.originalContextTokens)})`
      : '',
    why: 'in whole steps of the position; keeps attention sharp in long contexts',
  };
}

function windowRows({ attention, layers }: Inspection): Row[] {
  const windows = attention.flatMap(({ spec, layers: number }) =>
    spec.kind === 'grouped-query' && spec.slidingWindow !== undefined
      ? [`${count(spec.slidingWindow)} tokens in ${number} of ${layers} layers`]
      : [],
  );
  const isEverywhere = attention.every(({ spec }) => spec.kind === 'grouped-query' && spec.slidingWindow !== undefined);
  const why = isEverywhere ? 'no layer attends to more' : 'the other layers attend to the whole context';
  return [{ label: 'Sliding window', value: windows.join('; '), why }];
}

function feedForwardRows({ feedForward, layers }: Inspection): Row[] {
  const dense = feedForward.flatMap(({ spec, layers: number }) =>
    spec.kind !== 'experts' ? [`${count(spec.intermediateSize)} wide${where(number, layers)}`] : [],
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

function normsInside(attention: CachedAttentionSpec | undefined): string {
  if (attention?.kind === 'latent') return '; the latents too';
  if (!attention?.qkNorm) return '';
  return attention.jointNorm ? '; queries and keys too, each over all heads' : '; query and key heads too';
}

function normRow({ norm, normEpsilon }: Inspection, attention: CachedAttentionSpec | undefined): Row {
  return {
    label: 'Normalisation',
    value: `${norm === 'layer' ? 'LayerNorm' : 'RMS'}${normsInside(attention)}`,
    why: `before each block, epsilon ${normEpsilon}`,
  };
}

function ropeRows({ theta, layout, dimensions }: RopeSpec): Row[] {
  return [
    { label: 'Rotary base', value: count(theta) },
    {
      label: 'Rotary layout',
      value: `${layout}, ${dimensions} dimensions`,
      why: layout === 'half-split' ? 'rotates element i with i + half' : 'rotates element 2i with 2i + 1',
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
    why: 'uses the smallest factor that the requested context needs',
  };
}

function contextRow(model: Inspection, rope: RopeSpec): Row {
  const { contextTokens, longestContextTokens } = model;
  const longer = longestContextTokens > contextTokens ? `; with YaRN ${count(longestContextTokens)}` : '';
  return { label: 'Context', value: `${count(contextTokens)}${longer}`, why: `tokens; ${howReached(rope)}` };
}

function howReached({ yarn, linearFactor, frequencyFactors, shortContext, theta }: RopeSpec): string {
  if (yarn) return `${count(yarn.originalContextTokens)} extended by YaRN`;
  if (linearFactor !== undefined) return `linear scaling: positions divided by ${count(linearFactor)}`;
  if (shortContext) return `${count(shortContext.originalContextTokens)} extended by longrope`;
  if (frequencyFactors) return 'low RoPE frequencies are scaled down, as in Llama 3';
  return `rotary base ${count(theta)}, no scaling`;
}

// Layout of the page and the table.

/** Shown in a table cell that doesn't apply to the model. */
const nothing = '–';

/** Memory is shown for these contexts: a file with related code, a long conversation, a repository. */
export const usualContexts: readonly number[] = [8192, 32_768, 131_072];

export function inspectionText(models: readonly InspectedModel[]): string {
  const [first, second] = models;
  return first && second === undefined ? explanation(first) : comparison(models);
}

function explanation(model: InspectedModel): string {
  const rows = rowsOf(model).filter(({ value }) => value !== '');
  const lines = aligned(rows.map(({ label, value, why }) => [label, value, why ?? '']));
  return `${title(model)}\n\n${lines}\n`;
}

function comparison(models: readonly InspectedModel[]): string {
  const columns = models.map((model) => rowsOf(model));
  const kinds: readonly Row[] = columns[0] ?? [];
  const facts = kinds
    .map(({ label }) => [label, ...columns.map((rows) => rows.find((row) => row.label === label)?.value ?? '')])
    .filter(([, ...values]) => values.some((value) => value !== ''));
  return `${aligned([['', ...models.map(heading)], ...facts.map((row) => row.map((cell) => (cell === '' ? nothing : cell)))])}\n`;
}

/** Column heading. */
const heading = ({ name, model, download }: InspectedModel): string => (download ? model : name);

const title = ({ name, model }: InspectedModel): string => (name === model ? name : `${name} (${model})`);

function aligned(rows: readonly (readonly string[])[]): string {
  const printed = rows.map((row) => row.map(printable));
  const widths = (printed[0] ?? []).map((_, column) => Math.max(...printed.map((row) => row[column]?.length ?? 0)));
  return printed
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A file's licence is untrusted text: removes control characters and limits its length. */
function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, ' ').slice(0, 120);
}
