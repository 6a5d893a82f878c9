/**
 * Finds the GPU and its capabilities, and notes why a feature is not used. Features are detected, never assumed: the
 * poorest adapter has subgroups of 4, no f16, and 128 MiB bindings.
 */
import { z } from 'zod';
import { HearthError, showBytes } from '../../../errors.ts';
import { tilesWithMatrices } from '../kernels/matrixTiles.ts';
import { type GraphicsCard, memoryOf } from './graphicsCards.ts';
import { slowPolls } from './polling.ts';

/** Parameters of kernels that don't follow from the device's properties. All but two limits of sizes are timed (tuning.ts). */
export interface Tuning {
  /** Threads of a workgroup that multiplies few rows by a matrix. */
  readonly vectorThreads: number;
  /** Rows of a workgroup's four of which a thread multiplies a chunk at once: 4, 2 or 1. Only for one row of x. */
  readonly threadRows: number;
  /** Columns from which on that is so. With fewer, most threads would have no chunk, so each takes one of one row. */
  readonly sharedColumns: number;
  /** Workgroups that share the keys of a layer at decode. */
  readonly attentionGroups: number;
  /** Most tokens of a prompt's tile with subgroup matrices: 128 or 64. */
  readonly tileTokens: number;
  /** Rows from which on a matrix is multiplied in such tiles. Of a shorter one, they would be too few for all cores. */
  readonly tallRows: number;
  /** Whether attention of prompts uses subgroup matrices where possible. */
  readonly matrixAttention: boolean;
}

export const defaultTuning: Tuning = {
  vectorThreads: 64,
  threadRows: 4,
  sharedColumns: 768,
  attentionGroups: 512,
  tileTokens: 128,
  tallRows: 2048,
  matrixAttention: true,
};

export interface GpuCapabilities {
  readonly vendor: string;
  readonly architecture: string;
  /** Its name in lower case with hyphens, as Dawn reports it: `nvidia-geforce-rtx-4090`. */
  readonly device: string;
  /** The driver's version. */
  readonly description: string;
  /** A rasteriser on the CPU: correct, but slower than the onnx backend. */
  readonly software: boolean;
  /** `enable f16;` in shaders, f16 buffers. */
  readonly f16: boolean;
  /** Smallest and largest subgroup a shader may meet; absent: no subgroup operations. */
  readonly subgroups?: { readonly min: number; readonly max: number };
  /** f16 → f32 tiles of the experimental subgroup-matrix feature; absent: plain tiles. */
  readonly subgroupMatrix?: { readonly m: number; readonly n: number; readonly k: number };
  /** unpack2x16float keeps values below 2^-14 (`keepsHalfSubnormals`); otherwise kernels use other code. */
  readonly halfSubnormals: boolean;
  readonly timestamps: boolean;
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
  /** Limit for a matrix; larger ones are split. */
  readonly maxPieceBytes: number;
  readonly maxWorkgroupInvocations: number;
  readonly maxWorkgroupBytes: number;
  readonly maxBindingsPerKernel: number;
  /**
   * Operations a second (two for a multiply-add), assumed before the first prompt is measured; the slowest GPUs reach
   * this.
   */
  readonly operationsPerSecond: number;
  readonly tuning: Tuning;
  /** Absent: unknown. */
  readonly memory?: GraphicsCard;
  /** Sentences for the log and `status`: capabilities, and why a feature is off. */
  readonly notes: readonly string[];
}

export interface GpuOptions {
  /** Part of the adapter's name, to choose from several. */
  readonly adapter?: string;
  /** Throw `unavailable` if the only adapter is a rasteriser on the CPU. */
  readonly refuseSoftware?: boolean;
  /** Features to disable; tests run every kernel's simplest path this way. */
  readonly without?: readonly ('f16' | 'halfSubnormals' | 'subgroups' | 'subgroupMatrix')[];
  /** Limits to apply; tests reach limits this way. */
  readonly atMost?: {
    readonly bindingBytes?: number;
    readonly bufferBytes?: number;
    readonly memoryBytes?: number;
    readonly pieceBytes?: number;
    readonly operationsPerSecond?: number;
  };
  /** Keep Dawn's validation of calls and shaders (tests); release runs turn it off. */
  readonly validate?: boolean;
  /** The device neither compiles nor computes (scripts/kernels), so run-time tests count as passed. */
  readonly compileOnly?: boolean;
}

