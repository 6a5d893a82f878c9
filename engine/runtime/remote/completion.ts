/**
 * Inline completion by a remote server: with `suffix` of /v1/completions if the server supports it, with llama-server's
 * /infill, or as a plain continuation of the text before the cursor.
 */

import type OpenAI from 'openai';
import { z } from 'zod';
import { cancelled, HearthError } from '../../errors.ts';
import { limits } from '../../limits.ts';
import type {
  ChatMessage,
  CompleteResult,
  chatParams,
  completeParams,
  Sampling,
} from '../../protocol/engineProtocol.ts';
import type { ThinkingMode } from '../../protocol/models.ts';
import { completedText } from '../../tasks/complete.ts';
import { commentLine } from '../../tasks/completionPrompt.ts';
import { CompletionShape } from '../../tasks/completionShape.ts';
import { Meter, usage } from './answer.ts';
import { done } from './events.ts';
import { cutOff, type ListedModel, type RemoteServer } from './server.ts';

type Params = z.output<typeof completeParams>;

/** `none`: the server has no endpoint for it. */
export type FillIn = 'suffix' | 'infill' | 'plain' | 'none';

const completionChunk = z.object({
  choices: z.array(z.object({ text: z.string().nullish(), finish_reason: z.string().nullish() })).nullish(),
  usage,
});
const infillChunk = z.object({
  content: z.string().nullish(),
  /** Set in the last chunk. Older servers have only this, no `stop_type`. */
  stop: z.boolean().nullish(),
  stop_type: z.string().nullish(),
  tokens_evaluated: z.number().nullish(),
  tokens_predicted: z.number().nullish(),
});

interface Piece {
  readonly text: string;
  readonly finish?: string | undefined;
  readonly usage?: z.output<typeof usage>;
}

/** Finds out by requesting one token. @throws HearthError `cancelled`. */
export async function fillInOf(server: RemoteServer, model: ListedModel, signal?: AbortSignal): Promise<FillIn> {
  if (model.fillInTheMiddle !== undefined) return model.fillInTheMiddle ? 'suffix' : 'plain';
  const probe = { prefix: 'a = ', suffix: '\nb = a', maxTokens: 1, stop: [], sampling: { temperature: 0 } };
  const ways: readonly FillIn[] = model.llamaServer ? ['infill', 'plain'] : ['suffix', 'plain'];
  for (const way of ways) {
    try {
      for await (const _ of pieces(server, model.id, way, { ...probe, extra: [] }, signal)) break;
      return way;
    } catch (error) {
      if (!(error instanceof HearthError) || error.code === 'cancelled') throw error;
      // The server could not be asked, so nothing is known.
      if (!refusals.has(error.code)) return 'plain';
    }
  }
  return 'none';
}

/** vLLM answers 400 for `suffix`, llama-server 501 for /infill, others 404. */
const refusals: ReadonlySet<string> = new Set(['invalid-input', 'unsupported', 'not-found']);

interface RemoteCompletion {
  readonly server: RemoteServer;
  readonly model: string;
  readonly way: FillIn;
  readonly contextTokens: number;
  readonly onText: (text: string) => void;
}

/** @throws HearthError `cancelled`, `timeout`. */
export async function completeRemotely(
  { server, model, way, contextTokens, onText }: RemoteCompletion,
  params: Params,
  signal: AbortSignal | undefined,
): Promise<CompleteResult> {
  const meter = new Meter();
  const shape = new CompletionShape(params);
  if (way === 'none' || !(params.whole || shape.isWorthwhile))
    return { text: '', alternatives: [], finish: 'stop', statistics: meter.statistics() };
  const late = AbortSignal.timeout(limits.generation.completionMs);
  const ending = AbortSignal.any([...(signal ? [signal] : []), ...(params.whole ? [] : [late])]);
  const request = requestOf(params, way, Math.min(contextTokens, limits.generation.completionPromptTokens));
  const maxChars = params.maxTokens * limits.generation.charsPerToken;
  let written = '';
  let finish: 'stop' | 'length' = 'stop';
  try {
    for await (const piece of pieces(server, model, way, request, ending)) {
      meter.counted(piece.usage);
      if (piece.finish === 'length' || piece.finish === 'limit') finish = 'length';
      if (piece.text === '') continue;
      meter.piece();
      written += piece.text;
      if (params.whole) onText(piece.text);
      // Leaving the loop ends the request, and the server's work.
      else if (shape.shape(written, false).complete) break;
      // A server may ignore `max_tokens`.
      if (written.length > maxChars) {
        finish = 'length';
        break;
      }
    }
  } catch (error) {
    if (!late.aborted || signal?.aborted) throw error;
    throw new HearthError('timeout', `${server.host} took too long for a completion.`, { cause: error });
  }
  const statistics = meter.statistics();
  const text = params.whole ? written : await completedText(shape, written, finish, params);
  return { text, alternatives: [], finish, statistics };
}

