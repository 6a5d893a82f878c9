/**
 * Causal attention of a prompt with subgroup matrices: grouped queries over pages in f16, with sinks and windows, by
 * online softmax (FlashAttention; Dao et al. 2022). Queries and softmax weights are split into two f16; keys and values
 * are one f16, as cached. So each matmul takes two matrix products and keeps 22 bits.
 *
 * Bindings: those of `attention` with one split. Workgroup: 256 threads for 64 rows, which are `queries` tokens by `headsPerTile` heads that share a
 * key; groups: head tiles in x, token tiles in y. Needs f16, subgroups of 4 or more and subgroup matrices. Must equal `groupedQueryAttention`
 * of backend/reference.
 *
 * Sums stay in matrices while a row's maximum grows by less than `slack`; beyond that they pass through workgroup memory once, to be rescaled.
 */

import type { CachePrecision } from '../../../protocol/models.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { type AttentionShape, type AttentionTile, largestDivisor, placeCode } from './attention.ts';
import { declareBuffers, read, type SharedAccess, write } from './bindings.ts';
import { cacheReader, pageTokens, rowStruct } from './cacheCode.ts';
import { keepFour, matrixEnables } from './matrixTiles.ts';

const rows = 64;
const keys = pageTokens;
const threads = 256;
/** Sums and queries of wider heads do not fit in a GPU's registers. */
const widestHead = 128;
export const matrixAttentionThreads = threads;
/** Threads that share a row of scores. */
const rowThreads = threads / rows;
const keysEach = keys / rowThreads;
/** Strides of rows in workgroup memory, chosen so that rows do not start in the same bank: of halves, and of scores. */
const [halfStride, scoreStride] = [keys + 8, keys + 4];
const blockStride = (headDim: number): number => headDim + 8;

/** As a power of two: how far a row's largest score may exceed the one to which its weights are relative. */
const slack = 2;
/**
 * Weights are multiplied by two to this power, so that the largest is just within f16 and the smallest keep their bits.
 */
const weightBits = 15 - slack;

interface MatrixSpread {
  /**
   * Subgroups with work. If subgroups are smaller than the largest size, there are more of them, and the others are
   * idle.
   */
  readonly subgroups: number;
  /** Subgroups that share the same rows, each with a part of the columns. */
  readonly sharing: number;
}

/** Distribution of matrices over subgroups; undefined if they do not divide the tile. */
function spread(
  { subgroups, subgroupMatrix: matrix, maxWorkgroupBytes, maxWorkgroupInvocations }: GpuCapabilities,
  headDim: number,
): MatrixSpread | undefined {
  if (!subgroups || !matrix || subgroups.min < rowThreads || maxWorkgroupInvocations < threads) return undefined;
  const { m, n, k } = matrix;
  const divides =
    headDim <= widestHead &&
    rows % m === 0 &&
    keys % n === 0 &&
    keys % k === 0 &&
    headDim % n === 0 &&
    headDim % k === 0;
  const count = threads / subgroups.max;
  const sharing = (count * m) / rows;
  const shares = Number.isInteger(sharing) && sharing >= 1 && (keys / n) % sharing === 0;
  return divides && shares && workgroupBytes(headDim) <= maxWorkgroupBytes ? { subgroups: count, sharing } : undefined;
}

/** Keys `[keys, headDim]`, then values `[headDim, keys]`: the layouts from which matrices load fastest. */
const blockValues = (headDim: number): number => Math.max(keys * blockStride(headDim), headDim * halfStride);

const workgroupBytes = (headDim: number): number =>
  2 * blockValues(headDim) + 2 * 2 * rows * halfStride + 4 * rows * scoreStride + 4 * rows + 16;

/** Whether queries stay in workgroup memory, because those of wide heads would fill the registers. */
const keepsQueries = (headDim: number, { maxWorkgroupBytes }: GpuCapabilities): boolean =>
  headDim > 64 && workgroupBytes(headDim) + 2 * 2 * rows * blockStride(headDim) <= maxWorkgroupBytes;

/**
 * The tile of a prompt's attention with subgroup matrices; undefined if the device, the layer or its cache doesn't
 * allow it.
 */
