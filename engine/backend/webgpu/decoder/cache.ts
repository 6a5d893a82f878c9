/**
 * The buffers of the KV cache: for each layer one of keys and one of values (latent attention: one of both), in pages
 * of 32 tokens. A page is a block of kv/blocks.ts, which decides which tokens it holds; this file copies, reads and
 * writes pages.
 */
import { HearthError } from '../../../errors.ts';
import type { BlockStorage, CachedSequence } from '../../../kv/blockCache.ts';
import { type BlockCopy, type BlockGroup, maxBlocks } from '../../../kv/blocks.ts';
import { maxStates, StateTable } from '../../../kv/states.ts';
import { limits } from '../../../limits.ts';
import { type AttentionSpec, cacheBytesPerToken, type DecoderSpec, stateValues } from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/models.ts';
import { fullContexts } from '../../backend.ts';
import type { Gpu } from '../device/gpu.ts';
import { pageTokens } from '../kernels/cacheCode.ts';

/** For copies of shared last pages, and for partly filled pages of many short sequences. */
const sparePages = 32;
/** States of each further sequence, with few checkpoints. If more are needed, idle sequences are evicted. */
const fewStates = 4;

/**
 * `[page, kvHead, 32 tokens, headDim]` each; latent: `keys` is `[page, 32 tokens, keyValueRank + ropeHeadDim]`; gated delta
 * net: `keys` are the states, `[block, stateValues]` f32.
 */
export interface LayerCache {
  /** Index into `DecoderCache.groups`. */
  readonly group: number;
  readonly keys: GPUBuffer;
  readonly values?: GPUBuffer;
}

export interface CacheOptions {
  readonly contextTokens: number;
  readonly maxTokensPerRun: number;
  readonly precision: CachePrecision;
  /** Limit for more than one context. */
  readonly budgetBytes: number;
}

export interface DecoderCache {
  readonly precision: CachePrecision;
  readonly groups: readonly BlockGroup[];
  readonly layers: readonly LayerCache[];
  /** Holds a page while it is copied within its buffer, which WebGPU does not support directly. */
  readonly transfer: GPUBuffer;
  readonly bytes: number;
}

export const slidingWindowOf = (attention: AttentionSpec): number | undefined =>
  attention.kind === 'grouped-query' ? attention.slidingWindow : undefined;

/** Layers with the same span share blocks: the same sliding window (undefined: none), or states. */
type Span = number | undefined | 'states';

const spanKind = (attention: AttentionSpec): Span =>
  attention.kind === 'gated-delta' ? 'states' : slidingWindowOf(attention);

/** Buffers of a layer: keys and values, or one of latents or of states. */
const buffersEach = ({ kind }: AttentionSpec): number => (kind === 'grouped-query' ? 2 : 1);

type CacheDevice = Pick<Gpu, 'allocate' | 'capabilities' | 'free'>;

/**
 * Allocates memory for three full contexts, or two, or one: as many as fit the device.
 * @throws HearthError `out-of-memory`, naming the context that would fit one binding.
 */
export async function allocateCache(gpu: CacheDevice, spec: DecoderSpec, options: CacheOptions): Promise<DecoderCache> {
  requireBinding(gpu, spec, options);
  for (let contexts = fullContexts; ; contexts--) {
    const plan = planSpans(spec, options, contexts);
    const largest = Math.max(...spec.layers.map((layer) => bufferBytes(layer.attention, plan, options)));
    if (contexts > 1 && largest > gpu.capabilities.maxBindingBytes) continue;
    if (contexts > 1 && bytesOfLayers(spec, plan, options) > options.budgetBytes) continue;
    const made: GPUBuffer[] = [];
    try {
      const layers = await allocateLayers(gpu, spec, plan, { ...options, made });
      const transfer = await gpu.allocate('a page on its way', transferBytes(spec, options), cacheUsage());
      made.push(transfer);
      const bytes = made.reduce((sum, { size }) => sum + size, 0);
      const groups = plan.map((span) => groupOf(spec, span, options.precision));
      return { precision: options.precision, groups, layers, transfer, bytes };
    } catch (error) {
      for (const buffer of made) gpu.free(buffer);
      if (contexts === 1 || !(error instanceof HearthError) || error.code !== 'out-of-memory') throw error;
    }
  }
}