const subgroupMatrixFeature = 'chromium-experimental-subgroup-matrix';

/** Toggles of Dawn (src/dawn/native/Toggles.cpp) and their purpose. */
function dawnToggles(validate: boolean): string[] {
  const always = [
    'allow_unsafe_apis', // subgroup matrices are behind it
    'vulkan_enable_f16_on_nvidia', // Dawn hides f16 on NVIDIA's Vulkan driver otherwise
  ];
  const proved = [
    'disable_robustness', // no bounds clamp on every load; SwiftShader compiles matrixMatrix 30 times as fast
    'disable_workgroup_init', // kernels write workgroup memory before they read it
  ];
  return [...always, ...proved, ...(validate ? [] : ['skip_validation'])];
}

const subgroupMatrixConfigs = z.array(
  z.object({
    componentType: z.string(),
    resultComponentType: z.string(),
    M: z.int().positive(),
    N: z.int().positive(),
    K: z.int().positive(),
  }),
);

/** The first of the adapter's subgroup matrices that tiles can use, or the reason why there is none. */
export function chooseMatrix(
  reported: unknown,
  subgroups: NonNullable<GpuCapabilities['subgroups']>,
  workgroupBytes: number,
): NonNullable<GpuCapabilities['subgroupMatrix']> | string {
  const configs = subgroupMatrixConfigs.safeParse(reported).data ?? [];
  const halves = configs.filter((config) => config.componentType === 'f16' && config.resultComponentType === 'f32');
  const units = halves.map(({ M, N, K }) => ({ m: M, n: N, k: K }));
  const fit = units.find((matrix) => tilesWithMatrices({ subgroups, matrix }, workgroupBytes));
  if (fit) return fit;
  const shown = configs.map(
    ({ componentType, resultComponentType, M, N, K }) => `${componentType} into ${resultComponentType} ${M}x${N}x${K}`,
  );
  return `the adapter multiplies ${shown.join(', ') || 'nothing that it names'}`;
}

/**
 * Vulkan device types are not exposed, so software rasterisers are recognised by name. `architecture` is no help: Dawn
 * derives it from the vendor id and reports "software" for every Mesa driver without its own vendor id, including
 * Apple's GPUs on Linux.
 */
const softwareNames = /swiftshader|llvmpipe|lavapipe|microsoft basic render/i;

/** Honeykrisp, Mesa's driver for Apple's GPUs, for which Dawn reports Mesa as the vendor. */
const isAsahi = ({ vendor, device }: GPUAdapterInfo): boolean => vendor === 'mesa' && device.startsWith('apple-');

function capabilitiesOf(adapter: GPUAdapter, options: GpuOptions): GpuCapabilities {
  const { info, limits, features } = adapter;
  const notes: string[] = [];
  const wanted = (name: 'f16' | 'subgroups' | 'subgroupMatrix', feature: string, instead: string): boolean => {
    if (options.without?.includes(name)) notes.push(`${name}: switched off by the caller; ${instead}.`);
    else if (!features.has(feature as GPUFeatureName))
      notes.push(`${name}: the adapter does not support it; ${instead}.`);
    else return true;
    return false;
  };
  const f16 = wanted('f16', 'shader-f16', 'weights and cache that are f16 are unpacked from 32-bit words');
  const subgroups = wanted('subgroups', 'subgroups', 'sums go through workgroup memory');
  const matrices = wanted('subgroupMatrix', subgroupMatrixFeature, 'prompts are computed in plain tiles');
  // WebGPU itself allows subgroups of 4 to 128.
  const sizes = { min: info.subgroupMinSize ?? 4, max: info.subgroupMaxSize ?? 128 };
  const choice =
    f16 && subgroups && matrices
      ? chooseMatrix(Reflect.get(info, 'subgroupMatrixConfigs'), sizes, limits.maxComputeWorkgroupStorageSize)
      : undefined;
  if (typeof choice === 'string') {
    notes.push(`subgroupMatrix: ${choice}, of which no f16 into f32 fits; prompts are computed in plain tiles.`);
  } else if (matrices && !choice) {
    notes.push('subgroupMatrix: used with f16 and subgroups only; prompts are computed in plain tiles.');
  }
  const maxBindingBytes = Math.min(
    limits.maxStorageBufferBindingSize,
    options.atMost?.bindingBytes ?? limits.maxBufferSize,
  );
  return {
    vendor: isAsahi(info) ? 'apple' : info.vendor,
    architecture: isAsahi(info) ? 'asahi' : info.architecture,
    device: info.device,
    description: info.description || info.device,
    software: softwareNames.test(`${info.device} ${info.description}`),
    f16,
    ...(subgroups ? { subgroups: sizes } : {}),
    ...(typeof choice === 'object' ? { subgroupMatrix: choice } : {}),
    // Set when the device is tested.
    halfSubnormals: false,
    timestamps: features.has('timestamp-query'),
    maxBindingBytes,
    // Leaves room, because planes end on whole words and FP8 is followed by its scales.
    maxPieceBytes: Math.min(maxBindingBytes - 4096, options.atMost?.pieceBytes ?? maxBindingBytes),
    maxBufferBytes: Math.min(limits.maxBufferSize, options.atMost?.bufferBytes ?? limits.maxBufferSize),
    maxWorkgroupInvocations: limits.maxComputeInvocationsPerWorkgroup,
    maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
    maxBindingsPerKernel: limits.maxStorageBuffersPerShaderStage,
    tuning: defaultTuning,
    operationsPerSecond: options.atMost?.operationsPerSecond ?? 1e11,
    notes,
  };
}