export function matrixAttentionTile(
  shape: AttentionShape,
  precision: CachePrecision,
  capabilities: GpuCapabilities,
): AttentionTile | undefined {
  const { heads, kvHeads, keyDim, latent, cacheRow } = shape;
  const isAligned = cacheReader('keys', precision, cacheRow).item === 'vec4u';
  if (latent || precision !== 'f16' || !isAligned || !capabilities.tuning.matrixAttention) return undefined;
  if (!spread(capabilities, keyDim)) return undefined;
  const headsPerTile = largestDivisor(heads / kvHeads, rows);
  return { headsPerTile, queries: Math.floor(rows / headsPerTile), keys };
}

/** Reads of rows of keys and of scores; `npm run test:kernels` counts them. */
export const matrixAttentionAccesses = (headDim: number): readonly SharedAccess[] => [
  { name: 'rows of keys', address: (thread) => 2 * blockStride(headDim) * (thread % 8) },
  { name: 'weights', address: (thread) => 2 * halfStride * (thread % 8) },
  {
    name: 'scores',
    address: (thread) => 4 * (scoreStride * Math.floor(thread / rowThreads) + keysEach * (thread % rowThreads)),
  },
];

/** Properties on which the cost of the kernel depends: heads, their width, and whether there is a window. */
export const matrixAttentionKind = ({
  heads,
  kvHeads,
  keyDim,
  slidingWindow,
}: Pick<AttentionShape, 'heads' | 'kvHeads' | 'keyDim' | 'slidingWindow'>): string =>
  `${heads}/${kvHeads}x${keyDim}${slidingWindow === undefined ? '' : 'w'}`;

/** Matrix multiply-adds in a step: scores and sums, each in two halves. */
export const matrixAttentionMacs = ({ keyDim, valueDim }: AttentionShape): number =>
  2 * rows * keys * (keyDim + valueDim);

const count = (length: number): number[] => Array.from({ length }, (_, i) => i);

