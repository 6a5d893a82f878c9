/** A scripted engine behind the real HTTP server: it records requests and gives the answers set by a test. */
import type { z } from 'zod';
import type { Serving } from '../../../engine/http/exchange.ts';
import { type HttpServer, startHttpServer } from '../../../engine/http/server.ts';
import type {
  ChatResult,
  chatParams,
  completeParams,
  Delta,
  generateParams,
} from '../../../engine/protocol/engineProtocol.ts';
import type { ModelCard } from '../../../engine/protocol/models.ts';
import { Streams } from '../../../engine/protocol/rpc.ts';

export const token = 'a-token-of-the-tests-with-43-characters-000';

export const card: ModelCard = {
  id: 'scripted',
  name: 'Scripted',
  family: 'test',
  backend: 'reference',
  contextTokens: 4096,
  parameters: 1,
  weightBytes: 1,
  thinkingModes: ['off', 'low', 'high'],
  fillInTheMiddle: true,
  chat: true,
  toolCalling: true,
  notes: [],
};

export const statistics = {
  promptTokens: 20,
  cachedTokens: 5,
  generatedTokens: 3,
  timeToFirstTokenMs: 4,
  tokensPerSecond: 50,
};

export type ChatAsked = z.output<typeof chatParams>;
type Pieces = Pick<ChatResult, 'text' | 'thinking' | 'toolCalls'>;

export const answerOf = (fields: Partial<ChatResult> = {}): ChatResult => ({
  text: 'One two.',
  thinking: '',
  toolCalls: [],
  finish: 'stop',
  statistics,
  droppedMessages: 0,
  ...fields,
});

export class ScriptedEngine {
  readonly streams = new Streams<(delta: Delta) => void>();
  readonly asked: ChatAsked[] = [];
  readonly completed: z.output<typeof completeParams>[] = [];
  readonly generated: z.output<typeof generateParams>[] = [];
  /** Answers the next chats. */
  answer: (asked: ChatAsked, signal: AbortSignal) => Promise<ChatResult> = async () => answerOf();
  model: ModelCard | undefined = card;

  deliver(delta: Delta): void {
    this.streams.receiver(delta.stream)?.(delta);
  }

  readonly serving: Serving = {
    streams: this.streams,
    engine: {
      status: () => ({
        protocolVersion: 1,
        state: 'ready',
        queuedRequests: 0,
        residentBytes: 1,
        cacheBytes: 0,
        ...(this.model && { model: this.model }),
      }),
      chat: async (params, signal = new AbortController().signal) => {
        this.asked.push(params);
        const result = await this.answer(params, signal);
        this.#say(params.stream, result);
        return result;
      },
      // As many values as are asked for: its number, then the length of the input.
      embed: async ({ inputs, dimensions = 3 }) => ({
        vectors: inputs.map((input, i) => Float32Array.of(i, input.length, 0.5).subarray(0, dimensions)),
        promptTokens: inputs.reduce((sum, { length }) => sum + length, 0),
      }),
      // A token a character.
      countTokens: async ({ texts }) => texts.map(({ length }) => length),
      complete: async (params) => {
        this.completed.push(params);
        this.deliver({ stream: params.stream ?? '', kind: 'text', text: 'the middle' });
        return { text: 'the middle', alternatives: [], finish: 'stop', statistics };
      },
      generate: async (params) => {
        this.generated.push(params);
        this.#say(params.stream, answerOf({ text: 'went on' }));
        return answerOf({ text: 'went on', finish: 'length' });
      },
    },
  };

  /** Thinking, text in two pieces, each call's arguments in two pieces. */
  #say(stream: string, { text, thinking, toolCalls }: Pieces): void {
    const halves = (whole: string): string[] => [whole.slice(0, whole.length / 2), whole.slice(whole.length / 2)];
    if (thinking !== '') this.deliver({ stream, kind: 'thinking', text: thinking });
    for (const piece of halves(text)) if (piece !== '') this.deliver({ stream, kind: 'text', text: piece });
    for (const [index, { id, name, arguments: args }] of toolCalls.entries()) {
      for (const piece of halves(args)) this.deliver({ stream, kind: 'tool-call', index, id, name, text: piece });
    }
  }
}

export const startScripted = (engine: ScriptedEngine, log: string[] = []): Promise<HttpServer> =>
  startHttpServer({ ...engine.serving, port: 0, token, log: (line) => void log.push(line) });
