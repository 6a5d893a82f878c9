/**
 * ggml's libraries as node-llama-cpp's platform packages ship them, called through koffi. Choosing a build runs only
 * `ggml_backend_score`, which tells how well a build of the kernels suits this CPU.
 */
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import koffi from 'koffi';
import { HearthError } from '../../errors.ts';
import type { DecoderSpec, ExpertsSpec } from '../../model/spec/spec.ts';
import type { CacheType, LayerCacheSpec, WindowGroup } from '../processor/messages.ts';

/** Address of something that ggml owns. */
export type Pointer = bigint | null;

/** The platforms with a package, and the package's name on npm. */
const packages: Readonly<Record<string, string>> = {
  'linux-x64': 'linux-x64',
  'linux-arm64': 'linux-arm64',
  'darwin-arm64': 'mac-arm64-metal',
  'darwin-x64': 'mac-x64',
  'win32-x64': 'win-x64',
  'win32-arm64': 'win-arm64',
};

/** @throws HearthError `unavailable` if npm installed no package for this platform. */
function libraryDirectory(): string {
  const platform = `${process.platform}-${process.arch}`;
  const name = packages[platform];
  if (name === undefined) throw new HearthError('unavailable', `ggml has no build for ${platform}.`);
  try {
    const main = createRequire(import.meta.url).resolve(`@node-llama-cpp/${name}`);
    return join(dirname(main), '..', 'bins', name);
  } catch (error) {
    throw new HearthError('unavailable', `The package @node-llama-cpp/${name} is not installed.`, { cause: error });
  }
}

const isBase = /^(lib)?ggml-base\.(so|dylib|dll)$/;
const isKernels = /^(lib)?ggml-cpu(-[\w.]+)?\.(so|dylib|dll)$/;

type Native = ReturnType<typeof koffi.load>;

/** Files of the base library and of the kernels for this CPU. */
export interface LibraryFiles {
  readonly base: string;
  readonly kernels: string;
}

let chosen: { readonly files: LibraryFiles; readonly held: readonly Native[] } | undefined;

/**
 * Chooses the kernels for this CPU, and keeps the libraries loaded for the life of the process: the base library can't
 * be loaded again after its last thread has released it.
 * @throws HearthError `unavailable`
 */
export function chooseLibraries(): LibraryFiles {
  if (chosen) return chosen.files;
  const directory = libraryDirectory();
  const names = readdirSync(directory);
  const baseName = names.find((name) => isBase.test(name));
  if (baseName === undefined) throw new HearthError('unavailable', 'The package of ggml has no base library.');
  // Load the base library first, because the kernel libraries look it up by name.
  const base = load(join(directory, baseName), true);
  let best: { readonly kernels: Native; readonly path: string; readonly score: number } | undefined;
  for (const name of names.filter((each) => isKernels.test(each))) {
    const path = join(directory, name);
    const kernels = load(path);
    const score = scoreOf(kernels);
    if (score > (best?.score ?? 0)) best = { kernels, path, score };
  }
  if (!best) throw new HearthError('unavailable', 'ggml has no kernels for this processor.');
  chosen = { files: { base: join(directory, baseName), kernels: best.path }, held: [base, best.kernels] };
  return chosen.files;
}

function load(path: string, global = false): Native {
  try {
    return koffi.load(path, { global });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HearthError('unavailable', `${basename(path)} could not be loaded: ${reason}`, { cause: error });
  }
}

/** 0 if the kernels don't run on this CPU. The only build of a platform has no score. */
function scoreOf(kernels: Native): number {
  try {
    return Number(kernels.func('int ggml_backend_score()')());
  } catch {
    return 1;
  }
}

