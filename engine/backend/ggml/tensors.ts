/**
 * Converts a decoder's weights to ggml tensors (matrices in the file's blocks, vectors as f32), and fills a thread with
 * them.
 */
import { HearthError, throwIfAborted, unsupported } from '../../errors.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
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
import type { LoadOptions } from '../backend.ts';
import type { ThreadClient } from '../processor/threadClient.ts';
import type { DeclaredTensor, ExpertMessage, GgmlMessage } from './library.ts';
import { jointKey } from './operators.ts';
import { float32, ggmlTypes } from './types.ts';

/** In builds, the thread is a separate bundle beside the engine's. */
export const workerFile = new URL(
  import.meta.url.endsWith('.ts') ? './thread.ts' : './ggmlWorker.mjs',
  import.meta.url,
);

export type GgmlThread = ThreadClient<GgmlMessage | ExpertMessage>;

export interface GgmlTensor extends DeclaredTensor {
  readonly byteLength: number;
  /** Reads the bytes in pieces, in order. */
  readonly read: () => AsyncGenerator<Uint8Array>;
}

/** Bytes of a piece: one piece is copied while the next is read. */
const pieceBytes = 8 * 2 ** 20;

/**
 * The tensors without the embedding, whose rows are read from the file. So a head that is tied to it can have the
 * layout that kernels read fastest.
 * @param exact keeps matrices as f32, because matmuls with quantised ones also quantise activations.
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
    ...joined(key, [
      ['gate', [matrix('', gate)]],
      ['up', [matrix('', up)]],
    ]),
    matrix(`${key}.down`, down),
  ];
  const attention = (key: string, own: AttentionWeights): GgmlTensor[] => {
    if (own.kind !== 'grouped-query') throw unsupported(`ggml's operators are not used for ${own.kind} attention.`);
    return [
      ...joined(key, [
        ['query', linear('', own.query)],
        ['key', linear('', own.key)],
        ['value', linear('', own.value)],
      ]),
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

/**
 * Matrices with the same input, each with its bias if it has one: neighbours of one type become one tensor, which
 * `Operators.linears` finds. One matmul instead of several waits less for other threads and quantises the input once.
 */
function joined(
  key: string,
  parts: readonly (readonly [name: string, tensors: readonly GgmlTensor[]])[],
): GgmlTensor[] {
  const kindOf = (tensors: readonly GgmlTensor[] = []): string => tensors.map(({ type }) => type).join();
  const runs: { readonly names: string[]; readonly columns: GgmlTensor[][] }[] = [];
  for (const [index, [name, tensors]] of parts.entries()) {
    const run = runs.at(-1);
    if (run && kindOf(parts[index - 1]?.[1]) === kindOf(tensors)) {
      run.names.push(name);
      for (const [i, tensor] of tensors.entries()) run.columns[i]?.push(tensor);
    } else runs.push({ names: [name], columns: tensors.map((tensor) => [tensor]) });
  }
  return runs.flatMap(({ names, columns: [matrices = [], biases] }) => {
    const own = jointKey(key, names);
    return [oneAfterTheOther(own, matrices), ...(biases ? [oneAfterTheOther(`${own}.bias`, biases)] : [])];
  });
}

function oneAfterTheOther(key: string, parts: readonly GgmlTensor[]): GgmlTensor {
  const [first] = parts;
  if (!first) throw new Error(`${key} has no parts.`);
  const rows = parts.reduce((sum, { sizes }) => sum + (sizes.at(-1) ?? 0), 0);
  return {
    ...first,
    key,
    sizes: [...first.sizes.slice(0, -1), rows],
    byteLength: bytesOfTensors(parts),
    async *read() {
      for (const part of parts) yield* part.read();
    },
  };
}

/** The tensor's declaration, without its bytes. */
export const declared = ({ key, type, sizes, use }: GgmlTensor): DeclaredTensor => ({ key, type, sizes, use });

/** Bytes that the tensors have in the file, or in memory as f32. */
export const bytesOfTensors = (tensors: readonly GgmlTensor[]): number =>
  tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);

/** Bytes of a block of these types. With matrix units, each block needs four bytes more (`ggml-cpu/amx/mmq.cpp`). */
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

export function asStored(key: string, weight: Weight, use: DeclaredTensor['use']): GgmlTensor {
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

export function asFloats(key: string, weight: Weight, use: DeclaredTensor['use']): GgmlTensor {
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

// The thread.

/** @throws HearthError `unavailable` if the library can't be used here. */
export async function openThread(
  thread: GgmlThread,
  message: Extract<GgmlMessage | ExpertMessage, { kind: 'load' | 'load-experts' }>,
): Promise<void> {
  try {
    await thread.ask(message);
  } catch (error) {
    if (error instanceof HearthError && error.code === 'out-of-memory') throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new HearthError('unavailable', reason, { cause: error });
  }
}

/** Reads the next piece while the thread takes this one. */
export async function fillThread(
  thread: GgmlThread,
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

/** Transfers the memory instead of copying it, unless other views of it may exist. */
const ownMemory = ({ buffer, byteLength }: Uint8Array): ArrayBuffer[] =>
  buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? [buffer] : [];
