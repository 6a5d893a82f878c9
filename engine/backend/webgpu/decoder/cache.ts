/**
 * The key-value memory of a decoder: for every layer one buffer of keys and one of values (latent attention: one of both), cut
 * into pages. Layers with the same window share one pool of page numbers and one table a sequence.
 */
import { HearthError } from '../../../errors.ts';
import { limits } from '../../../limits.ts';
import { cacheBytesPerToken } from '../../../model/spec/cachePrecision.ts';
import type { AttentionSpec, DecoderSpec } from '../../../model/spec/spec.ts';
import type { CachePrecision } from '../../../protocol/engineProtocol.ts';
import { fullContexts } from '../../backend.ts';
import type { Gpu } from '../device/gpu.ts';
import { pageTokens } from '../kernels/cacheCode.ts';
import { mostPages, PagePool, PageTable } from './pages.ts';

/** Copies of shared last pages, and the pages that many short sequences fill partly. */
const sparePages = 32;

/** Layers whose tokens stay visible equally long. */
export interface CacheSpan {
  readonly slidingWindow: number | undefined;
  readonly pool: PagePool;
}

/** `[page, kvHead, 32 tokens, headDim]` each; latent: `keys` is `[page, 32 tokens, keyValueRank + ropeHeadDim]`. */
export interface LayerCache {
  /** Index into `DecoderCache.spans`. */
  readonly span: number;
  readonly keys: GPUBuffer;
  readonly values?: GPUBuffer;
}

export interface CacheOptions {
  readonly contextTokens: number;
  readonly maxTokensPerRun: number;
  readonly precision: CachePrecision;
  /** More than one context is given room only within this. */
  readonly budgetBytes: number;
}

export interface DecoderCache {
  readonly precision: CachePrecision;
  readonly spans: readonly CacheSpan[];
  readonly layers: readonly LayerCache[];
  /** Holds a page on its way to another place of its own buffer, which WebGPU does not copy within. */
  readonly transfer: GPUBuffer;
  /** Tokens that all sequences hold together. */
  readonly tokens: number;
  readonly bytes: number;
}

export const createTables = ({ spans }: DecoderCache): PageTable[] =>
  spans.map(({ pool, slidingWindow }) => new PageTable(pool, slidingWindow));

export const slidingWindowOf = (attention: AttentionSpec): number | undefined =>
  attention.kind === 'grouped-query' ? attention.slidingWindow : undefined;

type CacheDevice = Pick<Gpu, 'allocate' | 'capabilities' | 'free'>;

/**
 * Memory for three full contexts, or two, or one: as many as the device holds.
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
      const spans = plan.map(({ slidingWindow, pages }) => ({ slidingWindow, pool: new PagePool(pages) }));
      return { precision: options.precision, spans, layers, transfer, tokens: contexts * options.contextTokens, bytes };
    } catch (error) {
      for (const buffer of made) gpu.free(buffer);
      if (contexts === 1 || !(error instanceof HearthError) || error.code !== 'out-of-memory') throw error;
    }
  }
}

/** A function, since the constants exist only once Dawn is loaded. */
const cacheUsage = () => GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

type SpanOptions = Omit<CacheOptions, 'budgetBytes'>;

interface SpanPlan {
  readonly slidingWindow: number | undefined;
  readonly pages: number;
}

/** Windows (undefined: none) of the layers; those with the same share pages. */
export const spansOf = ({ layers }: DecoderSpec): (number | undefined)[] => [
  ...new Set(layers.map(({ attention }) => slidingWindowOf(attention))),
];

function planSpans(spec: DecoderSpec, options: SpanOptions, contexts: number): SpanPlan[] {
  return spansOf(spec).map((slidingWindow) => {
    const each = mostPages(options.contextTokens, options.maxTokensPerRun, slidingWindow);
    return { slidingWindow, pages: contexts * each + sparePages };
  });
}

function spanOf(attention: AttentionSpec, plan: readonly SpanPlan[]): number {
  return plan.findIndex(({ slidingWindow }) => slidingWindow === slidingWindowOf(attention));
}

/** Bytes of one page of keys (as many of values), or of latents. */
export function pageBytes(attention: AttentionSpec, precision: CachePrecision): number {
  return (pageTokens * cacheBytesPerToken([attention], precision)) / (attention.kind === 'latent' ? 1 : 2);
}

function bufferBytes(attention: AttentionSpec, plan: readonly SpanPlan[], { precision }: SpanOptions): number {
  return (plan[spanOf(attention, plan)]?.pages ?? 0) * pageBytes(attention, precision);
}

function bytesOfLayers({ layers }: DecoderSpec, plan: readonly SpanPlan[], options: SpanOptions): number {
  return layers.reduce(
    (sum, { attention }) => sum + (attention.kind === 'latent' ? 1 : 2) * bufferBytes(attention, plan, options),
    0,
  );
}

function transferBytes({ layers }: DecoderSpec, { precision }: SpanOptions): number {
  return Math.max(...layers.map(({ attention }) => pageBytes(attention, precision)));
}

/** Keys and values of one sequence as long as the context, and a page on its way. */
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
    const keys = await allocate('the keys');
    const values = attention.kind === 'latent' ? {} : { values: await allocate('the values') };
    layers.push({ span: spanOf(attention, plan), keys, ...values });
  }
  return layers;
}

/** The longest context of which one binding holds a layer's keys. */
export function longestBinding({ layers }: DecoderSpec, precision: CachePrecision, maxBindingBytes: number): number {
  const seeAll = layers.flatMap(({ attention }) => (slidingWindowOf(attention) === undefined ? [attention] : []));
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

/** Encodes the copy of one page in every layer of a span. */
export function copyPage(
  encoder: GPUCommandEncoder,
  spec: DecoderSpec,
  cache: DecoderCache,
  span: number,
  { from, to }: { readonly from: number; readonly to: number },
): void {
  for (const [index, layer] of cache.layers.entries()) {
    const attention = spec.layers[index]?.attention;
    if (layer.span !== span || !attention) continue;
    const bytes = pageBytes(attention, cache.precision);
    for (const buffer of layer.values ? [layer.keys, layer.values] : [layer.keys]) {
      encoder.copyBufferToBuffer(buffer, from * bytes, cache.transfer, 0, bytes);
      encoder.copyBufferToBuffer(cache.transfer, 0, buffer, to * bytes, bytes);
    }
  }
}

/** Bytes of the pages that sequences hold. */
export function usedCacheBytes(spec: DecoderSpec, { spans, layers, precision }: DecoderCache): number {
  return layers.reduce((sum, { span, values }, index) => {
    const pool = spans[span]?.pool;
    const attention = spec.layers[index]?.attention;
    if (!pool || !attention) return sum;
    return sum + (pool.pages - pool.freePages) * pageBytes(attention, precision) * (values ? 2 : 1);
  }, 0);
}
