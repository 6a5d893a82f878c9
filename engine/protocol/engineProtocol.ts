/**
 * The protocol between a client (such as the extension) and the engine process: JSON-RPC over the channel that the child
 * process inherits, without a socket. `rpc.ts` serves and calls the tables at the end.
 */
import * as z from 'zod';
import { limits } from '../limits.ts';
import {
  connectParams,
  hubOffer,
  loadParams,
  modelCard,
  modelChange,
  modelEntry,
  modelName,
  modelNames,
  offersParams,
  pullParams,
  remoteModel,
  remoteServerParams,
  schedulerStatistics,
  thinkingMode,
  unloadParams,
} from './models.ts';
import { done, type Notices, none, type Requests, type Streams } from './rpc.ts';

export const protocolVersion = 1;

/**
 * Node options of the engine's and the indexer's process. Under load, V8 doubles its young generation in every thread and never
 * shrinks it. That wastes 50 MB of the engine, whose long-lived objects are small and whose tensors are outside the heap, and
 * 110 MB of the indexer.
 */
export const childNodeOptions = ['--max-semi-space-size=8'];

/**
 * Environment of these processes. glibc keeps freed memory in an arena for each thread, and large blocks too once one
 * was freed. With one arena and a fixed mmap threshold, freed memory returns to the system. Other C libraries ignore
 * these variables.
 */
export const childMemoryVariables = {
  MALLOC_ARENA_MAX: '1',
  MALLOC_MMAP_THRESHOLD_: '131072',
  MALLOC_TRIM_THRESHOLD_: '131072',
} as const;

// ---- Shared shapes ----

export const sampling = z.object({
  /** Temperature 0 is greedy. Defaults are the model's published values. */
  temperature: z.number().min(0).max(5).optional(),
  topK: z.number().int().min(0).optional(),
  topP: z.number().min(0).max(1).optional(),
  minP: z.number().min(0).max(1).optional(),
  repetitionPenalty: z.number().min(0.01).max(10).optional(),
  presencePenalty: z.number().min(-2).max(2).optional(),
  seed: z.number().int().optional(),
  /** Logit bias by token id. */
  logitBias: z.record(z.string().regex(/^\d+$/), z.number().min(-100).max(100)).optional(),
});
export type Sampling = z.infer<typeof sampling>;

export const statistics = z.object({
  promptTokens: z.number(),
  /** Prompt tokens found in the prefix cache. */
  cachedTokens: z.number(),
  generatedTokens: z.number(),
  timeToFirstTokenMs: z.number(),
  /** Without the first token, which belongs to prefill. */
  tokensPerSecond: z.number(),
});
export type Statistics = z.infer<typeof statistics>;

/**
 * Why generation ended. `length`: token limit; `context`: the context window is full; `repetition`: the text repeats in a
 * cycle (only with `endRepetition`, and in summaries). A cancelled chat or generate request returns its partial text with
 * `cancelled`; a cancelled complete or summarise request fails with code `cancelled`.
 */
export const finishReason = z.enum(['stop', 'length', 'context', 'repetition', 'cancelled']);
export type FinishReason = z.infer<typeof finishReason>;

// ---- Embeddings ----

export const embedParams = z.object({
  /** Texts, or token ids of the model's vocabulary. */
  inputs: z.array(z.union([z.string(), z.array(z.number().int().min(0)).min(1)])).min(1),
  /** Truncates each vector to this length, for models trained with Matryoshka representations. */
  dimensions: z.number().int().min(1).optional(),
});
export type EmbedParams = z.input<typeof embedParams>;

export interface EmbedResult {
  /** Unit vectors, in the order of the inputs. */
  readonly vectors: readonly Float32Array[];
  readonly promptTokens: number;
}

// ---- Generation ----

/** Deadline in milliseconds from now. A later request fails with code `timeout`. */
const timeoutMs = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31)
  .optional();

export const completeParams = z.object({
  /** Text before and after the cursor. The engine truncates it to the context window. */
  prefix: z.string(),
  suffix: z.string(),
  path: z.string().optional(),
  /** Name of the repository, for models that were trained with it. */
  repository: z.string().optional(),
  languageId: z.string().optional(),
  /** Related code, placed before the file. The least frequently changing comes first, for the prefix cache. */
  snippets: z
    .array(z.object({ path: z.string(), text: z.string() }))
    .readonly()
    .default([]),
  maxTokens: z.number().int().min(1).default(64),
  /** Extent: the rest of the line; the statement or block at the cursor; or always a block. */
  multiline: z.enum(['never', 'auto', 'always']).default('auto'),
  /** Number of alternatives. Each additional one costs its own decode. */
  candidates: z.number().int().min(1).max(8).default(1),
  /** Required confidence; `eager` shows every completion. */
  confidence: z.enum(['eager', 'balanced', 'quiet']).default('eager'),
  /** Learned from the user: 1 halves the allowed distance from certainty, −1 doubles it. */
  strictness: z.number().min(-1).max(1).default(0),
  /** Streams the raw model output without trimming; `stream` identifies its deltas. */
  whole: z.boolean().default(false),
  stream: z.string().optional(),
  stop: z.array(z.string()).default([]),
  timeoutMs,
  sampling: sampling.default({}),
});
export type CompleteParams = z.input<typeof completeParams>;

