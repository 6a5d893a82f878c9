/**
 * Everything that is said between the extension (or any other client) and the engine process: JSON-RPC over the
 * channel the child inherits, no socket. The tables at the end are served and called by `rpc.ts`.
 */
import * as z from 'zod';
import { limits } from '../limits.ts';
import { done, type Notices, none, type Requests } from './rpc.ts';
import { schedulerStatistics } from './statistics.ts';

export const protocolVersion = 1;

/**
 * Options of the engine's Node. V8 doubles its young generation under load and never gives it back, in both threads: 50 MB for
 * nothing, since what lives long is small and tensors lie outside.
 */
export const engineNodeOptions = ['--max-semi-space-size=8'];

// ---- Shared shapes ----

/**
 * How keys and values are stored. `q8`: blocks of up to 32 values of one row share an f32 scale (largest magnitude / 127) and are stored as
 * int8 multiples of it (ggml's Q8_0 with a wider scale).
 */
export const cachePrecisions = ['f32', 'f16', 'q8'] as const;
export type CachePrecision = (typeof cachePrecisions)[number];

export const backendChoice = z.enum(['auto', 'webgpu', 'onnx', 'reference']);
export const thinkingMode = z.enum(['off', 'on', 'low', 'medium', 'high']);
export type ThinkingMode = z.infer<typeof thinkingMode>;

export const sampling = z.object({
  /** 0 is greedy. Absent values are the model's published defaults. */
  temperature: z.number().min(0).max(5).optional(),
  topK: z.number().int().min(0).optional(),
  topP: z.number().min(0).max(1).optional(),
  minP: z.number().min(0).max(1).optional(),
  repetitionPenalty: z.number().min(0.01).max(10).optional(),
  presencePenalty: z.number().min(-2).max(2).optional(),
  seed: z.number().int().optional(),
  /** Added to the logits of token ids. */
  logitBias: z.record(z.string().regex(/^\d+$/), z.number().min(-100).max(100)).optional(),
});
export type Sampling = z.infer<typeof sampling>;

export const statistics = z.object({
  promptTokens: z.number(),
  /** Of the prompt, how many came from the cache. */
  cachedTokens: z.number(),
  generatedTokens: z.number(),
  timeToFirstTokenMs: z.number(),
  tokensPerSecond: z.number(),
});
export type Statistics = z.infer<typeof statistics>;

/**
 * Why generation ended. `length` is the token limit, `context` the end of the context. A cancelled chat or generate
 * returns what was written until then, as `cancelled`; a cancelled complete or summarise fails with code `cancelled`.
 */
export const finishReason = z.enum(['stop', 'length', 'context', 'cancelled']);
export type FinishReason = z.infer<typeof finishReason>;

// ---- Models ----

export const modelCard = z.object({
  /** Catalogue id, or the path it was loaded from. */
  id: z.string(),
  name: z.string(),
  family: z.string(),
  backend: z.string(),
  /** Of a remote server, which answers instead of this process; absent: nothing leaves it. */
  host: z.string().optional(),
  contextTokens: z.number(),
  parameters: z.number(),
  weightBytes: z.number(),
  /** Which thinking modes change anything for this model. `['off']`: it cannot think. */
  thinkingModes: z.array(thinkingMode),
  fillInTheMiddle: z.boolean(),
  chat: z.boolean(),
  /** Its prompt format can offer tools. */
  toolCalling: z.boolean(),
  /** Values of a vector: an embedding model, which gives vectors and nothing else. */
  embeddingDimensions: z.number().optional(),
  /** Sentences the user should know: precision, backend fallbacks. */
  notes: z.array(z.string()),
});
export type ModelCard = z.infer<typeof modelCard>;

/** The loaded model goes on differently: its device was lost, and set up again or replaced by the CPU. */
export const modelChange = z.object({ message: z.string(), card: modelCard });
export type ModelChange = z.infer<typeof modelChange>;

export const loadParams = z.object({
  /** Catalogue id, or an absolute path to a GGUF file or a safetensors directory. */
  model: z.string(),
  backend: backendChoice.default('auto'),
  contextTokens: z.number().int().min(16).optional(),
  threads: z.number().int().min(1).max(1024).optional(),
  /** Of keys and values on the GPU; absent: f16. The CPU keeps f32. */
  cachePrecision: z.enum(cachePrecisions).optional(),
  /** Sequences of all models on the disk, for the next start; 0: none. */
  diskCacheBytes: z.number().int().min(0).default(limits.cache.snapshotBytes),
});
export type LoadParams = z.input<typeof loadParams>;

