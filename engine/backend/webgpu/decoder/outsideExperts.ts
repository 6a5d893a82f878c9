/**
 * Experts of layers that the card has no memory for. They stay in the machine's memory in the file's format. For a few
 * rows, the CPU computes them if it can: it gets the normalised activations with the router's choice, and returns the
 * chosen experts' outputs. For more rows, which share the same weights, the experts are sent to buffers on the card
 * that all such layers share.
 */
import { unsupported } from '../../../errors.ts';
import { describeModel } from '../../../model/spec/describe.ts';
import type { DecoderSpec } from '../../../model/spec/spec.ts';
import type { DecoderWeights, Weight } from '../../../model/weights/weights.ts';
import { weightBytesOf } from '../../../model/weights/weightViews.ts';
import type { LoadOptions } from '../../backend.ts';
import {
  areSoonerComputed,
  expertBytes,
  expertsOf,
  isSendable,
  type ExpertRole as Role,
  expertRoles as roles,
} from '../../experts.ts';
import type { ExpertHost } from '../../ggml/experts.ts';
import type { Gpu } from '../device/gpu.ts';
import type { Scratch } from './scratch.ts';
import { type GpuMatrix, planeOffset, planesOf, splitPlanes, type Uploader } from './weightLayout.ts';

/** Layers whose experts have the same types and shapes share buffers. */
const keyOf = (role: Role, { type, shape }: Weight): string => `${role} ${type} ${shape.join('x')}`;

