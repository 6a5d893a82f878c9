/** Answers the engine's requests with an OpenAI-compatible server that the user named. Before that, nothing is sent. */
import { join } from 'node:path';
import type { z } from 'zod';
import { defaultStoreDirectory } from '../../catalogue/files.ts';
import { cancelled, HearthError } from '../../errors.ts';
import {
  type ChatResult,
  type CompleteResult,
  chatParams,
  type completeParams,
  type countTokensParams,
  type Delta,
  type Progress,
  type SummariseResult,
  type summariseParams,
} from '../../protocol/engineProtocol.ts';
import type { connectParams, ModelCard } from '../../protocol/models.ts';
import { fitHistory } from '../../tasks/chat.ts';
import type { Summariser } from '../../tasks/summarise.ts';
import { Summaries, SummaryCache } from '../summaries.ts';
import { Answer } from './answer.ts';
import {
  bodyOf,
  completeRemotely,
  type Density,
  dispensable,
  estimatedPrompt,
  estimatedTokens,
  type FillIn,
  fillInOf,
} from './completion.ts';
import { type ListedModel, RemoteServer } from './server.ts';

export interface RemoteOptions {
  readonly onDelta: (delta: Delta) => void;
  readonly onProgress?: (progress: Progress) => void;
  /** Folder for cached summaries; default: the platform's cache folder. */
  readonly storeDirectory?: string;
}

type ConnectParams = Omit<z.output<typeof connectParams>, 'role'>;
type ChatRequest = z.output<typeof chatParams>;

/** Used if neither the server nor the user states it. Current models have at least this. */
const assumedContextTokens = 8192;

export class RemoteEngine {
  readonly card: ModelCard;
  readonly #server: RemoteServer;
  readonly #model: string;
  readonly #fillIn: FillIn;
  readonly #options: RemoteOptions;
  /** Fields that the server rejected by name. */
  readonly #refused = new Set<string>();

  private constructor(
    server: RemoteServer,
    model: ListedModel,
    fillIn: FillIn,
    card: ModelCard,
    options: RemoteOptions,
  ) {
    this.#server = server;
    this.#model = model.id;
    this.#fillIn = fillIn;
    this.card = card;
    this.#options = options;
  }

  /**
   * @throws HearthError `unavailable`, `not-found` or `invalid-input` if the server can't be reached or isn't what was
   * named.
   */
  static async connect(params: ConnectParams, options: RemoteOptions, signal?: AbortSignal): Promise<RemoteEngine> {
    const server = new RemoteServer(params);
    const model = await server.choose(params.model, signal);
    const fillIn = await fillInOf(server, model, signal);
    return new RemoteEngine(server, model, fillIn, cardOf(server, model, fillIn, params.contextTokens), options);
  }

  /** Returns the partial answer if cancelled. */
  async chat(params: ChatRequest, signal?: AbortSignal): Promise<ChatResult> {
    try {
      return await this.#answer(params, 0, signal);
    } catch (error) {
      if (!(error instanceof HearthError && error.code === 'context-overflow')) throw error;
      return this.#shortened(params, error, signal);
    }
  }