async function withMemory(capabilities: GpuCapabilities, { atMost }: GpuOptions): Promise<GpuCapabilities> {
  const known = await memoryOf(capabilities);
  if (known) {
    const freeBytes = Math.min(known.freeBytes, atMost?.memoryBytes ?? known.freeBytes);
    return { ...capabilities, memory: { ...known, freeBytes } };
  }
  const note =
    'memory: unknown to the adapter and the system; the driver refuses a model that does not fit before anything is read.';
  return { ...capabilities, notes: [...capabilities.notes, note] };
}

/** One sentence: the adapter, and the features in use. */
export function describeGpu(capabilities: GpuCapabilities): string {
  const {
    vendor,
    description,
    software,
    f16,
    subgroups,
    subgroupMatrix: matrix,
    maxBindingBytes,
    memory,
  } = capabilities;
  const size =
    subgroups && (subgroups.min === subgroups.max ? `${subgroups.min}` : `${subgroups.min} to ${subgroups.max}`);
  const used = [
    ...(f16 ? ['f16'] : []),
    ...(size === undefined ? [] : [`subgroups of ${size}`]),
    ...(matrix ? [`subgroup matrices of ${matrix.m}x${matrix.n}x${matrix.k} for prompts`] : []),
    `bindings of up to ${showBytes(maxBindingBytes)}`,
  ];
  const kind = software ? ' (a GPU computed by software)' : '';
  const room = memory
    ? `; ${showBytes(memory.freeBytes)} of ${showBytes(memory.totalBytes)} of memory are free${memory.unified ? ', shared with the processor' : ''}`
    : '';
  return `${description || vendor}${kind}: ${used.join(', ')}${room}.`;
}

export interface OpenedGpu {
  /** Dawn lives as long as this object is reachable; its threads end with it. */
  readonly instance: GPU;
  readonly device: GPUDevice;
  readonly capabilities: GpuCapabilities;
}

let dawn: Promise<typeof import('webgpu')> | undefined;

/** A native library, which may be missing on a platform or in a broken installation. */
async function loadDawn(): Promise<typeof import('webgpu')> {
  dawn ??= import('webgpu').then((library) => {
    slowPolls(globalThis);
    return library;
  });
  try {
    return await dawn;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HearthError('unavailable', `The GPU library (Dawn) cannot be loaded: ${reason}`, { cause: error });
  }
}

/**
 * On Windows, Vulkan if its driver is installed, because Direct3D 12 has no subgroup matrices; otherwise Dawn's choice.
 */