export const completeResult = z.object({
  /** Text to insert at the cursor. Empty if there is nothing to insert or the confidence is too low. */
  text: z.string(),
  /** Less likely alternatives, most likely first. */
  alternatives: z.array(z.string()).default([]),
  /** Mean log-probability of the first tokens. Absent if not computed. */
  logProbability: z.number().optional(),
  finish: finishReason,
  statistics,
});
export type CompleteResult = z.infer<typeof completeResult>;

/** The next edit that the user is likely to make, given the last ones. See tasks/nextEdit.ts. */
export const nextEditParams = z.object({
  path: z.string(),
  /** In order; the last edit comes last. Lines count from 0. */
  edits: z
    .array(
      z.object({
        path: z.string(),
        line: z.number().int().min(0),
        above: z.string(),
        before: z.string(),
        after: z.string(),
      }),
    )
    .min(1)
    .max(limits.nextEdit.edits),
  /** The lines around the cursor, now and before the last edit. `cursor`: characters of `text` before the cursor. */
  window: z.object({
    firstLine: z.number().int().min(0),
    text: z.string(),
    before: z.string(),
    cursor: z.number().int().min(0),
  }),
  /** Lines that may need the same change, the likeliest first. */
  places: z
    .array(z.object({ line: z.number().int().min(0), above: z.string(), text: z.string() }))
    .max(limits.nextEdit.places),
});
export type NextEditParams = z.input<typeof nextEditParams>;

export const nextEditResult = z.object({
  /**
   * Replaces `lines` lines from `line` on by `text`: one or several lines; empty: deletes them. `logProbability` is
   * that of the least likely token. Absent: no edit is likely enough.
   */
  edit: z.object({ line: z.number(), lines: z.number(), text: z.string(), logProbability: z.number() }).optional(),
  finish: finishReason,
});
export type NextEditResult = z.infer<typeof nextEditResult>;

export const toolCall = z.object({
  /** Unique in the conversation; the tool's result refers to it. */
  id: z.string(),
  name: z.string(),
  /** Arguments as JSON text, exactly as the model wrote them. */
  arguments: z.string(),
});
export type ToolCall = z.infer<typeof toolCall>;

export const chatMessage = z.discriminatedUnion('role', [
  z.object({ role: z.literal('system'), content: z.string() }),
  z.object({ role: z.literal('user'), content: z.string() }),
  z.object({
    role: z.literal('assistant'),
    content: z.string(),
    /** Earlier thinking. Prompt formats that omit it ignore this field. */
    thinking: z.string().optional(),
    toolCalls: z.array(toolCall).optional(),
  }),
  z.object({ role: z.literal('tool'), toolCallId: z.string(), content: z.string() }),
]);
export type ChatMessage = z.infer<typeof chatMessage>;

/** Prompts to warm up while the engine is idle. The client cancels them at the next key. */
export const warmParams = z.discriminatedUnion('kind', [
  completeParams.extend({ kind: z.literal('completion') }),
  z.object({
    kind: z.literal('chat'),
    messages: z.array(chatMessage).min(1),
    thinking: thinkingMode.default('off'),
    timeoutMs,
  }),
]);
export type WarmParams = z.input<typeof warmParams>;

/** A cancelled warm-up keeps the chunks computed so far. */
export const warmResult = z.object({ promptTokens: z.number(), cachedTokens: z.number(), finish: finishReason });
export type WarmResult = z.infer<typeof warmResult>;

export const tool = z.object({
  name: z.string().regex(/^[\w.-]{1,64}$/),
  description: z.string().default(''),
  /** JSON Schema of the arguments, which must describe an object. */
  parameters: z.record(z.string(), z.unknown()).default({ type: 'object', properties: {} }),
});
export type Tool = z.infer<typeof tool>;

/** `none` keeps the tools in the prompt but forbids calls; `required` and a name force a call. */
export const toolChoice = z.union([z.enum(['auto', 'none', 'required']), z.object({ name: z.string() })]);
export type ToolChoice = z.infer<typeof toolChoice>;

