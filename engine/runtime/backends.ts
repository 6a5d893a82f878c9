/** The backends of this machine, in the order in which `auto` tries them. */

import './noTelemetry.ts';
import { cpus } from 'node:os';
import { basename } from 'node:path';
import type { Backend, BackendName, Decoder, LoadOptions, TuningReport } from '../backend/backend.ts';
import { DoesNotFit } from '../backend/memoryPlan.ts';
import { describeGpu } from '../backend/webgpu/device/adapter.ts';
import { detectHardware } from '../catalogue/fit.ts';
import { HearthError, showBytes } from '../errors.ts';
import type { DecoderSpec } from '../model/spec/spec.ts';
import type { DecoderWeights } from '../model/weights/weights.ts';

/** `cpu`: the fastest CPU backend that can run the model. */
export const backendChoices = [
  'auto',
  'webgpu',
  'split',
  'cpu',
  'ggml',
  'onnx',
  'reference',
] as const satisfies readonly (BackendName | 'auto' | 'cpu')[];
export type BackendChoice = (typeof backendChoices)[number];

export interface Candidate {
  readonly name: BackendName;
  /** Loaded on demand: native libraries cost time and memory, and may be missing on a platform. */
  readonly open: (choice: BackendChoice) => Promise<Backend>;
}

/** The fastest first. `auto` tries `split` only if a graphics card works but the model doesn't fit on it. */
export const candidates: readonly Candidate[] = [
  {
    name: 'webgpu',
    // A software GPU is used only on request, because the CPU backend is faster.
    open: async (choice) =>
      (await import('../backend/webgpu/index.ts')).createWebgpuBackend({
        gpu: { refuseSoftware: choice === 'auto' },
        selfCheck: true,
      }),
  },
  {
    name: 'split',
    open: async (choice) =>
      (await import('../backend/split/index.ts')).createSplitBackend({
        gpu: { refuseSoftware: choice === 'auto' },
        selfCheck: true,
      }),
  },
  // Uses the file's quantised weights as they are and starts sooner; the next backend runs every model.
  {
    name: 'ggml',
    open: async (choice) =>
      (await import('../backend/ggml/index.ts')).createGgmlBackend({
        exactWeights: false,
        onlyWhereFaster: choice !== 'ggml',
      }),
  },
  { name: 'onnx', open: async () => (await import('../backend/onnx/index.ts')).onnxBackend },
  { name: 'reference', open: async () => (await import('../backend/reference/index.ts')).referenceBackend },
];

/** Whether this choice allows the backend. */
export const mayTake = (choice: BackendChoice, name: BackendName): boolean =>
  choice === 'auto' || choice === name || (choice === 'cpu' && (name === 'ggml' || name === 'onnx'));

export interface LoadedDecoder {
  readonly decoder: Decoder;
  /** Why a faster backend was not used. */
  readonly notes: readonly string[];
}

/**
 * Loads with the requested backend. If a backend can't run this model, `auto` tries the next one and explains that in
 * `notes`.
 */
export async function loadDecoder(
  choice: BackendChoice,
  spec: DecoderSpec,
  weights: DecoderWeights,
  options: LoadOptions,
  among: readonly Candidate[] = candidates,
): Promise<LoadedDecoder> {
  const chosen = among.filter(({ name }) => mayTake(choice, name));
  if (chosen.length === 0) throw new HearthError('unsupported', `The backend '${choice}' is not part of this version.`);
  const notes: string[] = [];
  let failure: HearthError | undefined;
  for (const candidate of chosen) {
    if (choice === 'auto' && candidate.name === 'split' && !(failure instanceof DoesNotFit)) continue;
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

// Describes the compute devices of this machine, so that a user can see why one is slow or unused.

interface Device {
  readonly backend: 'webgpu' | 'ggml' | 'onnx';
  readonly found: boolean;
  /** Whether `auto` uses it if the model fits. */
  readonly usedByAuto: boolean;
  readonly description: string;
  /** Disabled features and the reasons. */
  readonly notes: readonly string[];
  /** One report for each kind of model that was timed on the device. */
  readonly tuning: readonly TuningReport[];
}

/**
 * In the order in which `auto` tries them.
 * @param derived the directory where loads store what they measured on a device (`LoadOptions.cacheDirectory`)
 */
export async function discoverDevices(derived: string): Promise<Device[]> {
  return [await discoverGpu(derived), await processor()];
}

async function discoverGpu(derived: string): Promise<Device> {
  try {
    const { Gpu } = await import('../backend/webgpu/device/gpu.ts');
    const { tuningReports } = await import('../backend/webgpu/tuning.ts');
    const { checkNotes } = await import('../backend/webgpu/check/selfCheck.ts');
    const gpu = await Gpu.open();
    const { capabilities } = gpu;
    gpu.dispose();
    const slow =
      "It is computed by software and slower than the CPU backend: 'auto' skips it, --backend webgpu uses it.";
    return {
      backend: 'webgpu',
      found: true,
      usedByAuto: !capabilities.software,
      description: describeGpu(capabilities),
      notes: [
        ...(capabilities.software ? [slow] : []),
        ...capabilities.notes,
        ...(await checkNotes(capabilities, derived)),
      ],
      tuning: await tuningReports(capabilities, derived),
    };
  } catch (error) {
    if (!(error instanceof HearthError)) throw error;
    return { backend: 'webgpu', found: false, usedByAuto: false, description: error.message, notes: [], tuning: [] };
  }
}

/** Whether ggml can be used, with a sentence for the user. */
export async function describeGgml(): Promise<{ readonly usable: boolean; readonly text: string }> {
  try {
    const { chooseLibraries } = await import('../backend/ggml/library.ts');
    return { usable: true, text: `ggml with ${basename(chooseLibraries().kernels)}` };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { usable: false, text: `ggml can't be used, so ONNX Runtime runs all models: ${reason}` };
  }
}

async function processor(): Promise<Device> {
  const ggml = await describeGgml();
  const { cores, totalMemoryBytes, freeMemoryBytes } = detectHardware();
  const name = cpus()[0]?.model.trim() ?? 'The processor';
  const memory = `${showBytes(freeMemoryBytes)} of ${showBytes(totalMemoryBytes)} of memory are free`;
  return {
    backend: ggml.usable ? 'ggml' : 'onnx',
    found: true,
    usedByAuto: true,
    description: `${name}: ${cores} threads; ${memory}.`,
    notes: ggml.usable ? [] : [ggml.text],
    tuning: [],
  };
}
