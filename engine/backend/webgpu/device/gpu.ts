/**
 * The device with what every kernel needs: checked allocations, a cache of compiled pipelines, read-back, and notice of
 * its loss. Independent of what is computed.
 */
import { HearthError } from '../../../errors.ts';
import { type GpuCapabilities, type GpuOptions, type OpenedGpu, openGpu } from './adapter.ts';

/** How a kernel accesses a buffer. Weights are always `read`: Dawn then needs no barrier between uses. */
export type BindingKind = 'read' | 'write' | 'uniform';

/** A specialised WGSL kernel; equal `code` shares one pipeline. Entry point `main`, bindings in group 0 by position. */
export interface KernelSource {
  readonly label: string;
  readonly code: string;
  readonly bindings: readonly BindingKind[];
  /**
   * Weights that a thread multiplies in one iteration of its loop over columns. Absent: the kernel has no such loop.
   */
  readonly weightsPerStep?: number;
  /**
   * Multiplications of a thread in one iteration of a prompt kernel's main loop; with subgroup matrices,
   * multiplications of whole matrices.
   */
  readonly multipliesPerStep?: number;
  /** Bytes of weights that one dispatch reads for one token. */
  readonly weightBytes?: number;
}

export interface Kernel {
  readonly source: KernelSource;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const bindingType = { read: 'read-only-storage', write: 'storage', uniform: 'uniform' } as const;

/** Allocates memory: the GPU, or a stand-in that only counts bytes. */
export type Allocator = Pick<Gpu, 'allocate' | 'allocatedBytes'>;

/** Records a plan: the GPU, or a stand-in that only lists its kernels. */
export type KernelDevice = Pick<Gpu, 'capabilities' | 'kernel' | 'bind'>;

/** Bytes that `take` would allocate; allocates nothing. */
export async function bytesTaken(take: (account: Allocator) => Promise<unknown>): Promise<number> {
  let allocatedBytes = 0;
  await take({
    get allocatedBytes() {
      return allocatedBytes;
    },
    async allocate(_, byteLength) {
      const size = allocationSize(byteLength);
      allocatedBytes += size;
      return { size } as GPUBuffer;
    },
  });
  return allocatedBytes;
}

const allocationSize = (byteLength: number): number => Math.max(16, Math.ceil(byteLength / 16) * 16);

export class Gpu {
  readonly device: GPUDevice;
  /** The adapter's capabilities without those that the self-check switched off. */
  capabilities: GpuCapabilities;
  /** Set once the device is gone; every later use throws `device-lost`. */
  lossMessage: string | undefined;
  readonly #opened: OpenedGpu;
  readonly #kernels = new Map<string, Promise<Kernel>>();
  #allocatedBytes = 0;
  #firstError: string | undefined;

  private constructor(opened: OpenedGpu) {
    this.#opened = opened;
    this.device = opened.device;
    this.capabilities = opened.capabilities;
    void opened.device.lost.then((info) => {
      this.lossMessage ??= info.message || info.reason;
    });
    opened.device.addEventListener('uncapturederror', ({ error }) => {
      this.#firstError ??= error.message;
    });
  }

  static async open(options: GpuOptions = {}): Promise<Gpu> {
    return new Gpu(await openGpu(options));
  }

  get allocatedBytes(): number {
    return this.#allocatedBytes;
  }

  /** Throws once the device is gone, or if an earlier call turned out to be invalid. */
  throwIfFailed(): void {
    if (this.lossMessage !== undefined) {
      throw new HearthError(
        'device-lost',
        `The GPU stopped answering (${this.lossMessage}). The conversation is kept.`,
      );
    }
    if (this.#firstError !== undefined) throw new Error(this.#firstError);
  }

  /**
   * Throws the cause of a GPU call's `error`: the loss of the device, or the first validation error, which is more
   * precise. Returns if it is neither.
   */
  async explain(error: unknown): Promise<void> {
    // The loss is reported in a later event, after the call that failed because of it.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (error instanceof HearthError) return;
    this.throwIfFailed();
  }

  /**
   * A buffer of `byteLength` rounded up to 16 bytes, zeroed.
   * @throws HearthError `out-of-memory` with the size asked for and what is already held.
   */
  async allocate(label: string, byteLength: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> {
    this.throwIfFailed();
    const size = allocationSize(byteLength);
    if (size > this.capabilities.maxBufferBytes) {
      throw new HearthError(
        'out-of-memory',
        `${label} needs ${size} bytes in one buffer; this GPU allows ${this.capabilities.maxBufferBytes}.`,
      );
    }
    this.device.pushErrorScope('out-of-memory');
    this.device.pushErrorScope('validation');
    const buffer = this.device.createBuffer({ label, size, usage });
    const errors = await Promise.all([this.device.popErrorScope(), this.device.popErrorScope()]);
    const error = errors.find((candidate) => candidate !== null);
    if (error) {
      buffer.destroy();
      throw new HearthError(
        'out-of-memory',
        `The GPU has no room for ${label} (${size} bytes; ${this.#allocatedBytes} bytes are held): ${error.message}`,
      );
    }
    this.#allocatedBytes += size;
    return buffer;
  }

  free(buffer: GPUBuffer): void {
    this.#allocatedBytes -= buffer.size;
    buffer.destroy();
  }

  /**
   * Compiles on Dawn's threads. Failures are not cached: the next caller compiles again and gets the error.
   * @throws HearthError `unavailable` if the driver fails, `device-lost`; for invalid code an Error that names kernel
   * and line.
   */
  kernel(source: KernelSource): Promise<Kernel> {
    const known = this.#kernels.get(source.code);
    if (known) return known;
    const made = this.#compile(source);
    this.#kernels.set(source.code, made);
    made.catch(() => this.#kernels.delete(source.code));
    return made;
  }

  async #compile(source: KernelSource): Promise<Kernel> {
    this.throwIfFailed();
    const { device } = this;
    const layout = device.createBindGroupLayout({
      label: source.label,
      entries: source.bindings.map((kind, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: bindingType[kind] },
      })),
    });
    const module = device.createShaderModule({ label: source.label, code: source.code });
    const info = await module.getCompilationInfo();
    const error = info.messages.find((message) => message.type === 'error');
    if (error) throw new Error(`Kernel ${source.label}, line ${error.lineNum}: ${error.message}`);
    const descriptor = {
      label: source.label,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: 'main' },
    };
    try {
      return { source, layout, pipeline: await device.createComputePipelineAsync(descriptor) };
    } catch (failure) {
      await this.explain(failure);
      const reason = failure instanceof Error ? failure.message : String(failure);
      throw new HearthError('unavailable', `The graphics driver did not compile ${source.label}: ${reason}`, {
        cause: failure,
      });
    }
  }

  bind(kernel: Kernel, buffers: readonly (GPUBuffer | GPUBufferBinding)[]): GPUBindGroup {
    return this.device.createBindGroup({
      label: kernel.source.label,
      layout: kernel.layout,
      entries: buffers.map((buffer, binding) => ({ binding, resource: 'buffer' in buffer ? buffer : { buffer } })),
    });
  }

  /** Copies `byteLength` bytes from the start of `buffer` to the host after all submitted work. */
  async readBack(buffer: GPUBuffer, byteLength: number): Promise<ArrayBuffer> {
    const size = Math.ceil(byteLength / 4) * 4;
    const staging = this.device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, size);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const bytes = staging.getMappedRange().slice(0, byteLength);
    staging.destroy();
    return bytes;
  }

  dispose(): void {
    this.lossMessage ??= 'it was closed';
    this.#kernels.clear();
    this.#opened.device.destroy();
  }
}
