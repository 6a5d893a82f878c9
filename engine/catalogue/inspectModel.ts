/** Describes a model given by catalogue id (downloaded or not), file, folder or config.json. */
import { basename, dirname, join } from 'node:path';
import { HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import { openModel, readConfig, specFromConfig } from '../model/open.ts';
import { cacheBytes, describeModel, type Inspection, inspectSpec, type WeightGroup } from '../model/spec/describe.ts';
import { cacheBytesPerValue, type DecoderSpec } from '../model/spec/spec.ts';
import { plannedGroups, type Storage, storageOfConfig, storages } from '../model/weights/specTensors.ts';
import { compileChatTemplate } from '../prompt/formats/chatTemplate.ts';
import { promptFormatOf } from '../prompt/formats/promptFormat.ts';
import { type ThinkingMode, thinkingModes } from '../prompt/thinking.ts';
import type { CachePrecision } from '../protocol/models.ts';
import { readOptionalText } from '../tokenizer/huggingFaceTokenizer.ts';
import { type CatalogueEntry, findEntry } from './catalogue.ts';
import { type Hardware, longestContext, memoryForModelBytes } from './fit.ts';
import type { Store } from './store.ts';

export interface InspectedModel extends Inspection {
  /** The argument as the user gave it. */
  readonly model: string;
  readonly name: string;
  readonly state: 'present' | 'absent';
  /** Source of weight types and sizes: the file, the publisher's config, or an assumption. */
  readonly weightsKnownFrom: 'file' | 'publication' | 'assumption';
  /** The publisher's name for the quantisation. */
  readonly quantisation?: string;
  /** Absent if not stated. */
  readonly licence?: string;
  /** Set for catalogue models, downloaded or not. */
  readonly download?: { readonly bytes: number; readonly estimated: boolean };
  /** Absent if there is no chat template. */
  readonly thinkingModes?: readonly ThinkingMode[];
  readonly thisMachine: {
    /** Available for weights and KV cache. */
    readonly memoryBytes: number;
    /** Longest context that fits; 0 if the weights don't fit. */
    readonly contextTokens: number;
  };
}

interface InspectOptions {
  /** Context lengths to compute memory for. */
  readonly contexts: readonly number[];
  /** KV-cache precision; default f16. */
  readonly cachePrecision?: CachePrecision;
  readonly hardware: Hardware;
}

/** Facts that don't follow from the spec. */
interface Known extends Pick<InspectedModel, 'name' | 'state' | 'weightsKnownFrom' | 'quantisation' | 'thinkingModes'> {
  readonly spec: DecoderSpec;
  readonly groups: readonly WeightGroup[];
  readonly licence?: string;
}

/** @throws HearthError `not-found`, `invalid-input` or `unsupported`, naming the model, key or tensor. */
export async function inspectModel(store: Store, model: string, options: InspectOptions): Promise<InspectedModel> {
  const entry = findEntry(model);
  const { spec, groups, ...known } = entry ? await ofEntry(store, entry) : await ofPath(await store.resolve(model));
  const { contexts, cachePrecision = 'f16' } = options;
  const inspection = inspectSpec(spec, groups, contexts, cachePrecision);
  const computed = { family: spec.family, quantisation: known.quantisation ?? mainType(groups) };
  const memoryBytes = memoryForModelBytes(computed, options.hardware);
  const { longestContextTokens, weights } = inspection;
  const perValue = cacheBytesPerValue(spec, cachePrecision);
  const needs = {
    weightBytes: weights.bytes,
    cacheBytes: (tokens: number) => cacheBytes(spec, tokens, perValue),
    longestTokens: longestContextTokens,
  };
  const contextTokens = longestContext(needs, computed, options.hardware);
  return {
    model,
    ...known,
    ...(entry && { licence: entry.licence.name }),
    ...(entry && { download: { bytes: entry.downloadBytes, estimated: entry.downloadEstimated } }),
    ...inspection,
    // The catalogue's count excludes a tied head that the file stores separately.
    ...(entry && { parameters: entry.parameters }),
    thisMachine: { memoryBytes, contextTokens },
  };
}

/** What most of the layers' weights are stored in. */
function mainType(groups: readonly WeightGroup[]): string {
  const layers = groups.filter(({ role }) => role !== 'embedding' && role !== 'head');
  return layers.toSorted((a, b) => b.bytes - a.bytes)[0]?.type ?? '';
}

async function ofEntry(store: Store, entry: CatalogueEntry): Promise<Known> {
  const { name, quantisation } = entry;
  const { path } = await store.get(entry.id);
  if (path !== undefined) return { ...(await ofFile(path)), name, quantisation };
  const architecture = knownArchitecture(entry);
  const spec = specOfArchitecture(architecture);
  return {
    name,
    state: 'absent',
    spec,
    groups: plannedGroups(spec, knownStorage(entry)),
    weightsKnownFrom: 'publication',
    quantisation,
    thinkingModes: architecture.thinkingModes,
  };
}

function knownArchitecture({ id }: CatalogueEntry): Architecture {
  const architecture = architectures[id];
  // A test checks that every entry has an architecture.
  if (!architecture) throw new Error(`no architecture for ${id}`);
  return architecture;
}

export function knownStorage({ id, quantisation }: CatalogueEntry): Storage {
  const storage = storages.find((known) => known === quantisation);
  if (!storage) throw new Error(`no storage ${quantisation} for ${id}`);
  return storage;
}

async function ofPath(path: string): Promise<Known> {
  return path.endsWith('.json') ? ofConfig(path) : ofFile(path);
}

async function ofFile(path: string): Promise<Known> {
  const model = await openModel(path);
  try {
    const { spec, tokenizer, licence } = model;
    return {
      name: basename(path),
      state: 'present',
      spec,
      groups: describeModel(model).groups,
      weightsKnownFrom: 'file',
      ...(licence !== undefined && { licence }),
      ...(tokenizer?.chatTemplate !== undefined && { thinkingModes: promptFormatOf(tokenizer).thinkingModes }),
    };
  } finally {
    await model.file.close();
  }
}

async function ofConfig(path: string): Promise<Known> {
  const config = await readConfig(path);
  const spec = specFromConfig(config);
  const { storage, fp8Block, assumed } = storageOfConfig(config);
  const modes = await thinkingModesBeside(path);
  return {
    // The file is always named config.json, so the folder names the model.
    name: basename(dirname(path)) || path,
    state: 'absent',
    spec,
    groups: plannedGroups(spec, storage, fp8Block),
    weightsKnownFrom: assumed ? 'assumption' : 'publication',
    quantisation: storage,
    ...(modes && { thinkingModes: modes }),
  };
}

async function thinkingModesBeside(path: string): Promise<ThinkingMode[] | undefined> {
  const source = await readOptionalText(join(dirname(path), 'chat_template.jinja'), limits.text.tokenizerConfigBytes);
  if (source === undefined) return undefined;
  try {
    return thinkingModes(compileChatTemplate(source), { templateTokens: { begin: '', end: '' } });
  } catch (error) {
    // An invalid template must not prevent inspecting the rest of the model.
    if (error instanceof HearthError) return undefined;
    throw error;
  }
}

// Facts about the catalogue's models that are needed before a download: the architecture fields of the published
// config.json, and the thinking modes of the published chat template.

interface Architecture {
  /** Fields of the publisher's config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The GGUF stores a separate output head, although config.json ties it to the embedding. */
  readonly headStored?: true;
  readonly thinkingModes: readonly ThinkingMode[];
}

const noThinking: readonly ThinkingMode[] = ['off'];
const switchedThinking: readonly ThinkingMode[] = ['off', 'on'];
const thinkingEffort: readonly ThinkingMode[] = ['low', 'medium', 'high'];

interface Sizes {
  readonly hidden: number;
  readonly intermediate: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly tied: boolean;
}

const decoder = ({ hidden, intermediate, layers, heads, keyValueHeads, tied }: Sizes) => ({
  hidden_act: 'silu',
  hidden_size: hidden,
  intermediate_size: intermediate,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: keyValueHeads,
  tie_word_embeddings: tied,
});

const smolLm2: Architecture = {
  config: {
    ...decoder({ hidden: 576, intermediate: 1536, layers: 30, heads: 9, keyValueHeads: 3, tied: true }),
    model_type: 'llama',
    vocab_size: 49_152,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000,
  },
  thinkingModes: noThinking,
};

const qwen25Coder = (sizes: Sizes, vocabulary = 151_936): Architecture => ({
  config: {
    ...decoder(sizes),
    model_type: 'qwen2',
    vocab_size: vocabulary,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
  },
  ...(sizes.tied && { headStored: true }),
  thinkingModes: noThinking,
});

/** ggml-org's conversions leave the tied head out. */
const headTied = ({ config, thinkingModes }: Architecture): Architecture => ({ config, thinkingModes });

const qwen3 = (sizes: Sizes): Architecture => ({
  config: {
    ...decoder(sizes),
    model_type: 'qwen3',
    head_dim: 128,
    vocab_size: 151_936,
    max_position_embeddings: 40_960,
    rms_norm_eps: 1e-6,
    rope_theta: 1_000_000,
  },
  thinkingModes: switchedThinking,
});

/** Qwen3-0.6B-Base with a smaller vocabulary and tied embeddings. */
const qwen3Embedding: Architecture = {
  config: {
    ...qwen3({ hidden: 1024, intermediate: 3072, layers: 28, heads: 16, keyValueHeads: 8, tied: true }).config,
    vocab_size: 151_669,
    max_position_embeddings: 32_768,
  },
  thinkingModes: noThinking,
};

const qwen3Experts = (
  context: { readonly max_position_embeddings: number; readonly rope_theta: number },
  thinkingModes: Architecture['thinkingModes'],
): Architecture => ({
  config: {
    ...decoder({ hidden: 2048, intermediate: 6144, layers: 48, heads: 32, keyValueHeads: 4, tied: false }),
    model_type: 'qwen3_moe',
    head_dim: 128,
    vocab_size: 151_936,
    rms_norm_eps: 1e-6,
    ...context,
    num_experts: 128,
    num_experts_per_tok: 8,
    moe_intermediate_size: 768,
    norm_topk_prob: true,
  },
  thinkingModes,
});

const gptOss = (layers: number, experts: number): Architecture => ({
  config: {
    ...decoder({ hidden: 2880, intermediate: 2880, layers, heads: 64, keyValueHeads: 8, tied: false }),
    model_type: 'gpt_oss',
    head_dim: 64,
    vocab_size: 201_088,
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-5,
    rope_theta: 150_000,
    rope_scaling: {
      rope_type: 'yarn',
      factor: 32,
      original_max_position_embeddings: 4096,
      beta_fast: 32,
      beta_slow: 1,
      truncate: false,
    },
    sliding_window: 128,
    num_local_experts: experts,
    num_experts_per_tok: 4,
    swiglu_limit: 7,
  },
  thinkingModes: thinkingEffort,
});

const deepSeek: Architecture = {
  config: {
    ...decoder({ hidden: 7168, intermediate: 18_432, layers: 61, heads: 128, keyValueHeads: 128, tied: false }),
    model_type: 'deepseek_v3',
    vocab_size: 129_280,
    max_position_embeddings: 163_840,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    rope_scaling: {
      rope_type: 'yarn',
      factor: 40,
      original_max_position_embeddings: 4096,
      beta_fast: 32,
      beta_slow: 1,
      mscale: 1,
      mscale_all_dim: 1,
    },
    q_lora_rank: 1536,
    kv_lora_rank: 512,
    qk_nope_head_dim: 128,
    qk_rope_head_dim: 64,
    v_head_dim: 128,
    first_k_dense_replace: 3,
    moe_intermediate_size: 2048,
    n_routed_experts: 256,
    n_shared_experts: 1,
    num_experts_per_tok: 8,
    n_group: 8,
    topk_group: 4,
    norm_topk_prob: true,
    routed_scaling_factor: 2.5,
  },
  thinkingModes: switchedThinking,
};

/** Keyed by catalogue id. */
export const architectures: Readonly<Record<string, Architecture>> = {
  'smollm2-135m-instruct': smolLm2,
  'qwen2.5-coder-0.5b-instruct': qwen25Coder({
    hidden: 896,
    intermediate: 4864,
    layers: 24,
    heads: 14,
    keyValueHeads: 2,
    tied: true,
  }),
  'qwen2.5-coder-1.5b-instruct': qwen25Coder({
    hidden: 1536,
    intermediate: 8960,
    layers: 28,
    heads: 12,
    keyValueHeads: 2,
    tied: true,
  }),
  'qwen2.5-coder-3b-instruct': qwen25Coder({
    hidden: 2048,
    intermediate: 11_008,
    layers: 36,
    heads: 16,
    keyValueHeads: 2,
    tied: true,
  }),
  'qwen2.5-coder-7b-instruct': qwen25Coder(
    { hidden: 3584, intermediate: 18_944, layers: 28, heads: 28, keyValueHeads: 4, tied: false },
    152_064,
  ),
  'qwen2.5-coder-14b-instruct': qwen25Coder(
    { hidden: 5120, intermediate: 13_824, layers: 48, heads: 40, keyValueHeads: 8, tied: false },
    152_064,
  ),
  'qwen2.5-coder-32b-instruct': qwen25Coder(
    { hidden: 5120, intermediate: 27_648, layers: 64, heads: 40, keyValueHeads: 8, tied: false },
    152_064,
  ),
  'qwen2.5-coder-1.5b': headTied(
    qwen25Coder({ hidden: 1536, intermediate: 8960, layers: 28, heads: 12, keyValueHeads: 2, tied: true }),
  ),
  'qwen2.5-coder-3b': headTied(
    qwen25Coder({ hidden: 2048, intermediate: 11_008, layers: 36, heads: 16, keyValueHeads: 2, tied: true }),
  ),
  'qwen2.5-coder-7b': qwen25Coder(
    { hidden: 3584, intermediate: 18_944, layers: 28, heads: 28, keyValueHeads: 4, tied: false },
    152_064,
  ),
  'qwen3-0.6b': qwen3({ hidden: 1024, intermediate: 3072, layers: 28, heads: 16, keyValueHeads: 8, tied: true }),
  'qwen3-1.7b': qwen3({ hidden: 2048, intermediate: 6144, layers: 28, heads: 16, keyValueHeads: 8, tied: true }),
  'qwen3-4b': qwen3({ hidden: 2560, intermediate: 9728, layers: 36, heads: 32, keyValueHeads: 8, tied: true }),
  'qwen3-8b': qwen3({ hidden: 4096, intermediate: 12_288, layers: 36, heads: 32, keyValueHeads: 8, tied: false }),
  'qwen3-14b': qwen3({ hidden: 5120, intermediate: 17_408, layers: 40, heads: 40, keyValueHeads: 8, tied: false }),
  'qwen3-32b': qwen3({ hidden: 5120, intermediate: 25_600, layers: 64, heads: 64, keyValueHeads: 8, tied: false }),
  'qwen3-4b-instruct-2507': {
    config: {
      ...qwen3({ hidden: 2560, intermediate: 9728, layers: 36, heads: 32, keyValueHeads: 8, tied: true }).config,
      max_position_embeddings: 262_144,
      rope_theta: 5e6,
    },
    thinkingModes: noThinking,
  },
  'qwen3-30b-a3b': qwen3Experts({ max_position_embeddings: 40_960, rope_theta: 1e6 }, switchedThinking),
  'qwen3-30b-a3b-instruct-2507': qwen3Experts({ max_position_embeddings: 262_144, rope_theta: 1e7 }, noThinking),
  'qwen3-coder-30b-a3b': qwen3Experts({ max_position_embeddings: 262_144, rope_theta: 1e7 }, noThinking),
  'gpt-oss-20b': gptOss(24, 32),
  'gpt-oss-20b-gguf': gptOss(24, 32),
  'gpt-oss-120b': gptOss(36, 128),
  'deepseek-v3.1': deepSeek,
  'qwen3-embedding-0.6b': qwen3Embedding,
};

/** Builds the spec that the downloaded files will have. */
export function specOfArchitecture({ config, headStored }: Architecture): DecoderSpec {
  const spec = specFromConfig(config);
  return headStored ? { ...spec, tiedEmbeddings: false } : spec;
}