export async function requestAdapter(
  create: (flags: string[]) => GPU,
  flags: readonly string[],
  platform: NodeJS.Platform = process.platform,
): Promise<{ readonly instance: GPU; readonly adapter: GPUAdapter | null }> {
  const powerPreference = 'high-performance';
  if (platform === 'win32') {
    const instance = create([...flags, 'backend=vulkan']);
    const adapter = await instance.requestAdapter({ powerPreference });
    if (adapter) return { instance, adapter };
  }
  const instance = create([...flags]);
  return { instance, adapter: await instance.requestAdapter({ powerPreference }) };
}

/** @throws HearthError `unavailable` if there is no adapter; says what was tried. */
export async function openGpu(options: GpuOptions = {}): Promise<OpenedGpu> {
  const { create, globals } = await loadDawn();
  Object.assign(globalThis, globals);
  const flags = [`enable-dawn-features=${dawnToggles(options.validate ?? false).join(',')}`];
  // Otherwise timestamps have steps of 100 µs, as for web pages.
  flags.push('disable-dawn-features=timestamp_quantization');
  if (options.adapter) flags.push(`adapter=${options.adapter}`);
  const { instance, adapter } = await requestAdapter(create, flags);
  if (!adapter) {
    throw new HearthError(
      'unavailable',
      'No GPU was found (no Vulkan, Metal or Direct3D 12 driver answered). Hearth uses the CPU; install or update the graphics driver to use the GPU.',
    );
  }
  const capabilities = await withMemory(capabilitiesOf(adapter, options), options);
  if (capabilities.software && options.refuseSoftware) {
    throw new HearthError(
      'unavailable',
      `The only GPU found is computed by software (${capabilities.description}), which is slower than the CPU backend.`,
    );
  }
  const features: string[] = [];
  if (capabilities.f16) features.push('shader-f16');
  if (capabilities.subgroups) features.push('subgroups');
  if (capabilities.subgroupMatrix) features.push(subgroupMatrixFeature);
  if (capabilities.timestamps) features.push('timestamp-query');
  const device = await adapter.requestDevice({
    label: 'hearth',
    requiredFeatures: features as GPUFeatureName[],
    requiredLimits: {
      maxStorageBufferBindingSize: capabilities.maxBindingBytes,
      maxBufferSize: capabilities.maxBufferBytes,
      maxComputeInvocationsPerWorkgroup: capabilities.maxWorkgroupInvocations,
      maxComputeWorkgroupSizeX: adapter.limits.maxComputeWorkgroupSizeX,
      maxComputeWorkgroupStorageSize: capabilities.maxWorkgroupBytes,
      maxStorageBuffersPerShaderStage: capabilities.maxBindingsPerKernel,
    },
  });
  const tested = options.without?.includes('halfSubnormals')
    ? false
    : options.compileOnly || (await keepsHalfSubnormals(device));
  return { instance, device, capabilities: { ...capabilities, halfSubnormals: tested } };
}

// Whether unpack2x16float keeps f16 values below 2^-14: WGSL lets a device flush them (section 15.7.2). Reading four-bit and
// eight-bit floats as the bits of an f16 is cheapest; their smallest values become such subnormals.

/** 2^-15 and -2^-24 as f16, and the expected f32. */
const halves = 0x8001_0200;
const expected = [2 ** -15, -(2 ** -24)];

const code = /* wgsl */ `
@group(0) @binding(0) var<storage, read> halves: array<u32>;
@group(0) @binding(1) var<storage, read_write> values: array<vec2f>;
@compute @workgroup_size(1)
fn main() { values[0] = unpack2x16float(halves[0]); }
`;

async function keepsHalfSubnormals(device: GPUDevice): Promise<boolean> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const input = device.createBuffer({ size: 16, usage });
  const output = device.createBuffer({ size: 16, usage });
  const reading = device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const module = device.createShaderModule({ label: 'half subnormals', code });
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
  device.queue.writeBuffer(input, 0, new Uint32Array([halves, 0, 0, 0]));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  const resources = [input, output];
  const entries = resources.map((buffer, binding) => ({ binding, resource: { buffer } }));
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(output, 0, reading, 0, 16);
  device.queue.submit([encoder.finish()]);
  await reading.mapAsync(GPUMapMode.READ);
  const values = [...new Float32Array(reading.getMappedRange(), 0, 2)];
  for (const buffer of [input, output, reading]) buffer.destroy();
  return values.every((value, i) => value === expected[i]);
}
