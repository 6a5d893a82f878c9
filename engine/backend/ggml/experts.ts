/**
 * Experts that the CPU computes for a decoder on a GPU, in the file's quantisation, on a ggml thread. The GPU may
 * request an expert's blocks too, so they are kept as in the file, not interleaved.
 */
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { LayerWeights } from '../../model/weights/weights.ts';
import type { LoadOptions } from '../backend.ts';
import { type ExpertRole, expertRoles } from '../experts.ts';
import { ThreadClient } from '../processor/threadClient.ts';
import { defaultThreads } from '../processor/threads.ts';
import { chooseLibraries, type ExpertField, type GgmlExpertLayer } from './library.ts';
import {
  asFloats,
  asStored,
  bytesOfTensors,
  declared,
  fillThread,
  type GgmlThread,
  openThread,
  workerFile,
} from './tensors.ts';

export interface ExpertHost {
  readonly weightBytes: number;
  readonly threads: number;
  /**
   * @param input normalised activations, `[tokens, hidden]`.
   * @param chosen `[tokens, expertsPerToken]`
   * @returns the output of each, `[tokens, expertsPerToken, hidden]`
   * @throws HearthError `unsupported`, `out-of-memory`, `device-lost`
   */
  compute(layer: number, input: Float32Array, chosen: Int32Array): Promise<Float32Array>;
  /** Reads the given fields of an expert's blocks, one after the other. Absent: the blocks are not in memory. */
  readonly fields?: (
    layer: number,
    role: ExpertRole,
    expert: number,
    fields: readonly ExpertField[],
  ) => Promise<Uint8Array>;
  end(): Promise<void>;
}

interface ExpertLayers {
  readonly spec: Pick<DecoderSpec, 'hiddenSize' | 'layers'>;
  /** The first layers of the model. */
  readonly layers: readonly LayerWeights[];
  /** Keeps matrices as f32, so that matmuls don't quantise activations: for tests of arithmetic. */
  readonly exact?: boolean;
}

/**
 * Reads the experts of the layers into memory.
 * @throws HearthError `unavailable`, `unsupported`, `out-of-memory`, `cancelled`
 */
export async function openExperts(
  { spec, layers, exact = false }: ExpertLayers,
  options: LoadOptions,
): Promise<ExpertHost> {
  const tensors = layers.flatMap(({ feedForward }, index) => {
    if (feedForward.kind !== 'experts') return [];
    return expertRoles.flatMap((role) => {
      const { weight, bias } = feedForward[role];
      const matrix = (exact ? asFloats : asStored)(`${index}.${role}`, weight, 'as-stored');
      return [matrix, ...(bias ? [asFloats(`${index}.${role}.bias`, bias, 'vector')] : [])];
    });
  });
  const thread: GgmlThread = new ThreadClient(workerFile, 'ggml');
  const threads = options.threads ?? defaultThreads();
  try {
    const model = {
      libraries: chooseLibraries(),
      threads,
      hiddenSize: spec.hiddenSize,
      layers: layers.map((_, index) => layerOf(spec, index)),
      tensors: tensors.map(declared),
    };
    await openThread(thread, { kind: 'load-experts', model });
    await fillThread(thread, tensors, options);
  } catch (error) {
    thread.tell({ kind: 'end' });
    throw error;
  }
  return {
    weightBytes: bytesOfTensors(tensors),
    threads,
    async compute(layer, input, chosen) {
      const { values } = await thread.ask({ kind: 'compute-experts', layer, input, chosen });
      const [output] = values;
      if (!output) throw new Error('The thread of experts returned nothing.');
      return output;
    },
    ...(!exact && {
      async fields(layer, role, expert, fields) {
        const { saved } = await thread.ask({ kind: 'read-fields', key: `${layer}.${role}`, expert, fields });
        if (!saved) throw new Error('The thread of experts returned nothing.');
        return saved;
      },
    }),
    end: () => thread.end(),
  };
}

function layerOf({ layers }: Pick<DecoderSpec, 'layers'>, index: number): GgmlExpertLayer | undefined {
  const feedForward = layers[index]?.feedForward;
  if (feedForward?.kind !== 'experts') return undefined;
  const { numExperts, expertsPerToken, activation } = feedForward;
  return { numExperts, expertsPerToken, activation };
}
