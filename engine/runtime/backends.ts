/** Which backends can compute here, in the order in which `auto` tries them. */
import type { Backend, BackendName, Decoder, LoadOptions } from '../backend/backend.ts';
import { DoesNotFit } from '../backend/memoryPlan.ts';
import { HearthError } from '../errors.ts';
import type { DecoderSpec } from '../model/spec/spec.ts';
import type { DecoderWeights } from '../model/weights/weights.ts';

export const backendChoices = ['auto', 'webgpu', 'onnx', 'reference'] as const satisfies readonly (
  | BackendName
  | 'auto'
)[];
export type BackendChoice = (typeof backendChoices)[number];

export interface Candidate {
  readonly name: BackendName;
  /** Loaded on demand: native libraries cost time and memory, and may be missing on a platform. */
  readonly open: (choice: BackendChoice) => Promise<Backend>;
}

/** The fastest first. */
export const candidates: readonly Candidate[] = [
  {
    name: 'webgpu',
    // A software GPU is for those who ask for it: the CPU backend is faster.
    open: async (choice) =>
      (await import('../backend/webgpu/index.ts')).createWebgpuBackend({ gpu: { refuseSoftware: choice === 'auto' } }),
  },
  { name: 'onnx', open: async () => (await import('../backend/onnx/index.ts')).onnxBackend },
  { name: 'reference', open: async () => (await import('../backend/reference/index.ts')).referenceBackend },
];

export interface ReferenceWeights {
  readonly decoder: Decoder;
  /** Why a faster backend was not taken. */
  readonly notes: readonly string[];
}

/**
 * Loads by the backend that was asked for; `auto` takes the next one where one cannot compute this model here, and `notes`
 * says so.
 */
export async function loadDecoder(
  choice: BackendChoice,
  spec: DecoderSpec,
  weights: DecoderWeights,
  options: LoadOptions,
  among: readonly Candidate[] = candidates,
): Promise<ReferenceWeights> {
  const chosen = among.filter(({ name }) => choice === 'auto' || choice === name);
  if (chosen.length === 0) throw new HearthError('unsupported', `The backend '${choice}' is not part of this version.`);
  const notes: string[] = [];
  let failure: HearthError | undefined;
  for (const candidate of chosen) {
    try {
      const backend = await open(candidate, choice);
      return { decoder: await backend.load(spec, weights, options), notes };
    } catch (error) {
      if (!mayTryNext(error)) throw error;
      failure = error;
      notes.push(`Not on '${candidate.name}': ${error.message}`);
    }
  }
  if (failure && notes.length > 1) throw together(failure, notes.join(' '));
  throw failure;
}

function together(failure: HearthError, message: string): HearthError {
  if (failure instanceof DoesNotFit) return new DoesNotFit(message, failure.usableBytes, failure.contextTokens);
  return new HearthError(failure.code, message, { cause: failure });
}

async function open({ name, open }: Candidate, choice: BackendChoice): Promise<Backend> {
  try {
    return await open(choice);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HearthError('unavailable', `The backend '${name}' cannot start on this machine: ${reason}`, {
      cause: error,
    });
  }
}

const mayTryNext = (error: unknown): error is HearthError =>
  error instanceof HearthError && ['unsupported', 'unavailable', 'device-lost', 'out-of-memory'].includes(error.code);