  async complete(params: z.output<typeof completeParams>, signal?: AbortSignal): Promise<CompleteResult> {
    const onText = (text: string): void => {
      if (params.stream !== undefined) this.#options.onDelta({ stream: params.stream, kind: 'text', text });
    };
    const { contextTokens } = this.card;
    const completion = { server: this.#server, model: this.#model, way: this.#fillIn, contextTokens, onText };
    return completeRemotely(completion, params, signal);
  }

  async summarise(params: z.output<typeof summariseParams>, signal?: AbortSignal): Promise<SummariseResult> {
    const { stream, ...request } = params;
    const { onDelta, onProgress } = this.#options;
    const summariser: Summariser = {
      contextTokens: this.card.contextTokens,
      countTokens: (text) => estimatedTokens(text),
      countPrompt: (messages) => estimatedPrompt(messages),
      ask: (messages, maxTokens, onText) => this.#ask({ messages, maxTokens }, onText, signal),
    };
    const cache = new SummaryCache(join(this.#options.storeDirectory ?? defaultStoreDirectory(), 'summaries'));
    return new Summaries(summariser, cache, this.card.id).make({
      ...request,
      onText: (text) => onDelta({ stream, kind: 'text', text }),
      onProgress: (step) => onProgress?.({ task: 'summarise', subject: stream, unit: 'parts', ...step }),
    });
  }

  /** Estimated. */
  async countTokens({ texts }: z.output<typeof countTokensParams>): Promise<number[]> {
    return texts.map((text) => estimatedTokens(text));
  }

  /** Asks for a part of a summary: greedy, without thinking. */
  async #ask(request: object, onText: (text: string) => void, signal: AbortSignal | undefined) {
    const params = chatParams.parse({ ...request, stream: '', sampling: { temperature: 0 } });
    const onDelta = ({ kind, text }: Delta): void => {
      if (kind === 'text') onText(text);
    };
    const { text, finish, statistics } = await this.#answer(params, 0, signal, onDelta);
    if (finish === 'cancelled') throw cancelled();
    return { text, finish: finish === 'tool-calls' ? ('stop' as const) : finish, statistics };
  }

  /** Shortens a conversation that the server rejected as too long, because only the server can count its tokens. */
  async #shortened(params: ChatRequest, overflow: HearthError, signal: AbortSignal | undefined): Promise<ChatResult> {
    const { contextTokens } = this.card;
    const budget = contextTokens - Math.min(params.maxTokens ?? contextTokens, Math.floor(contextTokens / 4));
    for (const density of ['usual', 'dense'] satisfies Density[]) {
      const measure = (kept: Parameters<typeof estimatedPrompt>[0]) => ({ tokens: estimatedPrompt(kept, density) });
      const fitting = await fitHistory(params.messages, measure, { budgetTokens: budget });
      const { droppedMessages } = fitting;
      if (droppedMessages === 0) continue;
      const kept = new Set<object>(fitting.messages);
      const messages = params.messages.filter((message) => kept.has(message));
      try {
        return await this.#answer({ ...params, messages }, droppedMessages, signal);
      } catch (error) {
        if (!(error instanceof HearthError && error.code === 'context-overflow')) throw error;
      }
    }
    throw overflow;
  }

  async #answer(
    params: ChatRequest,
    droppedMessages: number,
    signal: AbortSignal | undefined,
    onDelta = this.#options.onDelta,
  ): Promise<ChatResult> {
    const answer = new Answer(this.#server.host, params.stream, onDelta);
    try {
      for await (const piece of this.#server.stream(() => this.#asked(params, signal))) {
        await this.#server.explained(async () => answer.take(piece));
      }
    } catch (error) {
      if (!(error instanceof HearthError && error.code === 'cancelled')) throw error;
    }
    answer.end(signal?.aborted === true);
    return answer.result(signal?.aborted === true, droppedMessages);
  }

  async #asked(params: ChatRequest, signal: AbortSignal | undefined): Promise<Response> {
    const body = bodyOf(this.#model, params);
    for (;;) {
      for (const field of this.#refused) Reflect.deleteProperty(body, field);
      try {
        return await this.#server.client.chat.completions.create(body, { signal }).asResponse();
      } catch (error) {
        const refused = dispensable.filter((field) => field in body && refusesField(error, field));
        if (refused.length === 0) throw error;
        for (const field of refused) this.#refused.add(field);
      }
    }
  }
}

/** OpenAI and other strict servers answer 400 or 422 and name the unknown field. */
function refusesField(error: unknown, field: string): boolean {
  if (!(error instanceof Error)) return false;
  const status: unknown = Reflect.get(error, 'status');
  return (status === 400 || status === 422) && error.message.includes(field);
}

function cardOf({ host, url }: RemoteServer, model: ListedModel, fillIn: FillIn, asked: number | undefined): ModelCard {
  const known = model.contextTokens;
  const contextTokens = Math.min(known ?? asked ?? assumedContextTokens, asked ?? Number.POSITIVE_INFINITY);
  const notes = [
    `Your questions, and the code that goes with them, are sent to ${host}.`,
    ...(known === undefined && asked === undefined
      ? [`${host} does not report its context length; ${assumedContextTokens} tokens are assumed.`]
      : []),
    ...(fillIn === 'plain'
      ? [`${host} does not support fill-in-the-middle, so completions ignore the text after the cursor.`]
      : []),
    ...(fillIn === 'none' ? [`${host} has no /v1/completions: it can't complete code.`] : []),
  ];
  return {
    id: `remote:${url}#${model.id}`,
    // llama-server names a model after its file.
    name: model.id.split(/[\\/]/).filter(Boolean).at(-1) ?? model.id,
    family: 'remote',
    backend: 'remote',
    host,
    contextTokens,
    parameters: 0,
    weightBytes: 0,
    // The server decides whether it thinks and ignores modes that it does not know.
    thinkingModes: model.thinkingModes ?? ['off', 'on', 'low', 'medium', 'high'],
    fillInTheMiddle: fillIn === 'suffix' || fillIn === 'infill',
    chat: true,
    toolCalling: true,
    notes,
  };
}