/** A function, because the constants exist only once Dawn is loaded. */
const cacheUsage = () => GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

type SpanOptions = Omit<CacheOptions, 'budgetBytes'>;

function groupOf({ layers }: DecoderSpec, { span, pages }: SpanPlan, precision: CachePrecision): BlockGroup {
  const own = layers.filter(({ attention }) => spanKind(attention) === span);
  const blockBytes = own.reduce((sum, { attention }) => sum + layerPageBytes(attention, precision), 0);
  if (span === 'states') return { isState: true, blockTokens: 1, blockBytes, blocks: pages };
  return { slidingWindow: span, blockTokens: pageTokens, blockBytes, blocks: pages };
}

interface SpanPlan {
  readonly span: Span;
  readonly pages: number;
}

/** Spans of the layers. Layers with the same span share pages. */
export const spansOf = ({ layers }: DecoderSpec): Span[] => [
  ...new Set(layers.map(({ attention }) => spanKind(attention))),
];

function planSpans(spec: DecoderSpec, options: SpanOptions, contexts: number): SpanPlan[] {
  return spansOf(spec).map((span) => {
    if (span === 'states') return { span, pages: maxStates + contexts * fewStates };
    const group = { slidingWindow: span, blockTokens: pageTokens };
    const each = maxBlocks(options.contextTokens, options.maxTokensPerRun, group);
    return { span, pages: contexts * each + sparePages };
  });
}

function spanOf(attention: AttentionSpec, plan: readonly SpanPlan[]): number {
  return plan.findIndex(({ span }) => span === spanKind(attention));
}

/** Bytes of one page of keys (and as many of values), or of latents; of one state. */
export function pageBytes(attention: AttentionSpec, precision: CachePrecision): number {
  if (attention.kind === 'gated-delta') return 4 * stateValues(attention);
  return (pageTokens * cacheBytesPerToken([attention], precision)) / buffersEach(attention);
}

/** Bytes of one page of keys and values. */
export const layerPageBytes = (attention: AttentionSpec, precision: CachePrecision): number =>
  pageBytes(attention, precision) * buffersEach(attention);

function bufferBytes(attention: AttentionSpec, plan: readonly SpanPlan[], { precision }: SpanOptions): number {
  return (plan[spanOf(attention, plan)]?.pages ?? 0) * pageBytes(attention, precision);
}

function bytesOfLayers({ layers }: DecoderSpec, plan: readonly SpanPlan[], options: SpanOptions): number {
  return layers.reduce((sum, { attention }) => sum + buffersEach(attention) * bufferBytes(attention, plan, options), 0);
}

function transferBytes({ layers }: DecoderSpec, { precision }: SpanOptions): number {
  return Math.max(...layers.map(({ attention }) => pageBytes(attention, precision)));
}

/** Bytes of one sequence as long as the context, and of `transfer`. */
export function cacheBytes(spec: DecoderSpec, options: SpanOptions): number {
  return bytesOfLayers(spec, planSpans(spec, options, 1), options) + transferBytes(spec, options);
}

async function allocateLayers(
  gpu: CacheDevice,
  spec: DecoderSpec,
  plan: readonly SpanPlan[],
  options: CacheOptions & { readonly made: GPUBuffer[] },
): Promise<LayerCache[]> {
  const layers: LayerCache[] = [];
  for (const [index, { attention }] of spec.layers.entries()) {
    const allocate = async (what: string) => {
      const buffer = await gpu.allocate(
        `${what} of layer ${index}`,
        bufferBytes(attention, plan, options),
        cacheUsage(),
      );
      options.made.push(buffer);
      return buffer;
    };
    const keys = await allocate(attention.kind === 'gated-delta' ? 'the states' : 'the keys');
    const values = buffersEach(attention) === 1 ? {} : { values: await allocate('the values') };
    layers.push({ group: spanOf(attention, plan), keys, ...values });
  }
  return layers;
}

/** The longest context whose keys of a layer fit one binding. */
export function longestBinding({ layers }: DecoderSpec, precision: CachePrecision, maxBindingBytes: number): number {
  const seeAll = layers.flatMap(({ attention }) => (spanKind(attention) === undefined ? [attention] : []));
  const pages = seeAll.map((attention) => Math.floor(maxBindingBytes / pageBytes(attention, precision)) - sparePages);
  return Math.min(...pages, limits.model.contextTokens / pageTokens) * pageTokens;
}

