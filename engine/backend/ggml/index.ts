/**
 * The CPU backend that keeps the file's own bits: ggml's kernels (of llama.cpp) on graphs that are built from a decoder's spec. Start
 * reading at forward.ts. It computes grouped-query attention; other models go to the ONNX backend.
 */
import { HearthError, throwIfAborted, unsupported } from '../../errors.ts';
import { cachedAttentions, type DecoderSpec, processorPrecision } from '../../model/spec/spec.ts';
import { listWeights } from '../../model/weights/specTensors.ts';
import type {
  AttentionWeights,
  DecoderWeights,
  DenseWeights,
  FeedForwardWeights,
  LayerWeights,
  Linear,
  Weight,
} from '../../model/weights/weights.ts';
import { readValues, rowBytesOf, rowsOf, selectRows, weightBytesOf } from '../../model/weights/weightViews.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Backend, LoadOptions } from '../backend.ts';
import { hostMemory, planMemory } from '../memoryPlan.ts';
import { cacheNotes, hostNeeds, memoryNotes, ProcessorDecoder, ThreadClient } from '../processor/decoder.ts';
import type { LayerCacheSpec, WindowGroup } from '../processor/messages.ts';
import { defaultThreads, hasMatrixUnits } from '../processor/threads.ts';
import { isFasterOnGgml } from './choice.ts';
import { chooseLibraries, type DeclaredTensor, float32, type GgmlMessage, ggmlTypes } from './library.ts';

export interface GgmlOptions {
  /** Matrices as f32, so that no product rounds: for tests of the graph's arithmetic. */
  readonly exactWeights: boolean;
  /** Leaves models to the ONNX backend that it is faster with (choice.ts). */
  readonly onlyWhereFaster?: boolean;
  /** Used if the load options name none. Default: f16, as in other engines. */
  readonly cachePrecision?: CachePrecision;
}

/** In builds, the thread is a bundle of its own beside the engine's. */
const workerFile = new URL(import.meta.url.endsWith('.ts') ? './thread.ts' : './ggmlWorker.mjs', import.meta.url);

export const ggmlBackend: Backend = createGgmlBackend({ exactWeights: false });

export function createGgmlBackend({
  exactWeights,
  onlyWhereFaster = false,
  cachePrecision = 'f16',
}: GgmlOptions): Backend {
  return {
    name: 'ggml',
    async load(spec, weights, options) {
      requireOperators(spec);
      if (onlyWhereFaster && !isFasterOnGgml(weights)) {
        throw unsupported('ONNX Runtime is faster for prompts with these weights.');
      }
      const libraries = chooseLibraries();
      const precision = options.cachePrecision ?? cachePrecision;
      const tensors = tensorsOf(spec, weights, exactWeights);
      const weightBytes = memoryBytesOf(tensors, hasMatrixUnits());
      const needs = hostNeeds(spec, weightBytes, 'ggml', precision);
      const memory = planMemory(needs, hostMemory(), options.contextTokens, options.besideOthers);
      const { windowGroups, layers } = cacheOf(spec, precision);
      const thread = new ThreadClient<GgmlMessage>(workerFile, 'ggml');
      try {
        await open(thread, {
          libraries,
          spec,
          threads: options.threads ?? defaultThreads(),
          cacheType: processorPrecision(precision) === 'f32' ? 'float32' : 'float16',
          windowGroups,
          layers,
          tensors: tensors.map(({ key, type, sizes, use }) => ({ key, type, sizes, use })),
        });
        options.meanwhile?.();
        await fill(thread, tensors, options);
        return new ProcessorDecoder({
          backend: 'ggml',
          spec,
          ...memory,
          notes: [
            ...notesOn(weights, exactWeights),
            ...cacheNotes(precision),
            ...memoryNotes(memory, options.contextTokens ?? needs.longestTokens),
          ],
          windowGroups,
          layers,
          states: [],
          weightBytes,
          thread,
          ...(!spec.stage && { embedding: weights.embedding }),
          cacheOrder: 'rows of 64',
        });
      } catch (error) {
        thread.tell({ kind: 'end' });
        throw error;
      }
    },
  };
}

/** @throws HearthError `unavailable` if the library can't be used here. */
async function open(
  thread: ThreadClient<GgmlMessage>,
  model: Extract<GgmlMessage, { kind: 'load' }>['model'],
): Promise<void> {
  try {
    await thread.ask({ kind: 'load', model });
  } catch (error) {
    if (error instanceof HearthError && error.code === 'out-of-memory') throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new HearthError('unavailable', reason, { cause: error });
  }
}

