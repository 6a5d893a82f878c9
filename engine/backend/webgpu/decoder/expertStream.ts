/**
 * Experts of layers that the card has no memory for. They stay in the machine's memory in the file's bits, laid out as the card
 * reads them; those that a pass chooses are written into buffers that all such layers share.
 */
import { unsupported } from '../../../errors.ts';
import { describeModel } from '../../../model/spec/describe.ts';
import type { DecoderSpec } from '../../../model/spec/spec.ts';
import type { DecoderWeights, ExpertsWeights, LayerWeights, Weight } from '../../../model/weights/weights.ts';
import { weightBytesOf } from '../../../model/weights/weightViews.ts';
import type { Gpu } from '../device/gpu.ts';
import { type GpuMatrix, splitPlanes, type Uploader } from './weightLayout.ts';

type Role = 'gate' | 'up' | 'down';
const roles: readonly Role[] = ['gate', 'up', 'down'];

/** Layers whose experts have the same types and shapes share buffers. */
const keyOf = (role: Role, { type, shape }: Weight): string => `${role} ${type} ${shape.join('x')}`;

const expertsOf = ({ feedForward }: LayerWeights): ExpertsWeights | undefined =>
  feedForward.kind === 'experts' ? feedForward : undefined;

/** Bytes of the experts' matrices of some layers. */
export const expertBytes = (layers: readonly LayerWeights[]): number =>
  layers
    .flatMap((layer) => expertsOf(layer) ?? [])
    .flatMap((experts) => roles.map((role) => weightBytesOf(experts[role].weight)))
    .reduce((sum, bytes) => sum + bytes, 0);

/** Whether experts of a layer can be streamed: in whole words, without scales of blocks that span experts. */
export const canStream = (layer: LayerWeights): boolean => {
  const experts = expertsOf(layer);
  return (
    experts !== undefined &&
    roles.every((role) => {
      const { blockScale, shape } = experts[role].weight;
      return !blockScale && (shape.at(-2) ?? 0) % 4 === 0;
    })
  );
};

/** Bytes of the weights on the card if the experts of the first `streamed` layers are not among them. */
export function residentBytes(
  model: { readonly spec: DecoderSpec; readonly weights: DecoderWeights },
  streamed: number,
) {
  const layers = model.weights.layers.slice(0, streamed);
  const shared = new Map<string, number>();
  for (const layer of layers) {
    const experts = expertsOf(layer);
    for (const role of experts ? roles : []) {
      const weight = experts?.[role].weight;
      if (weight) shared.set(keyOf(role, weight), weightBytesOf(weight));
    }
  }
  const sharedBytes = [...shared.values()].reduce((sum, bytes) => sum + bytes, 0);
  return describeModel(model).weightBytes - expertBytes(layers) + sharedBytes;
}

/** A matrix of one layer's experts, and the buffers that it is written into. */
interface StreamedMatrix {
  readonly weight: Weight;
  readonly shared: SharedMatrix;
  /** By expert, once it was read. */
  readonly kept: Map<number, readonly Piece[]>;
}

interface SharedMatrix {
  readonly matrix: GpuMatrix;
  /** By expert: the layer whose weights are there. */
  readonly holders: number[];
}

interface Piece {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export class ExpertStream {
  /** The experts of so many first layers. */
  readonly layers: number;
  readonly #queue: GPUQueue;
  readonly #shared = new Map<string, SharedMatrix>();
  readonly #matrices = new Map<number, StreamedMatrix[]>();

  constructor({ device }: Pick<Gpu, 'device'>, layers: number) {
    this.layers = layers;
    this.#queue = device.queue;
  }

  /** The buffers that stand for the matrix. @throws HearthError `unsupported` */
  async place(layer: number, role: Role, weight: Weight, uploader: Uploader): Promise<GpuMatrix> {
    if (weight.blockScale || (weight.shape.at(-2) ?? 0) % 4 !== 0) {
      throw unsupported(`${weight.name}: experts of this type or width can't be kept outside of the GPU's memory.`);
    }
    const key = keyOf(role, weight);
    const shared = this.#shared.get(key) ?? { matrix: await uploader.matrix(weight, 'empty'), holders: [] };
    this.#shared.set(key, shared);
    const own = this.#matrices.get(layer) ?? [];
    this.#matrices.set(layer, [...own, { weight, shared, kept: new Map() }]);
    return shared.matrix;
  }

  /** Writes the experts of a layer; work that is submitted later reads them. */
  async bring(layer: number, experts: ReadonlySet<number>): Promise<void> {
    for (const streamed of this.#matrices.get(layer) ?? []) {
      const { shared, kept } = streamed;
      for (const expert of experts) {
        if (shared.holders[expert] === layer) continue;
        const pieces = kept.get(expert) ?? (await piecesOf(streamed, expert));
        kept.set(expert, pieces);
        for (const { buffer, offset, bytes } of pieces) this.#queue.writeBuffer(buffer, offset, bytes);
        shared.holders[expert] = layer;
      }
    }
  }
}

async function piecesOf({ weight, shared: { matrix } }: StreamedMatrix, expert: number): Promise<Piece[]> {
  const rows = weight.shape.at(-2) ?? 0;
  const first = expert * rows;
  // Pieces have whole experts.
  const piece = matrix.pieces.findLast(({ firstRow }) => firstRow <= first);
  if (!piece) throw new Error(`${weight.name} has no expert ${expert}.`);
  const pieces: Piece[] = [];
  splitPlanes(piece.layout, first - piece.firstRow, await weight.readRows(first, rows), (offset, bytes) =>
    pieces.push({ buffer: piece.buffer, offset, bytes: bytes as Uint8Array<ArrayBuffer> }),
  );
  return pieces;
}
