/** The engine: dispatches requests to the loaded models. It has no transport; rpc.ts adds one. */
import { join } from 'node:path';
import type { z } from 'zod';
import { greedy, type SamplerSettings } from '../backend/sampler.ts';
import { snapshotDirectory } from '../catalogue/files.ts';
import type { Store } from '../catalogue/store.ts';
import { cancelled, HearthError, invalidInput, throwIfAborted, unsupported } from '../errors.ts';
import { clearSnapshots } from '../kv/snapshotFile.ts';
import { callId, firstFreeCall, type OutputPiece } from '../prompt/conversation.ts';
import {
  type ChatResult,
  type ClearedCache,
  type CompleteResult,
  chatParams,
  type completeParams,
  type countTokensParams,
  type Delta,
  type EmbedResult,
  type EngineStatus,
  type embedParams,
  type generateParams,
  type NextEditResult,
  type nextEditParams,
  type Progress,
  protocolVersion,
  type Sampling,
  type Statistics,
  type SummariseResult,
  type streamName,
  type summariseParams,
  type WarmResult,
  type warmParams,
} from '../protocol/engineProtocol.ts';
import {
  type loadParams,
  type ModelCard,
  type ModelChange,
  type ModelEntry,
  type ModelRole,
  modelRoles,
  type unloadParams,
} from '../protocol/models.ts';
import type { TokenLogprob } from '../sampling/logprobs.ts';
import { seededRandom } from '../sampling/random.ts';
import { samplerSettings } from '../sampling/samplingDefaults.ts';
import { type ChatAnswer, type ChatModel, chat, prepareChat } from '../tasks/chat.ts';
import { complete } from '../tasks/complete.ts';
import { CutAhead, completionToWarm, promptAfterCut, warmUp } from '../tasks/completionPrompt.ts';
import { type EmbeddingModel, embedAll, embeddingTokens, shortened } from '../tasks/embed.ts';
import { type Generated, runInSlices } from '../tasks/generate.ts';
import { editModelOf, foreseeEdit } from '../tasks/nextEdit.ts';
import { continueText, requireShort } from '../tasks/rawText.ts';
import type { Summariser } from '../tasks/summarise.ts';
import type { LoadedModel } from './loadedModel.ts';
import type { ModelUser } from './modelPool.ts';
import { type EngineModels, ModelRoles, SharedModels } from './modelRoles.ts';
import { Summaries, SummaryCache } from './summaries.ts';

export interface EngineOptions {
  /** Shared with other windows; absent: its own. */
  readonly shared?: SharedModels;
  /** The folder of models; default: the platform's cache folder. */
  readonly storeDirectory?: string;
  readonly onDelta: (delta: Delta) => void;
  readonly onProgress: (progress: Progress) => void;
  /** Called when the loaded model's lost device was replaced. */
  readonly onModelChange?: (change: ModelChange) => void;
  /** Called after a window downloaded or removed a model, or tried to. */
  readonly onModelsChanged?: () => void;
}