/** ggml's functions, as declared in ggml.h, ggml-alloc.h, ggml-backend.h and ggml-cpu.h (ggml of llama.cpp 0.4). */
const declarations = {
  ggml_log_set: 'void ggml_log_set(void *callback, void *user_data)',
  ggml_init: 'void *ggml_init(ggml_init_params params)',
  ggml_free: 'void ggml_free(void *ctx)',
  ggml_tensor_overhead: 'size_t ggml_tensor_overhead()',
  ggml_graph_overhead_custom: 'size_t ggml_graph_overhead_custom(size_t size, bool grads)',
  ggml_nbytes: 'size_t ggml_nbytes(void *tensor)',
  ggml_type_size: 'size_t ggml_type_size(int type)',
  ggml_new_tensor_1d: 'void *ggml_new_tensor_1d(void *ctx, int type, int64_t ne0)',
  ggml_new_tensor_2d: 'void *ggml_new_tensor_2d(void *ctx, int type, int64_t ne0, int64_t ne1)',
  ggml_new_tensor_3d: 'void *ggml_new_tensor_3d(void *ctx, int type, int64_t ne0, int64_t ne1, int64_t ne2)',
  ggml_set_input: 'void ggml_set_input(void *tensor)',
  ggml_set_output: 'void ggml_set_output(void *tensor)',
  ggml_new_graph_custom: 'void *ggml_new_graph_custom(void *ctx, size_t size, bool grads)',
  ggml_build_forward_expand: 'void ggml_build_forward_expand(void *graph, void *tensor)',
  ggml_add: 'void *ggml_add(void *ctx, void *a, void *b)',
  ggml_add_id: 'void *ggml_add_id(void *ctx, void *a, void *b, void *ids)',
  ggml_mul: 'void *ggml_mul(void *ctx, void *a, void *b)',
  ggml_div: 'void *ggml_div(void *ctx, void *a, void *b)',
  ggml_scale: 'void *ggml_scale(void *ctx, void *a, float s)',
  ggml_clamp: 'void *ggml_clamp(void *ctx, void *a, float min, float max)',
  ggml_sqr: 'void *ggml_sqr(void *ctx, void *a)',
  ggml_sum_rows: 'void *ggml_sum_rows(void *ctx, void *a)',
  ggml_sigmoid: 'void *ggml_sigmoid(void *ctx, void *a)',
  ggml_soft_max: 'void *ggml_soft_max(void *ctx, void *a)',
  ggml_soft_max_ext: 'void *ggml_soft_max_ext(void *ctx, void *a, void *mask, float scale, float max_bias)',
  ggml_soft_max_add_sinks: 'void ggml_soft_max_add_sinks(void *a, void *sinks)',
  ggml_norm: 'void *ggml_norm(void *ctx, void *a, float eps)',
  ggml_rms_norm: 'void *ggml_rms_norm(void *ctx, void *a, float eps)',
  ggml_mul_mat: 'void *ggml_mul_mat(void *ctx, void *a, void *b)',
  ggml_mul_mat_id: 'void *ggml_mul_mat_id(void *ctx, void *as, void *b, void *ids)',
  ggml_swiglu_split: 'void *ggml_swiglu_split(void *ctx, void *a, void *b)',
  ggml_swiglu_oai: 'void *ggml_swiglu_oai(void *ctx, void *a, void *b, float alpha, float limit)',
  ggml_get_rows: 'void *ggml_get_rows(void *ctx, void *a, void *b)',
  ggml_set_rows: 'void *ggml_set_rows(void *ctx, void *a, void *b, void *c)',
  ggml_argsort_top_k: 'void *ggml_argsort_top_k(void *ctx, void *a, int k)',
  ggml_cont: 'void *ggml_cont(void *ctx, void *a)',
  ggml_cpy: 'void *ggml_cpy(void *ctx, void *a, void *b)',
  ggml_transpose: 'void *ggml_transpose(void *ctx, void *a)',
  ggml_repeat_4d: 'void *ggml_repeat_4d(void *ctx, void *a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3)',
  ggml_permute: 'void *ggml_permute(void *ctx, void *a, int axis0, int axis1, int axis2, int axis3)',
  ggml_reshape_2d: 'void *ggml_reshape_2d(void *ctx, void *a, int64_t ne0, int64_t ne1)',
  ggml_reshape_3d: 'void *ggml_reshape_3d(void *ctx, void *a, int64_t ne0, int64_t ne1, int64_t ne2)',
  ggml_view_1d: 'void *ggml_view_1d(void *ctx, void *a, int64_t ne0, size_t offset)',
  ggml_view_2d: 'void *ggml_view_2d(void *ctx, void *a, int64_t ne0, int64_t ne1, size_t nb1, size_t offset)',
  ggml_view_3d:
    'void *ggml_view_3d(void *ctx, void *a, int64_t ne0, int64_t ne1, int64_t ne2, size_t nb1, size_t nb2, size_t offset)',
  ggml_rope_ext:
    'void *ggml_rope_ext(void *ctx, void *a, void *b, void *c, int n_dims, int mode, int n_ctx_orig, float freq_base, float freq_scale, float ext_factor, float attn_factor, float beta_fast, float beta_slow)',
  ggml_gallocr_new: 'void *ggml_gallocr_new(void *buft)',
  ggml_gallocr_free: 'void ggml_gallocr_free(void *galloc)',
  ggml_gallocr_alloc_graph: 'bool ggml_gallocr_alloc_graph(void *galloc, void *graph)',
  ggml_threadpool_params_init: 'void ggml_threadpool_params_init(void *params, int n_threads)',
  ggml_backend_free: 'void ggml_backend_free(void *backend)',
  ggml_backend_graph_compute: 'int ggml_backend_graph_compute(void *backend, void *graph)',
  ggml_backend_supports_op: 'bool ggml_backend_supports_op(void *backend, void *op)',
  ggml_backend_get_device: 'void *ggml_backend_get_device(void *backend)',
  ggml_backend_dev_backend_reg: 'void *ggml_backend_dev_backend_reg(void *device)',
  ggml_backend_reg_get_proc_address: 'void *ggml_backend_reg_get_proc_address(void *reg, const char *name)',
  ggml_backend_cpu_buffer_type: 'void *ggml_backend_cpu_buffer_type()',
  ggml_backend_cpu_buffer_from_ptr: 'void *ggml_backend_cpu_buffer_from_ptr(void *ptr, size_t size)',
  ggml_backend_buft_name: 'const char *ggml_backend_buft_name(void *buft)',
  ggml_backend_buft_alloc_buffer: 'void *ggml_backend_buft_alloc_buffer(void *buft, size_t size)',
  ggml_backend_buft_get_alloc_size: 'size_t ggml_backend_buft_get_alloc_size(void *buft, void *tensor)',
  ggml_backend_buffer_free: 'void ggml_backend_buffer_free(void *buffer)',
  ggml_backend_buffer_get_base: 'void *ggml_backend_buffer_get_base(void *buffer)',
  ggml_backend_tensor_alloc: 'int ggml_backend_tensor_alloc(void *buffer, void *tensor, void *addr)',
  ggml_backend_tensor_set: 'void ggml_backend_tensor_set(void *tensor, const void *data, size_t offset, size_t size)',
  ggml_backend_tensor_get: 'void ggml_backend_tensor_get(void *tensor, _Out_ void *data, size_t offset, size_t size)',
} as const;