/** @param tile from `matrixAttentionTile`, or with fewer queries. */
export function matrixAttentionKernel(
  shape: AttentionShape,
  tile: AttentionTile,
  capabilities: GpuCapabilities,
): KernelSource {
  const { heads, kvHeads, keyDim: headDim, slidingWindow } = shape;
  const { headsPerTile } = tile;
  const unit = unitOf(capabilities, headDim);
  const { m, n, k, sharing } = unit;
  const reader = cacheReader('keys', 'f16', shape.cacheRow);
  const values = cacheReader('values', 'f16', shape.cacheRow);
  const buffers = declareBuffers([
    read('rows', 'Row'),
    read('pages', 'u32'),
    read('tiles', 'vec2u'),
    read('query', 'vec4f'),
    read('keys', reader.element),
    read('values', values.element),
    ...(shape.sinks ? [read('sinks')] : []),
    write('out'),
  ]);
  const sums = count(Math.ceil(headDim / n / sharing));
  const keyItems = stage('keys', headDim);
  const valueItems = stage('values', headDim);
  const code = /* wgsl */ `
${matrixEnables}
${rowStruct}
${buffers.code}
const KEYS = ${keys}u;
// Keys, then the values of the same tokens.
var<workgroup> block: array<f16, ${blockValues(headDim)}>;
// Weights; before the loop, queries on their way.
var<workgroup> high: array<f16, ${rows * halfStride}>;
var<workgroup> low: array<f16, ${rows * halfStride}>;
// Scores, or a matrix of each subgroup on its way.
var<workgroup> scores: array<f32, ${rows * scoreStride}>;
var<workgroup> factors: array<f32, ${rows}>;
var<workgroup> outgrown: atomic<u32>;
${reader.code}
${values.code}
${placeCode(kvHeads)}
${keepHalves('')}
${unit.inMemory ? queryMemory(headDim) : ''}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32, @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32) {
  let tile = tiles[group.y];
  let kv_head = group.x / ${heads / kvHeads / headsPerTile}u;
  let first_head = group.x * ${headsPerTile}u;
  let end_row = tile.x + tile.y;
  let first_position = rows[tile.x].position;
  let table = rows[tile.x].table;
  let oldest = ${slidingWindow === undefined ? '0u' : `max(first_position + 1u, ${slidingWindow}u) - ${slidingWindow}u`};
  let begin = oldest / KEYS;
  let end = (first_position + tile.y + KEYS - 1u) / KEYS;
  // Of matrices: rows, and where a matrix of this subgroup passes through workgroup memory.
  let subgroup = thread / lanes;
  let busy = subgroup < ${unit.subgroups}u;
  let matrix_row = (subgroup / ${sharing}u) * ${m}u;
  let part = subgroup % ${sharing}u;
  let passing = subgroup * ${m * n}u;
  // Of scores: a row, and a share of its keys.
  let r = thread / ${rowThreads}u;
  let share = thread % ${rowThreads}u;
  let row = min(tile.x + r / ${headsPerTile}u, end_row - 1u);
  let own = rows[row].position;
${queryCode(shape, tile, unit)}
  ${sums.map((i) => `var sum${i} = subgroup_matrix_result<f32, ${n}, ${m}>();`).join(' ')}
  // In powers of two.
  var highest = -3.0e38;
  var weight = 0.0;
  if (thread == 0u) { atomicStore(&outgrown, 0u); }
  ${keyItems.declare} ${valueItems.declare}
  { let at = place(begin, table, kv_head); ${keyItems.fetch} }
  for (var b = begin; b < end; b++) {
    { let at = place(b, table, kv_head); ${valueItems.fetch} }
    workgroupBarrier();
    ${keyItems.store}
    workgroupBarrier();
    if (busy) {
      ${scoreProducts(unit, headDim)}
    }
    workgroupBarrier();
    ${valueItems.store}
${weightCode(shape)}
    if (workgroupUniformLoad(&outgrown) != 0u) {
      ${rescale(unit, sums, headDim)}
      if (thread == 0u) { atomicStore(&outgrown, 0u); }
    }
    if (b + 1u < end) { let at = place(b + 1u, table, kv_head); ${keyItems.fetch} }
    if (busy) {
      ${valueProducts(unit, sums, headDim)}
    }
  }
${storeCode(shape, tile, unit, sums)}
}
`;
  return {
    label: `attentionTiles ${matrixAttentionKind(shape)}`,
    code,
    bindings: buffers.bindings,
    multipliesPerStep: (2 * 2 * headDim * keys) / (sharing * n * k),
  };
}

interface Unit extends MatrixSpread {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Whether queries stay in workgroup memory. */
  readonly inMemory: boolean;
}

function unitOf(capabilities: GpuCapabilities, headDim: number): Unit {
  const parts = spread(capabilities, headDim);
  if (!parts || !capabilities.subgroupMatrix) throw new Error('matrixAttentionTile said that there are matrices');
  return { ...parts, ...capabilities.subgroupMatrix, inMemory: keepsQueries(headDim, capabilities) };
}

const leftMatrix = ({ m, k }: Unit, name: string, column: number, stride = halfStride): string =>
  `subgroupMatrixLoad<subgroup_matrix_left<f16, ${k}, ${m}>, row_major>(&${name}, matrix_row * ${stride}u + ${column}u, ${stride}u)`;

/** WGSL `fn keep(at, value)`: four values as sums of two halves, into `high` and `low`, or those of queries. */
const keepHalves = (prefix: '' | 'query_'): string => /* wgsl */ `
fn ${prefix}keep(at: u32, value: vec4f) {
  let words = vec2u(pack2x16float(value.xy), pack2x16float(value.zw));
  let rest = value - vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
  ${keepFour(`${prefix}high`, 'words')}
  ${keepFour(`${prefix}low`, 'vec2u(pack2x16float(rest.xy), pack2x16float(rest.zw))')}
}`;

const queryMemory = (headDim: number): string => /* wgsl */ `
var<workgroup> query_high: array<f16, ${rows * blockStride(headDim)}>;
var<workgroup> query_low: array<f16, ${rows * blockStride(headDim)}>;
${keepHalves('query_')}`;