interface FillInRequest extends Pick<Params, 'prefix' | 'suffix' | 'maxTokens' | 'stop' | 'sampling'> {
  /** Related files, which /infill takes as a separate field. */
  readonly extra: readonly { readonly filename: string; readonly text: string }[];
}

/**
 * Cuts the texts to the token budget: the suffix gets a quarter, and related files get what the prefix leaves, up to a
 * third.
 */
function requestOf(params: Params, way: FillIn, promptTokens: number): FillInRequest {
  const budget = estimatedChars(promptTokens - Math.min(params.maxTokens, Math.floor(promptTokens / 2)));
  const { suffix, ...rest } = params;
  const after = way === 'plain' ? '' : suffix.slice(0, Math.floor(budget / 4));
  const room = budget - after.length;
  const before = tail(params.prefix, params.snippets.length > 0 ? Math.floor((room * 2) / 3) : room);
  const extra: { filename: string; text: string }[] = [];
  let left = room - before.length;
  for (const { path, text } of params.snippets) {
    if (text.length > left) continue;
    extra.push({ filename: path, text });
    left -= text.length;
  }
  // Only the rest of the line is shown.
  const stop = params.multiline !== 'never' || params.whole ? params.stop : [...params.stop, '\n'];
  const common = { ...rest, suffix: after, stop };
  if (way === 'infill') return { ...common, prefix: before, extra };
  const titled = (path: string, text: string): string => commentLine(params.languageId, path) + text;
  const context = extra.map(({ filename, text }) => `${titled(filename, text)}\n\n`).join('');
  const prefix = context + (params.path === undefined ? before : titled(params.path, before));
  return { ...common, prefix, extra: [] };
}

/**
 * The last characters, cut in steps of a quarter at a line start, so that the server's prefix cache serves the next
 * key.
 */
function tail(text: string, maxChars: number): string {
  if (text.length <= maxChars) return text;
  const step = Math.max(1, Math.floor(maxChars / 4));
  const start = Math.ceil((text.length - maxChars) / step) * step;
  const line = text.indexOf('\n', start) + 1;
  return text.slice(line > 0 && line < text.length ? line : start);
}

async function* pieces(
  server: RemoteServer,
  model: string,
  way: FillIn,
  request: FillInRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<Piece> {
  // No retries: the next key asks again.
  const options = { signal, maxRetries: 0 };
  const { prefix, suffix, maxTokens, stop, sampling, extra } = request;
  const drawn = samplingOf({ ...sampling, temperature: sampling.temperature ?? 0 });
  const common = { stream: true, ...(stop.length > 0 && { stop }), ...drawn } as const;
  const [path, body] =
    way === 'infill'
      ? [
          server.beside('/infill'),
          { ...common, input_prefix: prefix, input_suffix: suffix, input_extra: extra, n_predict: maxTokens },
        ]
      : [
          '/completions',
          {
            ...{ ...common, model, prompt: prefix, max_tokens: maxTokens, ...(way === 'suffix' && { suffix }) },
            stream_options: { include_usage: true },
          },
        ];
  const answered = () => server.client.post(path, { ...options, body, stream: true }).asResponse();
  let ended = false;
  for await (const value of server.stream(answered)) {
    if (signal?.aborted) throw cancelled();
    const piece = value === done ? undefined : await server.explained(async () => pieceOf(way, value));
    ended ||= piece === undefined || piece.finish !== undefined;
    if (piece) yield piece;
  }
  if (signal?.aborted) throw cancelled();
  if (!ended) throw cutOff(server.host);
}

function pieceOf(way: FillIn, value: unknown): Piece {
  if (way === 'infill') {
    const { content, stop, stop_type, tokens_evaluated, tokens_predicted } = infillChunk.parse(value);
    const text = content ?? '';
    const finish = stop_type && stop_type !== 'none' ? stop_type : stop === true ? 'stop' : undefined;
    if (finish === undefined) return { text };
    return { text, finish, usage: { prompt_tokens: tokens_evaluated, completion_tokens: tokens_predicted } };
  }
  const { choices, usage: counts } = completionChunk.parse(value);
  const [choice] = choices ?? [];
  return { text: choice?.text ?? '', finish: choice?.finish_reason ?? undefined, usage: counts };
}

// Converts the protocol's requests to OpenAI's API.

type ChatParams = z.output<typeof chatParams>;

/** Fields outside OpenAI's API that vLLM, SGLang and llama-server know (some under one name, some under the other). */
interface Extras {
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  repeat_penalty?: number;
  thinking_token_budget?: number;
  structured_outputs?: { choice: string[] };
  thinking_budget_tokens?: number;
  chat_template_kwargs?: { enable_thinking: boolean; thinking: boolean };
}

/** Optional fields. If a server rejects one by name, later requests omit it. */
export const dispensable = [
  'chat_template_kwargs',
  'reasoning_effort',
  'thinking_token_budget',
  'thinking_budget_tokens',
  'stream_options',
  'parallel_tool_calls',
  'top_k',
  'min_p',
  'repetition_penalty',
  'repeat_penalty',
] as const;

export function bodyOf(model: string, params: ChatParams): OpenAI.ChatCompletionCreateParamsStreaming & Extras {
  const { tools, toolChoice, maxTokens, stop } = params;
  return {
    model,
    messages: params.messages.map(messageOf),
    stream: true,
    stream_options: { include_usage: true },
    ...(maxTokens !== undefined && { max_tokens: maxTokens }),
    ...(stop.length > 0 && { stop }),
    ...samplingOf(params.sampling),
    ...(tools.length > 0 && {
      tools: tools.map((tool) => ({ type: 'function', function: tool })),
      ...(!params.parallelToolCalls && { parallel_tool_calls: false }),
      tool_choice: typeof toolChoice === 'string' ? toolChoice : { type: 'function', function: toolChoice },
    }),
    ...formatOf(params),
    ...thinkingOf(params.thinking, params.thinkingTokens),
  };
}

function samplingOf(sampling: Sampling) {
  const { temperature, topP, topK, minP, repetitionPenalty, presencePenalty, seed, logitBias } = sampling;
  return {
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { top_p: topP }),
    ...(topK !== undefined && { top_k: topK }),
    ...(minP !== undefined && { min_p: minP }),
    ...(repetitionPenalty !== undefined && {
      repetition_penalty: repetitionPenalty,
      repeat_penalty: repetitionPenalty,
    }),
    ...(presencePenalty !== undefined && { presence_penalty: presencePenalty }),
    ...(seed !== undefined && { seed }),
    ...(logitBias !== undefined && { logit_bias: logitBias }),
  };
}