/** Functions of the kernel library. */
const kernelDeclarations = {
  ggml_backend_cpu_init: 'void *ggml_backend_cpu_init()',
  ggml_backend_cpu_set_n_threads: 'void ggml_backend_cpu_set_n_threads(void *backend, int n_threads)',
  ggml_backend_cpu_set_threadpool: 'void ggml_backend_cpu_set_threadpool(void *backend, void *threadpool)',
  ggml_threadpool_new: 'void *ggml_threadpool_new(void *params)',
  ggml_threadpool_free: 'void ggml_threadpool_free(void *threadpool)',
} as const;

type Argument = Pointer | number | boolean | string | NodeJS.TypedArray | { readonly [field: string]: unknown };
type Result<Declaration> = Declaration extends `void *${string}`
  ? Pointer
  : Declaration extends `void ${string}`
    ? undefined
    : Declaration extends `const char *${string}`
      ? string
      : Declaration extends `bool ${string}`
        ? boolean
        : number;
type Functions<Declarations> = {
  readonly [Name in keyof Declarations]: (...args: readonly Argument[]) => Result<Declarations[Name]>;
};

export type Ggml = Functions<typeof declarations> &
  Functions<typeof kernelDeclarations> & {
    /** Buffer types with the matrix layouts that this CPU's kernels read fastest; the fastest first. */
    readonly repackedBuffers: (device: Pointer) => readonly Pointer[];
  };