/** WGSL for a thread's share of a block of 32 cache rows: eight values of a row, fetched from row `at` on. */
function stage(name: 'keys' | 'values', headDim: number) {
  const each = headDim / 8;
  const items = count(Math.ceil((keys * each) / threads)).map((i) => {
    const index = `(thread + ${i * threads}u)`;
    const guard = (i + 1) * threads > keys * each ? `if (${index} < ${keys * each}u) ` : '';
    // Neighbouring threads have the same row of keys and the same column of values, so that their stores are adjacent.
    return name === 'keys'
      ? { item: `key${i}`, row: `(${index} / ${each}u)`, eighth: `(${index} % ${each}u)`, guard }
      : { item: `value${i}`, row: `(${index} % ${keys}u)`, eighth: `(${index} / ${keys}u)`, guard };
  });
  const store = ({ item, row, eighth, guard }: (typeof items)[number]): string => {
    if (name === 'keys') {
      const halves = ['xy', 'zw'].map(
        (pair, i) => `{ let at = first + ${4 * i}u; ${keepFour('block', `${item}.${pair}`)} }`,
      );
      return `${guard}{ let first = ${row} * ${blockStride(headDim)}u + 8u * ${eighth}; ${halves.join(' ')} }`;
    }
    const pairs = [...'xyzw'].map(
      (word, i) =>
        `{ let pair = bitcast<vec2<f16>>(${item}.${word}); block[at + ${2 * i * halfStride}u] = pair.x; block[at + ${(2 * i + 1) * halfStride}u] = pair.y; }`,
    );
    return `${guard}{ let at = 8u * ${eighth} * ${halfStride}u + ${row}; ${pairs.join(' ')} }`;
  };
  return {
    declare: items.map(({ item }) => `var ${item}: vec4u;`).join(' '),
    fetch: items
      .map(({ item, row, eighth, guard }) => `${guard}{ ${item} = fetch_${name}(at + ${row}, ${eighth}); }`)
      .join(' '),
    store: items.map(store).join('\n    '),
  };
}

/** The queries, each row times a power of two that brings its largest value to [2^14, 2^15). */
function queryCode(
  { heads, keyDim, softmaxScale }: AttentionShape,
  { headsPerTile }: AttentionTile,
  unit: Unit,
): string {
  const quads = keyDim / 4;
  return /* wgsl */ `  let query_at = (row * ${heads}u + first_head + r % ${headsPerTile}u) * ${quads}u;
  var most = 0.0;
  for (var quad = share; quad < ${quads}u; quad += ${rowThreads}u) {
    let value = abs(query[query_at + quad]);
    most = max(most, max(max(value.x, value.y), max(value.z, value.w)));
  }
  ${rowMaximum('most')}
  // Biased exponent of the largest value; below 2^-95 a row counts as that large.
  let exponent = clamp(bitcast<u32>(most) >> 23u, 32u, 254u);
  let up = bitcast<f32>((268u - exponent) << 23u);
  let score_scale = bitcast<f32>((exponent - 14u) << 23u) * ${softmaxScale * Math.LOG2E};
  ${unit.inMemory ? queriesInMemory(keyDim) : queriesInRegisters(keyDim, unit)}`;
}

const queriesInMemory = (headDim: number): string => /* wgsl */ `
  for (var quad = share; quad < ${headDim / 4}u; quad += ${rowThreads}u) {
    query_keep(r * ${blockStride(headDim)}u + 4u * quad, query[query_at + quad] * up);
  }`;

