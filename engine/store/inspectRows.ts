/** What `hearth inspect` says of one model: a line a fact, short enough to stand beside other models' in a table. */
import { leastContextTokens } from '../backend/memoryPlan.ts';
import type { WeightRole } from '../model/weightList.ts';
import { showBytes } from '../units.ts';
import { architectureRows, count } from './inspectArchitecture.ts';
import type { InspectedModel } from './inspectModel.ts';

export interface Row {
  readonly label: string;
  /** Empty: the model has nothing of the kind. */
  readonly value: string;
  /** What it means, where one model has the page for itself. */
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
  const pull = `not on this machine: \`hearth models pull ${model}\` gets it`;
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
  if (!modes) return { label, value: 'not known', why: 'there is no chat template to tell it' };
  if (modes.length > 1) return { label, value: modes.join(', '), why: 'positions of the thinking switch' };
  return modes[0] === 'off' ? { label, value: 'no' } : { label, value: 'always' };
}

const origins: Readonly<Record<InspectedModel['weightsKnownFrom'], string>> = {
  file: "types and bytes are the file's own",
  publication: 'types and bytes follow from how it is published',
  assumption: 'the configuration does not say: BF16 is assumed',
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
      why: 'from memory, for every token that is written',
    },
  ];
}

const inPrecision = { f32: 'f32', f16: 'f16', q8: '8 bits' } as const;

function cacheRows({ cache }: InspectedModel): Row[] {
  const windowed = cache.windowBytes > 0;
  return [
    {
      label: 'KV a token',
      value: showBytes(cache.bytesPerToken),
      why: `keys and values in ${inPrecision[cache.precision]}${windowed ? ', in the layers without a window' : ''}; the CPU keeps f32`,
    },
    {
      label: 'KV of windows',
      value: windowed ? showBytes(cache.windowBytes) : '',
      why: 'at most, however long the context',
    },
  ];
}

function memoryRows({ memory, contextTokens, yarnOnRequest }: InspectedModel): Row[] {
  return memory.map(({ contextTokens: tokens, bytes, cacheBytes }) => {
    const stretch = tokens > contextTokens && yarnOnRequest;
    const factor = stretch ? `, YaRN × ${count(tokens / stretch.originalContextTokens)}` : '';
    return {
      label: `Memory at ${count(tokens)}`,
      value: bytes === undefined ? 'beyond its context' : showBytes(bytes),
      ...(bytes !== undefined && { why: `weights and ${showBytes(cacheBytes)} of keys and values${factor}` }),
    };
  });
}

function fitRow({ thisMachine, longestContextTokens, weights }: InspectedModel): Row {
  const label = 'Fits this machine';
  const { contextTokens, memoryBytes } = thisMachine;
  const room = `a model may take ${showBytes(memoryBytes)} of memory here`;
  if (contextTokens === longestContextTokens) {
    return { label, value: `${count(contextTokens)} tokens`, why: `all of its context; ${room}` };
  }
  if (contextTokens < leastContextTokens) {
    const beside = contextTokens > 0 ? ` and leave room for ${contextTokens} tokens` : '';
    return { label, value: 'no', why: `the weights take ${showBytes(weights.bytes)}${beside}; ${room}` };
  }
  return { label, value: `${count(contextTokens)} tokens`, why: room };
}
