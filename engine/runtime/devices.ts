/** What this machine has to compute with, in words: for people who wonder why something is slow, or not used. */
import { cpus } from 'node:os';
import { describeGpu } from '../backend/webgpu/device/adapter.ts';
import { detectHardware } from '../catalogue/fit.ts';
import { HearthError } from '../errors.ts';
import { showBytes } from '../units.ts';

export interface Device {
  readonly backend: 'webgpu' | 'onnx';
  readonly found: boolean;
  /** Whether `auto` takes it, when the model fits. */
  readonly usedByAuto: boolean;
  readonly description: string;
  /** What is off, and why. */
  readonly notes: readonly string[];
}

/** In the order in which `auto` tries them. */
export async function discoverDevices(): Promise<Device[]> {
  return [await discoverGpu(), processor()];
}

async function discoverGpu(): Promise<Device> {
  try {
    const { Gpu } = await import('../backend/webgpu/device/gpu.ts');
    const gpu = await Gpu.open();
    const { capabilities } = gpu;
    gpu.dispose();
    const slow =
      "It is computed by software and slower than the CPU backend: 'auto' passes it over, --backend webgpu uses it.";
    return {
      backend: 'webgpu',
      found: true,
      usedByAuto: !capabilities.software,
      description: describeGpu(capabilities),
      notes: [...(capabilities.software ? [slow] : []), ...capabilities.notes],
    };
  } catch (error) {
    if (!(error instanceof HearthError)) throw error;
    return { backend: 'webgpu', found: false, usedByAuto: false, description: error.message, notes: [] };
  }
}

function processor(): Device {
  const { cores, totalMemoryBytes, freeMemoryBytes } = detectHardware();
  const name = cpus()[0]?.model.trim() ?? 'The processor';
  const memory = `${showBytes(freeMemoryBytes)} of ${showBytes(totalMemoryBytes)} of memory are free`;
  return {
    backend: 'onnx',
    found: true,
    usedByAuto: true,
    description: `${name}: ${cores} threads; ${memory}.`,
    notes: [],
  };
}