/** Loads the queries into matrices through the memory of weights, 32 columns at a time. */
function queriesInRegisters(headDim: number, unit: Unit): string {
  const { m, k } = unit;
  const steps = count(headDim / k);
  const chunks = count(Math.ceil(headDim / keys)).map((chunk) => {
    const loads = steps
      .filter((step) => Math.floor((step * k) / keys) === chunk)
      .map((step) => {
        const column = (step * k) % keys;
        return `query_high${step} = ${leftMatrix(unit, 'high', column)}; query_low${step} = ${leftMatrix(unit, 'low', column)};`;
      });
    const keeps = count(keysEach / 4).map((i) => {
      const quad = `(${chunk * (keys / 4) + i}u + ${keysEach / 4}u * share)`;
      const guard = (chunk + 1) * keys > headDim ? `if (${quad} < ${headDim / 4}u) ` : '';
      return `${guard}{ keep(r * ${halfStride}u + ${keysEach}u * share + ${4 * i}u, query[query_at + ${quad}] * up); }`;
    });
    return `${keeps.join('\n  ')}
  workgroupBarrier();
  if (busy) { ${loads.join('\n    ')} }
  workgroupBarrier();`;
  });
  const type = `subgroup_matrix_left<f16, ${k}, ${m}>`;
  return `${steps.map((step) => `var query_high${step}: ${type}; var query_low${step}: ${type};`).join('\n  ')}
  ${chunks.join('\n  ')}`;
}

/** Reduction over the threads of a row, which are neighbours in a subgroup. */
const rowMaximum = (name: string): string =>
  `${name} = max(${name}, subgroupShuffleXor(${name}, 1u)); ${name} = max(${name}, subgroupShuffleXor(${name}, 2u));`;

function scoreProducts(unit: Unit, headDim: number): string {
  const { m, n, k, sharing, inMemory } = unit;
  const stride = blockStride(headDim);
  const query = (step: number) =>
    ['high', 'low']
      .map((half) => {
        const name = `query_${half}`;
        return `let ${half}${step} = ${inMemory ? leftMatrix(unit, name, step * k, stride) : `${name}${step}`};`;
      })
      .join(' ');
  return count(keys / n / sharing)
    .map((slot) => {
      const column = `(${slot * sharing}u + part) * ${n}u`;
      const products = count(headDim / k).map(
        (step) =>
          `{ ${query(step)} let key = subgroupMatrixLoad<subgroup_matrix_right<f16, ${n}, ${k}>, col_major>(&block, ${column} * ${stride}u + ${step * k}u, ${stride}u); ` +
          `score = subgroupMatrixMultiplyAccumulate(low${step}, key, score); score = subgroupMatrixMultiplyAccumulate(high${step}, key, score); }`,
      );
      return `{ var score = subgroup_matrix_result<f32, ${n}, ${m}>();
      ${products.join('\n      ')}
      subgroupMatrixStore<row_major>(&scores, matrix_row * ${scoreStride}u + ${column}, score, ${scoreStride}u); }`;
    })
    .join('\n      ');
}

/** Weights of a thread's keys, and the factor for the sums so far. */
function weightCode({ slidingWindow }: AttentionShape): string {
  const each = count(keysEach);
  const score = (i: number) =>
    `let position${i} = b * KEYS + ${keysEach}u * share + ${i}u; let score${i} = select(-3.0e38, scores[r * ${scoreStride}u + ${keysEach}u * share + ${i}u], position${i} <= own${slidingWindow === undefined ? '' : ` && position${i} + ${slidingWindow}u > own`});`;
  const quads = count(keysEach / 4);
  const weights = quads.map((quad) => {
    const four = [0, 1, 2, 3].map((i) => `score${4 * quad + i}`).join(', ');
    return `let scores${quad} = vec4f(${four});
    let weights${quad} = select(vec4f(), exp2(scores${quad} * score_scale + lift), scores${quad} > vec4f(-1.0e38));
    keep(r * ${halfStride}u + ${keysEach}u * share + ${4 * quad}u, weights${quad});`;
  });
  return /* wgsl */ `    ${each.map(score).join('\n    ')}
    var largest = ${each.map((i) => `score${i}`).reduce((a, b) => `max(${a}, ${b})`)};
    ${rowMaximum('largest')}
    var factor = 1.0;
    if (largest > -1.0e38 && largest * score_scale > highest + ${slack}.0) {
      factor = exp2(highest - largest * score_scale);
      // Sums of a row that has seen no key are zero.
      if (highest > -1.0e38) { atomicStore(&outgrown, 1u); }
      highest = largest * score_scale;
    }
    if (share == 0u) { factors[r] = factor; }
    let lift = ${weightBits}.0 - highest;
    ${weights.join('\n    ')}
    weight = weight * factor + dot(${quads.map((quad) => `weights${quad}`).join(' + ')}, vec4f(1.0));`;
}