/** Reads the next piece while the thread takes this one. */
async function fill(
  thread: ThreadClient<GgmlMessage>,
  tensors: readonly GgmlTensor[],
  { onProgress, signal }: LoadOptions,
): Promise<void> {
  const totalBytes = bytesOfTensors(tensors);
  let doneBytes = 0;
  let filling: Promise<unknown> = Promise.resolve();
  for (const { key, read } of tensors) {
    let offset = 0;
    for await (const bytes of read()) {
      throwIfAborted(signal);
      await filling;
      const { byteLength } = bytes;
      filling = thread.ask({ kind: 'fill', key, offset, bytes }, ownMemory(bytes));
      filling.catch(() => {});
      offset += byteLength;
      doneBytes += byteLength;
      onProgress?.({ doneBytes, totalBytes });
    }
  }
  await filling;
}

/** To transfer instead of copying, unless others may hold views of it. */
const ownMemory = ({ buffer, byteLength }: Uint8Array): ArrayBuffer[] =>
  buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? [buffer] : [];

function requireOperators({ layers }: DecoderSpec): void {
  for (const { attention, feedForward } of layers) {
    if (attention.kind !== 'grouped-query') {
      throw unsupported(`Hearth's ggml backend doesn't support ${attention.kind} attention.`);
    }
    if (
      feedForward.kind === 'experts' &&
      feedForward.router.kind === 'sigmoid-grouped' &&
      feedForward.router.groups > 1
    ) {
      throw unsupported("Hearth's ggml backend doesn't support grouped routing of experts.");
    }
  }
}

function cacheOf(
  spec: DecoderSpec,
  precision: CachePrecision,
): { readonly windowGroups: WindowGroup[]; readonly layers: LayerCacheSpec[] } {
  const windowGroups: WindowGroup[] = [];
  const type = processorPrecision(precision) === 'f32' ? 'float32' : 'float16';
  const layers = cachedAttentions(spec).map((attention): LayerCacheSpec => {
    if (attention.kind !== 'grouped-query') throw new Error(`No cache for ${attention.kind} attention.`);
    const { slidingWindow, numKeyValueHeads: keyValueHeads, headDim } = attention;
    let group = windowGroups.findIndex((known) => known.slidingWindow === slidingWindow);
    if (group < 0) group = windowGroups.push(slidingWindow === undefined ? {} : { slidingWindow }) - 1;
    return { type, group, keyValueHeads, keyDim: headDim, valueDim: headDim, valuesInKeys: false };
  });
  return { windowGroups, layers };
}

/** The model card's notes on how matrices are multiplied. */
function notesOn(weights: DecoderWeights, exact: boolean): string[] {
  if (exact) return [];
  const matrices = listWeights(weights).flatMap(({ role, weight }) => (role === 'norm' ? [] : [weight.type]));
  const quantised = [...new Set(matrices)].filter((type) => !/^B?F\d/.test(type)).sort();
  const halves = [...new Set(matrices)].filter((type) => /^B?F16$/.test(type)).sort();
  return [
    ...(quantised.length > 0
      ? [`Matmuls with ${quantised.join(', ')} weights quantise activations to int8 per block, as llama.cpp does.`]
      : []),
    ...(halves.length > 0 ? [`Matmuls with ${halves.join(', ')} weights round activations to the same type.`] : []),
  ];
}

// A decoder's weights as tensors of ggml: matrices in the file's own blocks, vectors as f32.

export interface GgmlTensor extends DeclaredTensor {
  readonly byteLength: number;
  /** The bytes in pieces, in order. */
  readonly read: () => AsyncGenerator<Uint8Array>;
}

/** Read at once: one piece is copied while the next is read. */
const pieceBytes = 8 * 2 ** 20;

/**
 * Without the embeddings, whose rows are read from the file: a head that is tied to them lies as the kernels read it fastest.
 * @param exact matrices as f32: products with quantised ones round the other factor as well.
 * @throws HearthError `unsupported` for a type that ggml has no kernels for, or for attention that isn't built from its operators.
 */