/** An OpenAI-compatible server that the user named. */
export const remoteServerParams = z.object({
  /** Up to and with its `/v1`. */
  url: z.string().max(2048),
  token: z.string().max(8192).optional(),
});
export type RemoteServerParams = z.infer<typeof remoteServerParams>;

/** Requests go there instead of to a model of this process, until the next load. */
export const connectParams = remoteServerParams.extend({
  /** Absent: the only one that the server has. */
  model: z.string().optional(),
  /** At most; where the server does not say, what it is taken to have. */
  contextTokens: z.number().int().min(16).optional(),
});
export type ConnectParams = z.infer<typeof connectParams>;

export const remoteModel = z.object({
  id: z.string(),
  /** Absent: the server does not say. */
  contextTokens: z.number().optional(),
});
export type RemoteModel = z.infer<typeof remoteModel>;

export const modelEntry = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string(),
  licence: z.string(),
  family: z.string(),
  /** It gives vectors for search, and neither chats nor completes. */
  embedding: z.boolean(),
  /** It was trained for; the card of the loaded model says what memory allows. */
  contextTokens: z.number(),
  parameters: z.number(),
  downloadBytes: z.number(),
  /** What is on disk. */
  state: z.enum(['absent', 'partial', 'present']),
  path: z.string().optional(),
  /** What this machine can do with it, in one sentence. */
  fit: z.object({ verdict: z.enum(['good', 'slow', 'no']), reason: z.string() }),
  recommended: z.boolean(),
});
export type ModelEntry = z.infer<typeof modelEntry>;

export const modelName = z.object({ model: z.string() });
/** Explained when it is one, compared when they are several. */
export const modelNames = z.object({ models: z.array(z.string()).min(1) });

// ---- Embeddings ----

export const embedParams = z.object({
  /** Texts, or ids of the model's own vocabulary. */
  inputs: z.array(z.union([z.string(), z.array(z.number().int().min(0)).min(1)])).min(1),
  /** The first values of each vector alone; models trained for it say as much with fewer. */
  dimensions: z.number().int().min(1).optional(),
});
export type EmbedParams = z.input<typeof embedParams>;

export interface EmbedResult {
  /** Each of length 1, in the order of the inputs. */
  readonly vectors: readonly Float32Array[];
  readonly promptTokens: number;
}

// ---- Generation ----

/** Milliseconds from now: what is not done by then fails with code `timeout`. */
const timeoutMs = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31)
  .optional();

export const completeParams = z.object({
  /** Text before and after the cursor, whole or already cut; the engine cuts to the context. */
  prefix: z.string(),
  suffix: z.string(),
  path: z.string().optional(),
  languageId: z.string().optional(),
  /** Related text that goes before the file, least changing first. */
  snippets: z.array(z.object({ path: z.string(), text: z.string() })).default([]),
  maxTokens: z.number().int().min(1).default(64),
  /** The rest of the line, of the statement or block that the cursor is in, or of a block wherever it is. */
  multiline: z.enum(['never', 'auto', 'always']).default('auto'),
  /** Different texts that are asked for; more than one costs a run each. */
  candidates: z.number().int().min(1).max(8).default(1),
  /** How sure of it the model must be; `eager`: not at all. */
  confidence: z.enum(['eager', 'balanced', 'quiet']).default('eager'),
  /** As the model writes it, not trimmed to the scope of the cursor; `stream` then names its deltas. */
  whole: z.boolean().default(false),
  stream: z.string().optional(),
  stop: z.array(z.string()).default([]),
  timeoutMs,
  sampling: sampling.default({}),
});
export type CompleteParams = z.input<typeof completeParams>;

export const completeResult = z.object({
  /** What belongs at the cursor and stands nowhere yet; empty: nothing does, or the model is not sure of it. */
  text: z.string(),
  /** Less likely texts, the likeliest first. */
  alternatives: z.array(z.string()).default([]),
  /** Of the tokens at its beginning, the mean; absent where nobody said. */
  logProbability: z.number().optional(),
  finish: finishReason,
  statistics,
});
export type CompleteResult = z.infer<typeof completeResult>;

export const toolCall = z.object({
  /** Unique in its conversation; the result names it. */
  id: z.string(),
  name: z.string(),
  /** JSON text, as the model wrote it. */
  arguments: z.string(),
});
export type ToolCall = z.infer<typeof toolCall>;