function formatOf({
  responseFormat,
}: ChatParams): Pick<Extras, 'structured_outputs'> &
  Pick<OpenAI.ChatCompletionCreateParamsStreaming, 'response_format'> {
  if (responseFormat.kind === 'text') return {};
  if (responseFormat.kind === 'choice') return { structured_outputs: { choice: responseFormat.choices } };
  if (responseFormat.kind === 'json') return { response_format: { type: 'json_object' } };
  const json_schema = { name: 'answer', schema: responseFormat.schema };
  return { response_format: { type: 'json_schema', json_schema } };
}

/**
 * Templates of Qwen3 and GLM read `enable_thinking`, those of DeepSeek and Granite `thinking`, that of GPT-OSS an
 * effort.
 */
function thinkingOf(mode: ThinkingMode, budgetTokens: number | undefined) {
  const thinks = mode !== 'off';
  const effort: 'low' | 'medium' | 'high' | undefined = mode === 'on' ? 'medium' : mode === 'off' ? undefined : mode;
  return {
    chat_template_kwargs: { enable_thinking: thinks, thinking: thinks },
    ...(effort !== undefined && { reasoning_effort: effort }),
    ...(thinks &&
      budgetTokens !== undefined && { thinking_token_budget: budgetTokens, thinking_budget_tokens: budgetTokens }),
  };
}

function messageOf(message: ChatMessage): OpenAI.ChatCompletionMessageParam {
  switch (message.role) {
    case 'tool':
      return { role: 'tool', tool_call_id: message.toolCallId, content: message.content };
    case 'assistant':
      return {
        role: 'assistant',
        content: message.content,
        ...(message.toolCalls &&
          message.toolCalls.length > 0 && {
            tool_calls: message.toolCalls.map(({ id, name, arguments: args }) => ({
              id,
              type: 'function',
              function: { name, arguments: args },
            })),
          }),
      };
    default:
      return { role: message.role, content: message.content };
  }
}

// Estimates the tokens of a text, because only the server knows the vocabulary.

/**
 * Code has 3 to 4 bytes a token in current vocabularies, prose over 4. The low value makes Hearth send less text than
 * would fit, never more. Denser text (numbers, some scripts) has about 2.
 */
const usualBytes = 3;
const denseBytes = 2;

export type Density = 'usual' | 'dense';

const bytesOf = (density: Density): number => (density === 'usual' ? usualBytes : denseBytes);

export const estimatedTokens = (text: string, density: Density = 'usual'): number =>
  Math.ceil(Buffer.byteLength(text) / bytesOf(density));

/** Characters that fit into this many tokens by the same estimate. */
const estimatedChars = (tokens: number): number => Math.max(0, Math.floor(tokens * usualBytes));

/** Tokens that a template adds to a message and to a conversation. */
const messageTokens = 8;
const promptTokens = 64;

interface Counted {
  readonly content: string;
  readonly thinking?: string | undefined;
  readonly toolCalls?: readonly { readonly name: string; readonly arguments: string }[] | undefined;
}

export function estimatedPrompt(messages: readonly Counted[], density: Density = 'usual'): number {
  const ofMessage = ({ content, toolCalls = [] }: Counted): number =>
    messageTokens +
    estimatedTokens(content, density) +
    toolCalls.reduce((sum, call) => sum + messageTokens + estimatedTokens(call.name + call.arguments, density), 0);
  return messages.reduce((sum, message) => sum + ofMessage(message), promptTokens);
}