function requireBinding(gpu: Pick<Gpu, 'capabilities'>, spec: DecoderSpec, options: CacheOptions): void {
  const { maxBindingBytes } = gpu.capabilities;
  const plan = planSpans(spec, options, 1);
  for (const { attention } of spec.layers) {
    if (bufferBytes(attention, plan, options) <= maxBindingBytes) continue;
    const fitting = longestBinding(spec, options.precision, maxBindingBytes);
    throw new HearthError(
      'out-of-memory',
      `A context of ${options.contextTokens} tokens needs buffers larger than this GPU binds (${maxBindingBytes} bytes). A context of ${fitting} tokens fits.`,
    );
  }
}

/** Encodes the copies of pages in every layer of their groups. */
export function encodeCopies(
  encoder: GPUCommandEncoder,
  spec: DecoderSpec,
  cache: DecoderCache,
  copies: readonly (readonly BlockCopy[])[],
): void {
  for (const [index, layer] of cache.layers.entries()) {
    const attention = spec.layers[index]?.attention;
    if (!attention) continue;
    const bytes = pageBytes(attention, cache.precision);
    for (const { from, to } of copies[layer.group] ?? []) {
      for (const buffer of buffersOf(layer)) {
        encoder.copyBufferToBuffer(buffer, from * bytes, cache.transfer, 0, bytes);
        encoder.copyBufferToBuffer(cache.transfer, 0, buffer, to * bytes, bytes);
      }
    }
  }
}

/** @param explained replaces errors of a lost device. */
export function blockStorage(
  { device }: Pick<Gpu, 'device'>,
  spec: DecoderSpec,
  cache: DecoderCache,
  explained: <Result>(work: () => Promise<Result>) => Promise<Result>,
): BlockStorage {
  const { layers, groups, precision } = cache;
  const placesOf = (sequence: CachedSequence, index: number) => {
    const [layer, attention] = [layers[index], spec.layers[index]?.attention];
    if (!layer || !attention) throw new Error(`The model has no layer ${index}.`);
    const table = sequence.tables[layer.group];
    const blocks = table instanceof StateTable ? table.blocksApart : (table?.blocks ?? []);
    const pages = blocks.filter((page) => page >= 0);
    return places(layer, pages, pageBytes(attention, precision));
  };
  return {
    format: `${precision} in pages of ${pageTokens}`,
    groups,
    layers: layers.map(({ group }, index) => {
      const attention = spec.layers[index]?.attention;
      return { group, blockBytes: attention ? layerPageBytes(attention, precision) : 0 };
    }),
    capacityBytes: cache.bytes,
    read: (sequence, layer) => explained(() => readPlaces(device, placesOf(sequence, layer))),
    write: (sequence, layer, bytes) =>
      explained(() => {
        for (const { buffer, offset, at, size } of placesOf(sequence, layer)) {
          device.queue.writeBuffer(buffer, offset, bytes as Uint8Array<ArrayBuffer>, at, size);
        }
        // The queue copies written data; waiting here bounds the memory of the host.
        return device.queue.onSubmittedWorkDone();
      }),
  };
}

const buffersOf = ({ keys, values }: LayerCache): GPUBuffer[] => (values ? [keys, values] : [keys]);

/** A page in a buffer of its layer, and in the bytes of all pages: first those of keys, then those of values. */
interface Place {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly at: number;
  readonly size: number;
}

const places = (layer: LayerCache, pages: readonly number[], size: number): Place[] =>
  buffersOf(layer).flatMap((buffer, part) =>
    pages.map((page, i) => ({ buffer, size, offset: page * size, at: (part * pages.length + i) * size })),
  );

async function readPlaces(device: GPUDevice, places: readonly Place[]): Promise<Uint8Array> {
  const staging = device.createBuffer({
    size: places.reduce((sum, { size }) => sum + size, 0),
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  const encoder = device.createCommandEncoder();
  for (const { buffer, offset, at, size } of places) encoder.copyBufferToBuffer(buffer, offset, staging, at, size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const read = new Uint8Array(staging.getMappedRange().slice(0));
  staging.destroy();
  return read;
}