/** Excludes carriage returns, because grammars use them to mark special tokens. */
const answerChoice = z
  .string()
  .min(1)
  .regex(/^[^\r]*$/, 'must not contain a carriage return');

/** Constrains the answer, not the thinking. */
export const responseFormat = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('text') }),
  z.object({ kind: z.literal('json') }),
  z.object({ kind: z.literal('json-schema'), schema: z.record(z.string(), z.unknown()) }),
  z.object({ kind: z.literal('choice'), choices: z.array(answerChoice).min(1).max(limits.server.choicesOfAnswer) }),
]);
export type ResponseFormat = z.infer<typeof responseFormat>;

/** End conditions in addition to stop strings and the token limit. */
const endFields = {
  /** Token ids that end the answer. */
  stopIds: z.array(z.number().int().min(0)).default([]),
  /** Minimum number of tokens before the model may end the answer. */
  minTokens: z.number().int().min(0).default(0),
};

const candidateLogprob = z.object({ token: z.string(), bytes: z.array(z.number()).readonly(), logprob: z.number() });
/** Log-probability of an answer token, and the most probable alternatives. */
export const tokenLogprob = candidateLogprob.extend({ top: z.array(candidateLogprob).readonly() });
export type TokenLogprob = z.infer<typeof tokenLogprob>;
/** Number of alternatives with log-probabilities in text deltas. Absent: no log-probabilities. */
const logprobs = z.number().int().min(0).max(limits.server.logprobs).optional();

export const chatParams = z.object({
  /** Id chosen by the client; this request's deltas carry it. */
  stream: z.string(),
  messages: z.array(chatMessage).min(1),
  thinking: thinkingMode.default('off'),
  /** Ends thinking gracefully after this many tokens. Default: no limit. */
  thinkingTokens: z.number().int().min(0).optional(),
  tools: z.array(tool).default([]),
  toolChoice: toolChoice.default('auto'),
  /** False: the first call ends the turn. A call that `toolChoice` requires always does. */
  parallelToolCalls: z.boolean().default(true),
  responseFormat: responseFormat.default({ kind: 'text' }),
  maxTokens: z.number().int().min(1).optional(),
  stop: z.array(z.string()).default([]),
  /** Ends an answer that repeats itself in a cycle, with `repetition`. */
  endRepetition: z.boolean().default(false),
  ...endFields,
  logprobs,
  timeoutMs,
  sampling: sampling.default({}),
});
export type ChatParams = z.input<typeof chatParams>;

export const chatResult = z.object({
  text: z.string(),
  thinking: z.string(),
  toolCalls: z.array(toolCall),
  /** `tool-calls`: the client must send the results of `toolCalls`. */
  finish: z.enum([...finishReason.options, 'tool-calls']),
  statistics,
  /** Number of oldest messages dropped to fit the context window. */
  droppedMessages: z.number(),
});
export type ChatResult = z.infer<typeof chatResult>;

export const generateParams = z.object({
  stream: z.string(),
  /** Text, or token ids of the model's vocabulary, which need `raw`. */
  prompt: z.union([z.string(), z.array(z.number().int().min(0))]),
  /** Skips the chat template. */
  raw: z.boolean().default(false),
  maxTokens: z.number().int().min(1).default(256),
  stop: z.array(z.string()).default([]),
  ...endFields,
  responseFormat: responseFormat.default({ kind: 'text' }),
  logprobs,
  timeoutMs,
  sampling: sampling.default({}),
});
export type GenerateParams = z.input<typeof generateParams>;

export const summariseParams = z.object({
  stream: z.string(),
  path: z.string(),
  text: z.string(),
  languageId: z.string().optional(),
  /** Top-level symbols, used to split long files. Lines start at 0, end inclusive. */
  symbols: z.array(z.object({ name: z.string(), startLine: z.number(), endLine: z.number() })).default([]),
  maxTokens: z.number().int().min(1).default(512),
  /** If not empty, `path` is a folder with these files, and `text` is ignored. */
  files: z
    .array(z.object({ path: z.string(), text: z.string(), languageId: z.string().optional() }))
    .max(limits.generation.summaryFiles)
    .default([]),
  /** Ignores cached summaries. */
  fresh: z.boolean().default(false),
  timeoutMs,
});
export type SummariseParams = z.input<typeof summariseParams>;

export const summariseResult = z.object({
  text: z.string(),
  finish: finishReason,
  /** Number of parts that the file was split into. */
  parts: z.number(),
  statistics,
});
export type SummariseResult = z.infer<typeof summariseResult>;