/** Call it on the compute thread. @throws HearthError `unavailable` */
export function openGgml(files: LibraryFiles): Ggml {
  const base = load(files.base, true);
  const kernels = load(files.kernels);
  koffi.struct('ggml_init_params', { mem_size: 'size_t', mem_buffer: 'void *', no_alloc: 'bool' });
  const all = { ...functionsOf(base, declarations), ...functionsOf(kernels, kernelDeclarations) };
  // ggml would log a line to stderr for each matrix. `ggml_time_us`, which ignores its arguments, replaces the log
  // function.
  all.ggml_log_set(base.symbol('ggml_time_us'), null);
  return { ...all, repackedBuffers: (device) => repackedBuffers(all, device) };
}

function functionsOf<Declarations extends Readonly<Record<string, string>>>(
  library: Native,
  declared: Declarations,
): Functions<Declarations> {
  const functions = Object.entries(declared).map(([name, declaration]) => [name, library.func(declaration)]);
  return Object.fromEntries(functions);
}

const getBufferTypes = koffi.proto('void **get_buffer_types(void *device)');

function repackedBuffers(ggml: Functions<typeof declarations>, device: Pointer): Pointer[] {
  const registry = ggml.ggml_backend_dev_backend_reg(device);
  const listed = ggml.ggml_backend_reg_get_proc_address(registry, 'ggml_backend_dev_get_extra_bufts');
  if (listed === null) return [];
  const types: Pointer[] = [];
  for (let at: Pointer = koffi.call(listed, getBufferTypes, device); at !== null; at += 8n) {
    const type: Pointer = koffi.decode(at, 'void *');
    if (type === null) break;
    types.push(type);
  }
  return types;
}

/** The address of a typed array's memory, which stays where it is while the array lives. */
export const addressOf = (values: NodeJS.TypedArray): bigint => koffi.address(values);

// The messages of this backend's thread.

/** A weight as a tensor of the thread. */
export interface DeclaredTensor {
  /** Such as `layers.0.query`; a linear layer's bias ends with `.bias`. */
  readonly key: string;
  readonly type: number;
  /** ggml's order: the row's length first. */
  readonly sizes: readonly number[];
  /**
   * `matrix`, `experts`: used only as the first operand of a matmul, so the blocks may be interleaved. `as-stored`: the
   * blocks are also read back.
   */
  readonly use: 'matrix' | 'experts' | 'as-stored' | 'vector';
}

/** The model on the decoder's thread. Caches are in the order of the layers. */
export interface GgmlModel {
  readonly libraries: LibraryFiles;
  readonly spec: DecoderSpec;
  readonly threads: number;
  readonly cacheType: CacheType;
  readonly windowGroups: readonly WindowGroup[];
  readonly layers: readonly LayerCacheSpec[];
  readonly tensors: readonly DeclaredTensor[];
}

/** Both are answered. */
export type GgmlMessage =
  /** Opens the library and allocates every tensor. */
  | { readonly kind: 'load'; readonly model: GgmlModel }
  /** The next bytes of a tensor, from `offset` on. */
  | { readonly kind: 'fill'; readonly key: string; readonly offset: number; readonly bytes: Uint8Array };

export type GgmlExpertLayer = Pick<ExpertsSpec, 'numExperts' | 'expertsPerToken' | 'activation'>;

/** The model on a thread of experts (experts.ts): tensors `<layer>.gate`, `.up`, `.down`, and their biases. */
export interface GgmlExperts extends Pick<GgmlModel, 'libraries' | 'threads' | 'tensors'> {
  readonly hiddenSize: number;
  /** Undefined for a layer without experts. */
  readonly layers: readonly (GgmlExpertLayer | undefined)[];
}

/** Bytes `[from, from + bytes)` of each block of a matrix. */
export interface ExpertField {
  readonly from: number;
  readonly bytes: number;
}

/** All are answered. A thread of experts also takes `fill` and `end`. */
export type ExpertMessage =
  | { readonly kind: 'load-experts'; readonly model: GgmlExperts }
  /** Answered with the outputs of each token's chosen experts. */
  | {
      readonly kind: 'compute-experts';
      readonly layer: number;
      /** `[tokens, hidden]` */
      readonly input: Float32Array;
      /** `[tokens, expertsPerToken]` */
      readonly chosen: Int32Array;
    }
  /** Answered with the fields of an expert's matrix, one after the other, in `saved`. */
  | {
      readonly kind: 'read-fields';
      readonly key: string;
      readonly expert: number;
      readonly fields: readonly ExpertField[];
    };