/** The engine as one window or the command line sees it. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #shared: SharedModels;
  readonly #user: ModelUser;
  readonly #leave: () => void;
  readonly #roles: ModelRoles;
  #last: Statistics | undefined;
  /** Ends the thinking of running chats, by stream. */
  readonly #thinking = new Map<string, AbortController>();
  readonly #cutAhead = new CutAhead();

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#shared = options.shared ?? new SharedModels(options.storeDirectory);
    this.#leave = this.#shared.join(options);
    this.#user = {
      onProgress: options.onProgress,
      onChange: (change) => options.onModelChange?.(change),
    };
    this.#roles = new ModelRoles(this.#shared.pool, this.#user);
  }

  get models(): EngineModels {
    return this.#shared.models;
  }

  get #store(): Store {
    return this.#shared.store;
  }

  /** The window is gone. Its models stay loaded for a while if no other window uses them. */
  async close(keepMs: number): Promise<void> {
    this.#leave();
    this.#cutAhead.pause();
    await Promise.all(modelRoles.map((role) => this.#roles.unload(role, keepMs)));
  }

  /** @throws HearthError `unavailable` while another window uses it. */
  async removeModel(id: string): Promise<ModelEntry> {
    if (!this.#shared.pool.isUsedByOthers(id, this.#user)) return this.models.remove(id);
    throw new HearthError('unavailable', `Another window uses ${id}, so it was not removed. Close that window first.`);
  }

  /** Loads the model of a role in place of the one that has it. A later load cancels an earlier one. */
  load(params: z.output<typeof loadParams>, signal?: AbortSignal): Promise<ModelCard> {
    return this.#roles.load(params, signal);
  }

  hasRole(role: ModelRole): boolean {
    return this.#roles.get(role) !== undefined;
  }

  async unload({ role }: z.output<typeof unloadParams> = {}): Promise<void> {
    const roles = role === undefined ? modelRoles : [role];
    await Promise.all(roles.map((each) => this.#roles.unload(each)));
  }

  async clearCache(): Promise<ClearedCache> {
    for (const model of this.#shared.pool.all) await model.clearCache();
    return clearSnapshots(snapshotDirectory(this.#store.directory));
  }

  status(): EngineStatus {
    const chat = this.#roles.get('chat')?.loaded;
    const completion = this.#roles.get('completion')?.loaded;
    const models = this.#roles.all;
    const sum = (of: (model: LoadedModel) => number): number => models.reduce((total, model) => total + of(model), 0);
    // A chat in preparation has not reached the scheduler.
    const pending = Math.max(
      sum(({ scheduler }) => scheduler.pending),
      this.#thinking.size,
    );
    const isLoading = modelRoles.some((role) => this.#roles.isLoading(role));
    const idle = models.length > 0 ? 'ready' : 'empty';
    return {
      protocolVersion,
      state: isLoading ? 'loading' : pending > 0 ? 'busy' : idle,
      ...(chat && { model: chat.card }),
      ...(completion && { completionModel: completion.card }),
      // The first one is running, not queued.
      queuedRequests: Math.max(0, pending - 1),
      residentBytes: process.memoryUsage.rss(),
      cacheBytes: sum(({ scheduler }) => scheduler.decoder.memory().cacheBytes),
      ...(this.#last && { last: this.#last }),
      ...(chat && { requests: chat.scheduler.statistics() }),
    };
  }

  async complete(params: z.output<typeof completeParams>, signal?: AbortSignal): Promise<CompleteResult> {
    const { scheduler, tokenizer, contextTokens } = this.#readyToComplete();
    // A completion should be the most likely text, so it is greedy by default.
    const { sampling, random } = samplerOf(params.sampling, greedy);
    const { stream, stop: stopStrings, ...rest } = params;
    const onText = (text: string): void => {
      if (stream !== undefined) this.#deliver(stream, { kind: 'text', text });
    };
    const request = { ...rest, stopStrings, onText, sampling, random, signal };
    this.#cutAhead.pause();
    const completion = this.#note(await complete(scheduler, tokenizer, contextTokens, request));
    if (!params.whole) {
      this.#cutAhead.read(scheduler, promptAfterCut(tokenizer, contextTokens, params, params.maxTokens));
    }
    // A partial completion is useless.
    if (completion.finish === 'cancelled') throw cancelled();
    return { ...completion, alternatives: [...completion.alternatives] };
  }

  /** Runs only while nothing else does. */
  async nextEdit(params: z.output<typeof nextEditParams>, signal?: AbortSignal): Promise<NextEditResult> {
    const { names, ...writer } = this.#readyToComplete();
    const { random } = samplerOf({}, greedy);
    const foreseen = await foreseeEdit(writer, { ...params, random, signal }, editModelOf(names, writer.tokenizer));
    if (foreseen.finish === 'cancelled') throw cancelled();
    return foreseen;
  }

  /** Computes a prompt into the cache before its request arrives. */
  async warm(params: z.output<typeof warmParams>, signal?: AbortSignal): Promise<WarmResult> {
    if (params.kind === 'completion') {
      const { scheduler, tokenizer, contextTokens } = this.#readyToComplete();
      const { ids, boundaries } = completionToWarm(tokenizer, contextTokens, params, params.maxTokens);
      return warmUp(scheduler, ids, { boundaries, timeoutMs: params.timeoutMs, signal });
    }
    const { scheduler, format, contextTokens, now } = this.#ready();
    const options = { thinking: params.thinking, now: now() };
    const { prompt } = await prepareChat({ format, contextTokens }, params.messages, options, { signal });
    throwIfAborted(signal);
    return warmUp(scheduler, prompt.ids, { boundaries: prompt.boundaries, timeoutMs: params.timeoutMs, signal });
  }

  /** Returns the partial answer if cancelled. */
  async chat(params: z.output<typeof chatParams>, signal?: AbortSignal): Promise<ChatResult> {
    const model = this.#ready();
    const { stream, messages, tools } = params;
    if (tools.length > 0 && !model.format.toolCalling)
      throw new HearthError(
        'unsupported',
        'This model is a base model without a chat template, so it cannot use tools.',
      );
    const firstCall = firstFreeCall(messages);
    const answerNow = new AbortController();
    this.#thinking.set(stream, answerNow);
    const answering = chat(model, {
      requestClass: 'chat',
      messages,
      tools,
      toolChoice: params.toolChoice,
      parallelToolCalls: params.parallelToolCalls,
      responseFormat: params.responseFormat,
      thinking: params.thinking,
      maxTokens: params.maxTokens,
      stopStrings: params.stop,
      stopIds: params.stopIds,
      minTokens: params.minTokens,
      logprobs: params.logprobs,
      ...samplerOf(params.sampling, model.sampling),
      thinkingTokens: params.thinkingTokens,
      endRepetition: params.endRepetition,
      answerNow: answerNow.signal,
      onPiece: (piece, tokens, logprobs) => this.#deliver(stream, piece, { tokens, logprobs, firstCall }),
      timeoutMs: params.timeoutMs,
      signal,
    });
    const { calls, ...answer } = await answering.finally(() => this.#thinking.delete(stream));
    const toolCalls = calls.map(({ index, ...call }) => ({ id: callId(firstCall + index), ...call }));
    const finish = toolCalls.length > 0 && answer.finish === 'stop' ? 'tool-calls' : answer.finish;
    return { ...this.#note(answer), toolCalls, finish };
  }

  /** No effect on a stream that has ended or doesn't think. */
  answerNow({ stream }: z.output<typeof streamName>): void {
    this.#thinking.get(stream)?.abort();
  }

  async countTokens({ texts }: z.output<typeof countTokensParams>, signal?: AbortSignal): Promise<number[]> {
    const { tokenizer } = this.#ready();
    const counts: number[] = [];
    for (const text of texts) counts.push((await runInSlices(tokenizer.encodeSliced([text]), { signal })).length);
    return counts;
  }

  /** Embeds texts with an embedding model, without a query prefix. */
  async embed({ inputs, dimensions }: z.output<typeof embedParams>, signal?: AbortSignal): Promise<EmbedResult> {
    const model = this.#readyToEmbed();
    if (dimensions !== undefined && dimensions > model.dimensions)
      throw invalidInput(`${dimensions} dimensions were asked for; the model's vectors have ${model.dimensions}.`);
    const prompts: number[][] = [];
    for (const input of inputs) {
      requireShort(input, model.scheduler.decoder.contextTokens);
      prompts.push(await runInSlices(embeddingTokens(model.tokenizer, input), { signal }));
    }
    const vectors = await embedAll(model, prompts, { requestClass: 'chat', signal });
    return {
      vectors: vectors.map((vector) => shortened(vector, dimensions ?? model.dimensions)),
      promptTokens: prompts.reduce((sum, { length }) => sum + length, 0),
    };
  }

  /** `raw` continues the prompt, with special tokens parsed; else the prompt is a chat question. */
  async generate(params: z.output<typeof generateParams>, signal?: AbortSignal): Promise<ChatResult> {
    const { stream, prompt, raw, stop, sampling, ...request } = params;
    if (!raw) {
      if (typeof prompt !== 'string') throw invalidInput('Token ids need `raw`; a chat question must be text.');
      const messages = [{ role: 'user' as const, content: prompt }];
      return this.chat(chatParams.parse({ stream, messages, stop, sampling, ...request }), signal);
    }
    const model = this.#ready();
    const { calls: _, ...generated } = await continueText(model, {
      ...request,
      prompt,
      stopStrings: stop,
      ...samplerOf(sampling, model.sampling),
      onPiece: (piece, tokens, logprobs) => {
        this.#deliver(stream, piece, { tokens, logprobs });
        return 'continue';
      },
      signal,
    });
    return { ...this.#note(generated), toolCalls: [], droppedMessages: 0 };
  }

  async summarise(params: z.output<typeof summariseParams>, signal?: AbortSignal): Promise<SummariseResult> {
    const model = this.#ready();
    const { stream, timeoutMs, ...request } = params;
    const deadlineMs = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
    const leftMs = () => deadlineMs && deadlineMs - performance.now();
    const summariser: Summariser = {
      contextTokens: model.contextTokens,
      countTokens: (text) => model.tokenizer.encode(text, { special: 'plain' }).length,
      countPrompt: (messages) => model.format.render(messages, { thinking: 'off', now: model.now() }).ids.length,
      ask: (messages, maxTokens, onText) =>
        this.#ask(model, { messages, maxTokens, onText, signal, timeoutMs: leftMs() }).then((answer) =>
          this.#note(answer),
        ),
    };
    const cache = new SummaryCache(join(this.#store.directory, 'summaries'));
    const summary = await new Summaries(summariser, cache, this.#roles.label('chat')).make({
      ...request,
      onText: (text) => this.#deliver(stream, { kind: 'text', text }),
      onProgress: (step) => this.#options.onProgress({ task: 'summarise', subject: stream, unit: 'parts', ...step }),
    });
    if (summary.finish === 'cancelled') throw cancelled();
    return summary;
  }

  #ask(
    model: ReadyModel,
    request: Pick<Parameters<typeof chat>[1], 'messages' | 'maxTokens' | 'signal' | 'timeoutMs'> & {
      onText: (text: string) => void;
    },
  ): Promise<ChatAnswer> {
    const { onText, ...rest } = request;
    return chat(model, {
      ...rest,
      requestClass: 'summary',
      thinking: 'off',
      endRepetition: true,
      stopStrings: [],
      ...samplerOf({}, { ...greedy, repetitionPenalty: summaryRepetitionPenalty }),
      onPiece: ({ kind, text }) => {
        if (kind === 'text') onText(text);
      },
    });
  }

  #loaded(role: ModelRole = 'chat'): LoadedModel {
    const held = this.#roles.get(role);
    if (held) return held.loaded;
    const message = this.#roles.isLoading(role)
      ? 'The model is still loading. Try again once it is loaded.'
      : 'No model is loaded.';
    throw new HearthError('unavailable', message);
  }

  #readyToEmbed(): EmbeddingModel {
    const { embedding, card, scheduler } = this.#loaded();
    if (embedding) return { ...embedding, scheduler: scheduler.for(this.#user) };
    throw unsupported(`${card.name} is not an embedding model; load one, such as qwen3-embedding-0.6b.`);
  }

  /** The chat model also completes if no model has that role. */
  #readyToComplete(): ReadyModel {
    return this.#ready(this.#roles.get('completion') ? 'completion' : 'chat');
  }

  #ready(role: ModelRole = 'chat'): ReadyModel {
    const { scheduler, text, card, sampling } = this.#loaded(role);
    if (card.embeddingDimensions !== undefined)
      throw unsupported(`${card.name} is an embedding model: it computes vectors and cannot chat or complete.`);
    if (text)
      return {
        scheduler: scheduler.for(this.#user),
        ...text,
        contextTokens: card.contextTokens,
        names: `${card.id} ${card.name}`,
        sampling,
        now: () => new Date(),
      };
    throw new HearthError(
      'unsupported',
      `${card.name} has no vocabulary: it can be benchmarked, but cannot generate text.`,
    );
  }

  #deliver(stream: string, piece: OutputPiece, { tokens, logprobs, firstCall = 1 }: Delivery = {}): void {
    if (piece.kind !== 'tool-call') {
      const measured = { ...(tokens !== undefined && { tokens }), ...(logprobs && { logprobs }) };
      this.#options.onDelta({ stream, ...piece, ...measured });
    } else this.#options.onDelta({ stream, ...piece, id: callId(firstCall + piece.index) });
  }

  #note<Answer extends Pick<Generated, 'statistics'>>(answer: Answer): Answer {
    if (answer.statistics.generatedTokens > 0) this.#last = answer.statistics;
    return answer;
  }
}

interface Delivery {
  /** Tokens generated so far. */
  readonly tokens?: number;
  readonly logprobs?: readonly TokenLogprob[] | undefined;
  readonly firstCall?: number;
}

interface ReadyModel extends ChatModel {
  /** Id and name of the model. */
  readonly names: string;
  readonly sampling: SamplerSettings;
}

/** Without it, greedy summaries of small models fall into loops. */
const summaryRepetitionPenalty = 1.1;

function samplerOf(
  requested: Sampling,
  defaults: SamplerSettings,
): { sampling: SamplerSettings; random: () => number } {
  const seed = requested.seed ?? Math.floor(Math.random() * 2 ** 32);
  return { sampling: samplerSettings(requested, defaults), random: seededRandom(seed) };
}