export function tensorsOf(spec: DecoderSpec, weights: DecoderWeights, exact: boolean): GgmlTensor[] {
  const matrix = (key: string, weight: Weight, use: DeclaredTensor['use'] = 'matrix'): GgmlTensor =>
    exact ? asFloats(key, weight, use) : asStored(key, weight, use);
  const vector = (key: string, weight: Weight | undefined): GgmlTensor[] =>
    weight ? [asFloats(key, weight, 'vector')] : [];
  const norm = (key: string, weight: Weight | undefined): GgmlTensor[] => {
    if (!weight || spec.norm !== 'layer') return vector(key, weight);
    const row = (offset: number) => selectRows(weight, { period: 2, offset, length: 1 }, [1, spec.hiddenSize]);
    return [...vector(key, row(0)), ...vector(`${key}.bias`, row(1))];
  };
  const linear = (key: string, { weight, bias }: Linear, use?: DeclaredTensor['use']): GgmlTensor[] => [
    matrix(key, weight, use),
    ...vector(`${key}.bias`, bias),
  ];
  const dense = (key: string, { gate, up, down }: DenseWeights): GgmlTensor[] => [
    matrix(`${key}.gate`, gate),
    matrix(`${key}.up`, up),
    matrix(`${key}.down`, down),
  ];
  const attention = (key: string, own: AttentionWeights): GgmlTensor[] => {
    if (own.kind !== 'grouped-query') throw unsupported(`ggml's operators are not used for ${own.kind} attention.`);
    return [
      ...linear(`${key}.query`, own.query),
      ...linear(`${key}.key`, own.key),
      ...linear(`${key}.value`, own.value),
      ...(own.gate ? linear(`${key}.gate`, own.gate) : []),
      ...linear(`${key}.output`, own.output),
      ...vector(`${key}.queryNorm`, own.queryNorm),
      ...vector(`${key}.keyNorm`, own.keyNorm),
      ...vector(`${key}.sinks`, own.sinks),
    ];
  };
  const feedForward = (key: string, own: FeedForwardWeights): GgmlTensor[] =>
    own.kind === 'dense'
      ? dense(key, own)
      : own.kind === 'plain'
        ? [...linear(`${key}.up`, own.up), ...linear(`${key}.down`, own.down)]
        : [
            ...linear(`${key}.router`, own.router),
            ...vector(`${key}.selectionBias`, own.selectionBias),
            ...linear(`${key}.gate`, own.gate, 'experts'),
            ...linear(`${key}.up`, own.up, 'experts'),
            ...linear(`${key}.down`, own.down, 'experts'),
            ...(own.shared ? dense(`${key}.shared`, own.shared) : []),
            ...(own.sharedGate ? [matrix(`${key}.sharedGate`, own.sharedGate)] : []),
          ];
  const layer = (own: LayerWeights, index: number): GgmlTensor[] => [
    ...norm(`${index}.attentionNorm`, own.attentionNorm),
    ...attention(`${index}.attention`, own.attention),
    ...norm(`${index}.attentionPostNorm`, own.attentionPostNorm),
    ...norm(`${index}.feedForwardNorm`, own.feedForwardNorm),
    ...feedForward(`${index}.feedForward`, own.feedForward),
    ...norm(`${index}.feedForwardPostNorm`, own.feedForwardPostNorm),
  ];
  const hasHead = !spec.headless && spec.stage !== 'inner';
  return [
    ...weights.layers.flatMap(layer),
    ...(spec.stage === 'inner' ? [] : norm('finalNorm', weights.finalNorm)),
    ...(hasHead ? [matrix('head', weights.head)] : []),
  ];
}

/** Bytes that the tensors have in the file, or in memory as f32. */
export const bytesOfTensors = (tensors: readonly GgmlTensor[]): number =>
  tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);

/** Bytes of a block of these types, each of which matrix units need four more for (`ggml-cpu/amx/mmq.cpp`). */
const blocksWithSums: ReadonlyMap<number | undefined, number> = new Map([
  [ggmlTypes.Q8_0, 34],
  [ggmlTypes.Q4_K, 144],
  [ggmlTypes.Q5_K, 176],
  [ggmlTypes.IQ4_XS, 136],
]);

/** Bytes that the tensors take in memory. */
export const memoryBytesOf = (tensors: readonly GgmlTensor[], matrixUnits: boolean): number =>
  tensors.reduce((sum, { type, use, byteLength }) => {
    const blockBytes = matrixUnits && use === 'matrix' ? blocksWithSums.get(type) : undefined;
    return sum + byteLength * (blockBytes === undefined ? 1 : 1 + 4 / blockBytes);
  }, 0);

function asStored(key: string, weight: Weight, use: DeclaredTensor['use']): GgmlTensor {
  const type = ggmlTypes[weight.type];
  if (type === undefined || weight.blockScale) {
    throw unsupported(`${weight.name} is ${weight.type}, for which ggml has no matmul.`);
  }
  const sizes = weight.shape.toReversed();
  const byteLength = weightBytesOf(weight);
  return {
    key,
    type,
    sizes,
    use,
    byteLength,
    read: () => pieces(weight, (first, count) => weight.readRows(first, count)),
  };
}

function asFloats(key: string, weight: Weight, use: DeclaredTensor['use']): GgmlTensor {
  const read = async (first: number, count: number): Promise<Uint8Array> => {
    const { buffer, byteOffset, byteLength } = await readValues(weight, first, count);
    return new Uint8Array(buffer, byteOffset, byteLength).slice();
  };
  const byteLength = weight.shape.reduce((product, size) => product * size, 4);
  return { key, type: float32, sizes: weight.shape.toReversed(), use, byteLength, read: () => pieces(weight, read) };
}

async function* pieces(
  weight: Weight,
  read: (first: number, count: number) => Promise<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const rows = rowsOf(weight.shape);
  const step = Math.max(1, Math.floor(pieceBytes / rowBytesOf(weight)));
  for (let first = 0; first < rows; first += step) yield await read(first, Math.min(step, rows - first));
}
