/** Models as clients see them: which are on this machine, how to load one, and the counters of the loaded ones. */
import * as z from 'zod';
import { limits } from '../limits.ts';

/**
 * KV-cache precision. `q8`: up to 32 values of a row form a block with one f32 scale (largest magnitude / 127) and are
 * stored as int8 multiples of it (ggml's Q8_0 with a wider scale).
 */
export const cachePrecisions = ['f32', 'f16', 'q8'] as const;
export type CachePrecision = (typeof cachePrecisions)[number];

export const backendChoice = z.enum(['auto', 'webgpu', 'split', 'cpu', 'ggml', 'onnx', 'reference']);
export const thinkingMode = z.enum(['off', 'on', 'low', 'medium', 'high']);
export type ThinkingMode = z.infer<typeof thinkingMode>;

export const modelCard = z.object({
  /** Catalogue id, or the path of the model. */
  id: z.string(),
  name: z.string(),
  family: z.string(),
  backend: z.string(),
  /** Address of the remote server that answers. Absent if the engine answers itself. */
  host: z.string().optional(),
  contextTokens: z.number(),
  parameters: z.number(),
  weightBytes: z.number(),
  /** Supported thinking modes. `['off']`: the model cannot think. */
  thinkingModes: z.array(thinkingMode),
  fillInTheMiddle: z.boolean(),
  /** Trained to predict the next edit. */
  foreseesEdits: z.boolean().optional(),
  chat: z.boolean(),
  /** The prompt format supports tools. */
  toolCalling: z.boolean(),
  /** Vector length. Set only for embedding models, which cannot chat or complete. */
  embeddingDimensions: z.number().optional(),
  /** Notes for the user: precision, backend fallbacks. */
  notes: z.array(z.string()),
});
export type ModelCard = z.infer<typeof modelCard>;

/** The loaded model changed: after device loss it was set up again or moved to the CPU. */
export const modelChange = z.object({ message: z.string(), card: modelCard });
export type ModelChange = z.infer<typeof modelChange>;

/** Role of a loaded model. The chat model also completes if no model has that role. */
export const modelRoles = ['chat', 'completion'] as const;
export type ModelRole = (typeof modelRoles)[number];

export const loadParams = z.object({
  role: z.enum(modelRoles).default('chat'),
  /** Catalogue id, or an absolute path to a GGUF file or a safetensors directory. */
  model: z.string(),
  backend: backendChoice.default('auto'),
  contextTokens: z.number().int().min(16).optional(),
  threads: z.number().int().min(1).max(1024).optional(),
  /** KV-cache precision; default f16. */
  cachePrecision: z.enum(cachePrecisions).optional(),
  /** Disk space for KV-cache snapshots of all models; 0 disables them. */
  diskCacheBytes: z.number().int().min(0).default(limits.cache.snapshotBytes),
});
export type LoadParams = z.input<typeof loadParams>;

/** Absent role: all models. */
export const unloadParams = z.object({ role: z.enum(modelRoles).optional() });

/** An OpenAI-compatible server chosen by the user. */
export const remoteServerParams = z.object({
  /** Base URL, including `/v1`. */
  url: z.string().max(2048),
  token: z.string().max(8192).optional(),
});
export type RemoteServerParams = z.infer<typeof remoteServerParams>;

/** Forwards a role's requests to this server until the role's next load. */
export const connectParams = remoteServerParams.extend({
  role: z.enum(modelRoles).default('chat'),
  /** Model name; default: the server's only model. */
  model: z.string().optional(),
  /** Context limit; also assumed if the server does not report its own. */
  contextTokens: z.number().int().min(16).optional(),
});
export type ConnectParams = z.input<typeof connectParams>;

export const remoteModel = z.object({
  id: z.string(),
  /** Absent if unknown. */
  contextTokens: z.number().optional(),
});
export type RemoteModel = z.infer<typeof remoteModel>;

/** Whether this machine can run a model, with the reason for the user. */
const modelFit = z.object({ verdict: z.enum(['good', 'slow', 'no']), reason: z.string() });