/** The last column of matrices doesn't exist for every subgroup. */
function columnOf(
  { sharing, n }: Unit,
  slot: number,
  headDim: number,
): { readonly column: string; readonly exists: string } {
  const column = `(${slot * sharing}u + part)`;
  const all = (slot + 1) * sharing * n <= headDim;
  return { column, exists: all ? 'busy' : `busy && ${column} < ${headDim / n}u` };
}

function rescale(unit: Unit, sums: readonly number[], headDim: number): string {
  const { m, n } = unit;
  return sums
    .map((slot) => {
      const { exists } = columnOf(unit, slot, headDim);
      return `if (${exists}) { subgroupMatrixStore<row_major>(&scores, passing, sum${slot}, ${n}u); }
      workgroupBarrier();
      for (var i = lane; i < select(0u, ${m * n}u, ${exists}); i += lanes) { scores[passing + i] *= factors[matrix_row + i / ${n}u]; }
      workgroupBarrier();
      if (${exists}) { sum${slot} = subgroupMatrixLoad<subgroup_matrix_result<f32, ${n}, ${m}>, row_major>(&scores, passing, ${n}u); }
      workgroupBarrier();`;
    })
    .join('\n      ');
}

function valueProducts(unit: Unit, sums: readonly number[], headDim: number): string {
  const { n, k } = unit;
  return count(keys / k)
    .map((step) => {
      const products = sums.map((slot) => {
        const { column, exists } = columnOf(unit, slot, headDim);
        const value = `subgroupMatrixLoad<subgroup_matrix_right<f16, ${n}, ${k}>, col_major>(&block, ${column} * ${n * halfStride}u + ${step * k}u, ${halfStride}u)`;
        const add = `let value = ${value}; sum${slot} = subgroupMatrixMultiplyAccumulate(weights_low, value, sum${slot}); sum${slot} = subgroupMatrixMultiplyAccumulate(weights_high, value, sum${slot});`;
        return exists === 'busy' ? `{ ${add} }` : `if (${exists}) { ${add} }`;
      });
      return `{ let weights_high = ${leftMatrix(unit, 'high', step * k)}; let weights_low = ${leftMatrix(unit, 'low', step * k)};
      ${products.join('\n      ')} }`;
    })
    .join('\n      ');
}

/** Divides the sums by the row's total weight, including the sink's. */
function storeCode(
  { heads, keyDim, sinks }: AttentionShape,
  tile: AttentionTile,
  unit: Unit,
  sums: readonly number[],
): string {
  const { m, n } = unit;
  const { headsPerTile, queries } = tile;
  const total = sinks
    ? /* wgsl */ `let sink = sinks[first_head + r % ${headsPerTile}u] * ${Math.LOG2E};
  let top = max(highest, sink);
  let known = exp2(highest - top);
  let result = known / (weight * known + exp2(sink - top + ${weightBits}.0));`
    : 'let result = 1.0 / weight;';
  const stores = sums.map((slot) => {
    const { column, exists } = columnOf(unit, slot, keyDim);
    return /* wgsl */ `
  if (${exists}) { subgroupMatrixStore<row_major>(&scores, passing, sum${slot}, ${n}u); }
  workgroupBarrier();
  if (${exists}) {
    for (var i = lane; i < ${m * n}u; i += lanes) {
      let at = matrix_row + i / ${n}u;
      let token = tile.x + at / ${headsPerTile}u;
      if (at < ${headsPerTile * queries}u && token < end_row) {
        out[(token * ${heads}u + first_head + at % ${headsPerTile}u) * ${keyDim}u + ${column} * ${n}u + i % ${n}u] = scores[passing + i] * factors[at];
      }
    }
  }
  workgroupBarrier();`;
  });
  return /* wgsl */ `  workgroupBarrier();
  weight += subgroupShuffleXor(weight, 1u);
  weight += subgroupShuffleXor(weight, 2u);
  ${total}
  if (share == 0u) { factors[r] = result; }
  workgroupBarrier();${stores.join('')}`;
}