/** Bytes of the weights on the card if the experts of the first `outside` layers are not among them. */
export function residentBytes(
  model: { readonly spec: DecoderSpec; readonly weights: DecoderWeights },
  outside: number,
) {
  const layers = model.weights.layers.slice(0, outside);
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
interface OutsideMatrix {
  readonly layer: number;
  readonly role: Role;
  readonly weight: Weight;
  readonly shared: SharedMatrix;
  /** Bytes by expert, once read, unless the host has them. */
  readonly kept: Map<number, readonly Piece[]>;
}

interface SharedMatrix {
  readonly matrix: GpuMatrix;
  /** By expert: the layer whose weights are in the buffer. */
  readonly holders: number[];
}

interface Piece {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * The host's task before a step: `send` the chosen experts to the card; `give` the CPU its input; `take` its output;
 * `both` if nothing is computed in between.
 */
export type HostTask = 'send' | 'give' | 'take' | 'both';

type OpenHost = (options: LoadOptions) => Promise<ExpertHost>;

/** A pass that waits for the host. */
interface WaitingPass {
  readonly spec: DecoderSpec;
  readonly scratch: Pick<Scratch, 'normed' | 'experts' | 'expertOutputs'>;
  readonly inputs: { readonly tokens: number };
}

export class OutsideExperts {
  /** Number of first layers whose experts are outside. */
  readonly layers: number;
  readonly #gpu: Pick<Gpu, 'device' | 'readBack'>;
  readonly #openHost: OpenHost | undefined;
  #host: ExpertHost | undefined;
  readonly #shared = new Map<string, SharedMatrix>();
  readonly #matrices = new Map<number, OutsideMatrix[]>();
  /** Staging buffer for activations and choices that go to the CPU. */
  #staging: GPUBuffer | undefined;
  #computing: Promise<Float32Array> | undefined;

  /** @param openHost opens the CPU backend for few rows. Absent: experts are sent for these as well. */
  constructor(gpu: Pick<Gpu, 'device' | 'readBack'>, layers: number, openHost?: OpenHost) {
    this.#gpu = gpu;
    this.layers = layers;
    this.#openHost = openHost;
  }

  /** Whether the CPU computes the experts of a prompt with this many rows. */
  computes({ layers }: Pick<DecoderSpec, 'layers'>, rows: number): boolean {
    if (!this.#openHost) return false;
    const threads = this.#host?.threads ?? 1;
    return layers.every(
      ({ feedForward: own }) =>
        own.kind !== 'experts' || areSoonerComputed((rows * own.expertsPerToken) / own.numExperts, threads),
    );
  }

  /** Whether the CPU computes the experts for few rows. */
  get areComputed(): boolean {
    return this.#openHost !== undefined;
  }

  /** Bytes in the machine's memory, unless experts are read from the file when they are first sent. */
  get weightBytes(): number {
    return this.#host?.weightBytes ?? 0;
  }

  /** Reads the experts that the CPU computes. @throws HearthError as `openExperts` does. */
  async load(options: LoadOptions): Promise<void> {
    this.#host = await this.#openHost?.(options);
  }

  /** The buffers that represent the matrix. @throws HearthError `unsupported` */
  async place(layer: number, role: Role, weight: Weight, uploader: Uploader): Promise<GpuMatrix> {
    if (!isSendable(weight)) {
      throw unsupported(`${weight.name}: experts of this type or width can't be kept outside of the GPU's memory.`);
    }
    const key = keyOf(role, weight);
    const shared = this.#shared.get(key) ?? { matrix: await uploader.matrix(weight, 'empty'), holders: [] };
    this.#shared.set(key, shared);
    const own = this.#matrices.get(layer) ?? [];
    this.#matrices.set(layer, [...own, { layer, role, weight, shared, kept: new Map() }]);
    return shared.matrix;
  }

  /**
   * Does the host's task before the next steps of a pass. Ends `encoder` and submits its work.
   * @throws HearthError as `ExpertHost.compute` does; errors of reading and of the device.
   */
  async submit(
    { task, layer }: { readonly task: HostTask; readonly layer: number },
    encoder: GPUCommandEncoder,
    pass: WaitingPass,
  ): Promise<void> {
    const { queue } = this.#gpu.device;
    const feedForward = pass.spec.layers[layer]?.feedForward;
    if (feedForward?.kind !== 'experts') throw new Error(`Layer ${layer} has no experts.`);
    const choices = pass.inputs.tokens * feedForward.expertsPerToken;
    const gives = task === 'give' || task === 'both';
    const staging = gives ? this.#encodeInput(encoder, pass, choices) : undefined;
    queue.submit([encoder.finish()]);
    if (staging) {
      this.#computing = this.#compute(layer, staging, choices);
      // Awaited when the output is taken.
      this.#computing.catch(() => undefined);
    }
    if (task === 'take' || task === 'both') {
      const outputs = await this.#computing;
      if (outputs) queue.writeBuffer(pass.scratch.expertOutputs, 0, outputs as Float32Array<ArrayBuffer>);
    }
    if (task === 'send') {
      const chosen = new Uint32Array(await this.#gpu.readBack(pass.scratch.experts, 4 * choices));
      await this.#send(layer, new Set(chosen));
    }
  }

  /** Choices, then activations. */
  #encodeInput(encoder: GPUCommandEncoder, { spec, scratch, inputs }: WaitingPass, choices: number): GPUBuffer {
    const bytes = 4 * inputs.tokens * spec.hiddenSize;
    const size = 4 * choices + bytes;
    if (this.#staging?.size !== size) {
      this.#staging?.destroy();
      const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
      this.#staging = this.#gpu.device.createBuffer({ label: "the experts' input", size, usage });
    }
    encoder.copyBufferToBuffer(scratch.experts, 0, this.#staging, 0, 4 * choices);
    encoder.copyBufferToBuffer(scratch.normed, 0, this.#staging, 4 * choices, bytes);
    return this.#staging;
  }

  async #compute(layer: number, staging: GPUBuffer, choices: number): Promise<Float32Array> {
    await staging.mapAsync(GPUMapMode.READ);
    const given = staging.getMappedRange().slice();
    staging.unmap();
    if (!this.#host) throw new Error('Nothing computes experts on the processor.');
    return this.#host.compute(layer, new Float32Array(given, 4 * choices), new Int32Array(given, 0, choices));
  }

  /** Writes experts of a layer; work that is submitted later reads them. The next is fetched while one is written. */
  async #send(layer: number, experts: ReadonlySet<number>): Promise<void> {
    const missing = (this.#matrices.get(layer) ?? []).flatMap((matrix) =>
      [...experts].filter((expert) => matrix.shared.holders[expert] !== layer).map((expert) => ({ matrix, expert })),
    );
    const begin = (wanted: (typeof missing)[number] | undefined) => {
      const fetching = wanted && this.#pieces(wanted.matrix, wanted.expert);
      // Awaited below, unless an earlier one fails.
      fetching?.catch(() => undefined);
      return fetching;
    };
    let next = begin(missing[0]);
    for (const [i, { matrix, expert }] of missing.entries()) {
      const pieces = (await next) ?? [];
      next = begin(missing[i + 1]);
      for (const { buffer, offset, bytes } of pieces) this.#gpu.device.queue.writeBuffer(buffer, offset, bytes);
      matrix.shared.holders[expert] = layer;
    }
  }

  /** An expert in the card's layout. */
  async #pieces({ layer, role, weight, shared, kept }: OutsideMatrix, expert: number): Promise<readonly Piece[]> {
    const known = kept.get(expert);
    if (known) return known;
    const rows = weight.shape.at(-2) ?? 0;
    const first = expert * rows;
    // Pieces of the matrix contain whole experts.
    const own = shared.matrix.pieces.findLast(({ firstRow }) => firstRow <= first);
    if (!own) throw new Error(`${weight.name} has no expert ${expert}.`);
    const { buffer, layout, firstRow } = own;
    const pieces: Piece[] = [];
    const add = (offset: number, bytes: Uint8Array) =>
      pieces.push({ buffer, offset, bytes: bytes as Uint8Array<ArrayBuffer> });
    if (this.#host?.fields) {
      const planes = planesOf(weight.type);
      const bytes = await this.#host.fields(layer, role, expert, planes);
      let at = 0;
      for (const [index, plane] of planes.entries()) {
        const end = at + rows * layout.blocksPerRow * plane.bytes;
        add(planeOffset(layout, index, first - firstRow), bytes.subarray(at, end));
        at = end;
      }
      return pieces;
    }
    splitPlanes(layout, first - firstRow, await weight.readRows(first, rows), add);
    kept.set(expert, pieces);
    return pieces;
  }

  async end(): Promise<void> {
    this.#staging?.destroy();
    await this.#host?.end();
  }
}