export const modelEntry = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string(),
  licence: z.string(),
  family: z.string(),
  /** An embedding model: for search only, not for chat or completion. */
  embedding: z.boolean(),
  /** Trained to fill in the middle. */
  fillInTheMiddle: z.boolean(),
  /** Context that the model was trained for. The model card of the loaded model has the actual context. */
  contextTokens: z.number(),
  parameters: z.number(),
  downloadBytes: z.number(),
  /** State on disk. */
  state: z.enum(['absent', 'partial', 'present']),
  path: z.string().optional(),
  /** The program whose folder has the files; absent for Hearth's own. Hearth neither changes nor removes them. */
  owner: z.string().optional(),
  fit: modelFit,
  /** The roles that this model has in the pair that suits this machine best. */
  recommendedFor: z.array(z.enum(['chat', 'completion'])),
  /** If the user names no model, the highest is chosen. Absent: chosen only by name. */
  suitability: z.object({ chat: z.number().optional(), completion: z.number().optional() }),
});
export type ModelEntry = z.infer<typeof modelEntry>;

/** The models that may be chosen for the role without being named, the most suitable first. */
export function bySuitability(entries: readonly ModelEntry[], role: keyof ModelEntry['suitability']): ModelEntry[] {
  const able = entries.filter(({ suitability }) => suitability[role] !== undefined);
  return able.sort((a, b) => (b.suitability[role] ?? 0) - (a.suitability[role] ?? 0));
}

/** One model of a repository on the hub. */
export const hubOffer = z.object({
  /** For `pullModel`: `owner/repository:Q4_K_M`. */
  id: z.string(),
  label: z.string(),
  bytes: z.number(),
  files: z.number(),
  /** Absent if the repository doesn't state it. */
  licence: z.string().optional(),
  /** Estimated from the size. */
  fit: modelFit,
});
export type HubOffer = z.infer<typeof hubOffer>;

/** A catalogue id, or `owner/repository[:QUANT]` on the hub. `token`: the hub's access token; default `HF_TOKEN`. */
export const pullParams = z.object({ model: z.string(), token: z.string().optional() });
export const offersParams = z.object({ repository: z.string(), token: z.string().optional() });

export const modelName = z.object({ model: z.string() });
/** One model is described; several are compared. */
export const modelNames = z.object({ models: z.array(z.string()).min(1) });

// The scheduler's counters by request class.

const classStatistics = z.object({
  submitted: z.number(),
  finished: z.number(),
  cancelled: z.number(),
  /** Includes timeouts. */
  failed: z.number(),
  /** Rejected because the queue was full. Not counted as submitted. */
  refused: z.number(),
  cachedTokens: z.number(),
  /** Tokens computed: prompt tokens, and sampled tokens fed back. */
  computedTokens: z.number(),
  generatedTokens: z.number(),
  /**
   * Answer tokens sampled on the device or the CPU's compute thread, including running requests. The engine's thread
   * samples the others from logits.
   */
  deviceTokens: z.number(),
  /** Draft tokens that were verified. */
  draftTokens: z.number(),
  /** Draft tokens that were accepted. */
  acceptedTokens: z.number(),
  /** Total time from submission to admission. */
  waitedMs: z.number(),
  longestWaitMs: z.number(),
  /** Forward passes for decode, not prefill. A request of a higher class waits for at most one of them. */
  answerSteps: z.number(),
  /** Durations of the last 100 of them. */
  recentStepMs: z.array(z.number()),
});
export type ClassStatistics = z.infer<typeof classStatistics>;

export const schedulerStatistics = z.object({
  steps: z.number(),
  /** Sum over all steps; divided by `steps`, the mean batch size. */
  slices: z.number(),
  busyMs: z.number(),
  /** Requests that were pre-empted to free memory for higher classes. */
  suspensions: z.number(),
  classes: z.object({
    keystroke: classStatistics,
    chat: classStatistics,
    summary: classStatistics,
    'warm-up': classStatistics,
  }),
});
export type SchedulerStatistics = z.infer<typeof schedulerStatistics>;