export const chatMessage = z.discriminatedUnion('role', [
  z.object({ role: z.literal('system'), content: z.string() }),
  z.object({ role: z.literal('user'), content: z.string() }),
  z.object({
    role: z.literal('assistant'),
    content: z.string(),
    /** What it thought before; formats that drop it leave it out. */
    thinking: z.string().optional(),
    toolCalls: z.array(toolCall).optional(),
  }),
  z.object({ role: z.literal('tool'), toolCallId: z.string(), content: z.string() }),
]);
export type ChatMessage = z.infer<typeof chatMessage>;

/** Prompts to compute while nobody waits; cancelled at the next key. */
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

/** `cancelled` keeps what was read until then. */
export const warmResult = z.object({ promptTokens: z.number(), cachedTokens: z.number(), finish: finishReason });
export type WarmResult = z.infer<typeof warmResult>;

export const tool = z.object({
  name: z.string().regex(/^[\w.-]{1,64}$/),
  description: z.string().default(''),
  /** JSON Schema of the arguments, an object's. */
  parameters: z.record(z.string(), z.unknown()).default({ type: 'object', properties: {} }),
});
export type Tool = z.infer<typeof tool>;

/** `none` hides nothing but forbids calls; `required` and a name force one. */
export const toolChoice = z.union([z.enum(['auto', 'none', 'required']), z.object({ name: z.string() })]);
export type ToolChoice = z.infer<typeof toolChoice>;

/** Grammars mark framing tokens by a carriage return. */
const answerChoice = z
  .string()
  .min(1)
  .regex(/^[^\r]*$/, 'holds a carriage return');

/** What the answer (not the thinking) must be. */
export const responseFormat = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('text') }),
  z.object({ kind: z.literal('json') }),
  z.object({ kind: z.literal('json-schema'), schema: z.record(z.string(), z.unknown()) }),
  z.object({ kind: z.literal('choice'), choices: z.array(answerChoice).min(1).max(limits.server.choicesOfAnswer) }),
]);
export type ResponseFormat = z.infer<typeof responseFormat>;

/** Beside stop strings and the token limit, where an answer ends. */
const endFields = {
  /** Token ids that end the answer. */
  stopIds: z.array(z.number().int().min(0)).default([]),
  /** The model cannot end the answer by itself before. */
  minTokens: z.number().int().min(0).default(0),
};

const candidateLogprob = z.object({ token: z.string(), bytes: z.array(z.number()).readonly(), logprob: z.number() });
/** Of a token of the answer's text, and the most probable ones at its place. */
export const tokenLogprob = candidateLogprob.extend({ top: z.array(candidateLogprob).readonly() });
export type TokenLogprob = z.infer<typeof tokenLogprob>;
/** Deltas of the text carry log-probabilities, with so many alternatives; absent: they do not. */
const logprobs = z.number().int().min(0).max(limits.server.logprobs).optional();

export const chatParams = z.object({
  /** Chosen by the client; deltas of this request carry it. */
  stream: z.string(),
  messages: z.array(chatMessage).min(1),
  thinking: thinkingMode.default('off'),
  /** Thinking is closed gracefully after as many tokens; absent: the mode decides alone. */
  thinkingTokens: z.number().int().min(0).optional(),
  tools: z.array(tool).default([]),
  toolChoice: toolChoice.default('auto'),
  /** False: the first call ends the turn. One that `toolChoice` demands does in any case. */
  parallelToolCalls: z.boolean().default(true),
  responseFormat: responseFormat.default({ kind: 'text' }),
  maxTokens: z.number().int().min(1).optional(),
  stop: z.array(z.string()).default([]),
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
  /** `tool-calls`: the model waits for the results of `toolCalls`. */
  finish: z.enum([...finishReason.options, 'tool-calls']),
  statistics,
  /** Earliest messages that were left out because the context is full. */
  droppedMessages: z.number(),
});
export type ChatResult = z.infer<typeof chatResult>;