/** A delta of a streaming answer. For a tool call, `text` is part of its arguments, and the first delta may be empty. */
export const delta = z.discriminatedUnion('kind', [
  z.object({
    stream: z.string(),
    kind: z.enum(['text', 'thinking']),
    text: z.string(),
    /** Tokens generated so far, including hidden ones. Absent if not counted. */
    tokens: z.number().int().min(0).optional(),
    /** Log-probabilities of the tokens of `text`, if requested. */
    logprobs: z.array(tokenLogprob).readonly().optional(),
  }),
  z.object({
    stream: z.string(),
    kind: z.literal('tool-call'),
    /** Index of the tool call in this answer. */
    index: z.number().int().min(0),
    id: z.string(),
    name: z.string(),
    text: z.string(),
  }),
]);
export type Delta = z.infer<typeof delta>;
export type DeltaStreams = Streams<(delta: Delta) => void>;

export const progress = z.object({
  task: z.enum(['load', 'download', 'verify', 'summarise']),
  /** Model id, or the stream id of the request. */
  subject: z.string(),
  message: z.string(),
  done: z.number(),
  total: z.number(),
  unit: z.enum(['bytes', 'parts']),
});
export type Progress = z.infer<typeof progress>;

export const engineStatus = z.object({
  protocolVersion: z.number(),
  state: z.enum(['empty', 'loading', 'ready', 'busy']),
  model: modelCard.optional(),
  /** Absent if the chat model completes. */
  completionModel: modelCard.optional(),
  queuedRequests: z.number(),
  residentBytes: z.number(),
  cacheBytes: z.number(),
  /** Statistics of the last generation. */
  last: statistics.optional(),
  /** Counters since the model was loaded, by request class. */
  requests: schedulerStatistics.optional(),
});
export type EngineStatus = z.infer<typeof engineStatus>;

export const clearedCache = z.object({ files: z.number(), bytes: z.number() });
export type ClearedCache = z.infer<typeof clearedCache>;

export const streamName = z.object({ stream: z.string() });

export const countTokensParams = z.object({ texts: z.array(z.string()) });
export type CountTokensParams = z.input<typeof countTokensParams>;

/** The OpenAI-compatible server for other local programs. */
export const startServerParams = z.object({
  /** 0 chooses a free port. */
  port: z.number().int().min(0).max(65_535),
  token: z.string(),
});
export type StartServerParams = z.infer<typeof startServerParams>;

export const serverAddress = z.object({
  /** Base URL, including `/v1`. */
  address: z.string(),
});
export type ServerAddress = z.infer<typeof serverAddress>;

// ---- Protocol tables ----

/** Requests from the client to the engine. */
export const engineRequests = {
  load: { params: loadParams, result: modelCard },
  connect: { params: connectParams, result: modelCard },
  remoteModels: { params: remoteServerParams, result: z.array(remoteModel) },
  startServer: { params: startServerParams, result: serverAddress },
  stopServer: { params: none, result: done },
  unload: { params: unloadParams, result: done },
  status: { params: none, result: engineStatus },
  complete: { params: completeParams, result: completeResult },
  nextEdit: { params: nextEditParams, result: nextEditResult },
  warm: { params: warmParams, result: warmResult },
  chat: { params: chatParams, result: chatResult },
  generate: { params: generateParams, result: chatResult },
  summarise: { params: summariseParams, result: summariseResult },
  /** Counts the tokens of each text. Special tokens count as plain text. */
  countTokens: { params: countTokensParams, result: z.array(z.number()) },
  listModels: { params: none, result: z.array(modelEntry) },
  hubOffers: { params: offersParams, result: z.array(hubOffer) },
  pullModel: { params: pullParams, result: modelEntry },
  verifyModel: { params: modelName, result: modelEntry },
  removeModel: { params: modelName, result: modelEntry },
  /** Formatted text for the user. */
  inspectModels: { params: modelNames, result: z.string() },
  /** Clears the prefix cache in memory and on disk. Running requests continue. */
  clearCache: { params: none, result: clearedCache },
} satisfies Requests;
export type EngineRequests = typeof engineRequests;

/** Notifications from the client to the engine. */
export const engineNotices = {
  /** Ends the thinking of a running chat, so that the answer starts. No effect if it is not thinking. */
  answerNow: streamName,
} satisfies Notices;

/** Notifications from the engine to the client. */
export const clientNotices = {
  delta,
  progress,
  modelChange,
  /** A window downloaded or removed a model, or tried to. */
  modelsChanged: none,
  /** A line of the engine's log, if several windows share the engine. */
  log: z.object({ line: z.string() }),
} satisfies Notices;