export const generateParams = z.object({
  stream: z.string(),
  /** Text, or ids of the model's vocabulary, which `raw` alone takes. */
  prompt: z.union([z.string(), z.array(z.number().int().min(0))]),
  /** Without the chat template. */
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
  /** Top-level symbols, for cutting long files where their structure does; zero-based lines, end inclusive. */
  symbols: z.array(z.object({ name: z.string(), startLine: z.number(), endLine: z.number() })).default([]),
  maxTokens: z.number().int().min(1).default(512),
  /** Not empty: `path` is a folder and these are its files; `text` is not looked at. */
  files: z
    .array(z.object({ path: z.string(), text: z.string(), languageId: z.string().optional() }))
    .max(limits.generation.summaryFiles)
    .default([]),
  /** A summary that is kept from before does not do. */
  fresh: z.boolean().default(false),
  timeoutMs,
});
export type SummariseParams = z.input<typeof summariseParams>;

export const summariseResult = z.object({
  text: z.string(),
  finish: finishReason,
  /** Parts the file was read in; 1: in one pass. */
  parts: z.number(),
  statistics,
});
export type SummariseResult = z.infer<typeof summariseResult>;

/** A piece of a streaming answer. Of a tool call, `text` is a piece of its arguments; the first piece may be empty. */
export const delta = z.discriminatedUnion('kind', [
  z.object({
    stream: z.string(),
    kind: z.enum(['text', 'thinking']),
    text: z.string(),
    /** Generated so far, with those that are not shown; absent where nobody counts. */
    tokens: z.number().int().min(0).optional(),
    /** Of the tokens of `text`, where they were asked for. */
    logprobs: z.array(tokenLogprob).readonly().optional(),
  }),
  z.object({
    stream: z.string(),
    kind: z.literal('tool-call'),
    /** Which call of this answer, from 0. */
    index: z.number().int().min(0),
    id: z.string(),
    name: z.string(),
    text: z.string(),
  }),
]);
export type Delta = z.infer<typeof delta>;

export const progress = z.object({
  task: z.enum(['load', 'download', 'verify', 'summarise']),
  /** Model id or the stream of the request. */
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
  queuedRequests: z.number(),
  residentBytes: z.number(),
  cacheBytes: z.number(),
  /** Of the last request that generated. */
  last: statistics.optional(),
  /** Since the model was loaded, by class. */
  requests: schedulerStatistics.optional(),
});
export type EngineStatus = z.infer<typeof engineStatus>;

export const clearedCache = z.object({ files: z.number(), bytes: z.number() });
export type ClearedCache = z.infer<typeof clearedCache>;

export const streamName = z.object({ stream: z.string() });

export const countTokensParams = z.object({ texts: z.array(z.string()) });
export type CountTokensParams = z.input<typeof countTokensParams>;

/** Of the OpenAI-compatible server for other programs of this computer. */
export const startServerParams = z.object({
  /** 0: any that is free. */
  port: z.number().int().min(0).max(65_535),
  token: z.string(),
});
export type StartServerParams = z.infer<typeof startServerParams>;

export const serverAddress = z.object({
  /** With its `/v1`. */
  address: z.string(),
});
export type ServerAddress = z.infer<typeof serverAddress>;

// ---- What is said ----

/** From the client to the engine. */
export const engineRequests = {
  load: { params: loadParams, result: modelCard },
  connect: { params: connectParams, result: modelCard },
  remoteModels: { params: remoteServerParams, result: z.array(remoteModel) },
  startServer: { params: startServerParams, result: serverAddress },
  stopServer: { params: none, result: done },
  unload: { params: none, result: done },
  status: { params: none, result: engineStatus },
  complete: { params: completeParams, result: completeResult },
  warm: { params: warmParams, result: warmResult },
  chat: { params: chatParams, result: chatResult },
  generate: { params: generateParams, result: chatResult },
  summarise: { params: summariseParams, result: summariseResult },
  /** Tokens of each text in the loaded model's vocabulary, framing tokens as text. */
  countTokens: { params: countTokensParams, result: z.array(z.number()) },
  listModels: { params: none, result: z.array(modelEntry) },
  pullModel: { params: modelName, result: modelEntry },
  verifyModel: { params: modelName, result: modelEntry },
  removeModel: { params: modelName, result: modelEntry },
  /** Text in lines, for people. */
  inspectModels: { params: modelNames, result: z.string() },
  /** Forgets every cached prompt, in memory and on disk; running requests go on. */
  clearCache: { params: none, result: clearedCache },
} satisfies Requests;
export type EngineRequests = typeof engineRequests;

/** From the client to the engine, without an answer. */
export const engineNotices = {
  /** Ends the thinking of a running chat, whose answer follows; without effect when it does not think. */
  answerNow: streamName,
} satisfies Notices;

/** From the engine to the client. */
export const clientNotices = { delta, progress, modelChange } satisfies Notices;
