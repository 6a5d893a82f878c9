/** An embedding model behind the engine and the server, against the vectors that Hugging Face transformers makes of it. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type HttpServer, startHttpServer } from '../../../engine/http/server.ts';
import { chatParams, type Delta, embedParams } from '../../../engine/protocol/engineProtocol.ts';
import { loadParams, modelCard } from '../../../engine/protocol/models.ts';
import { Streams } from '../../../engine/protocol/rpc.ts';
import { Engine } from '../../../engine/runtime/service.ts';
import { type EmbeddingVector, embeddingVectors, makeEmbeddingModel } from '../embeddingModel.ts';
import { largestDifference } from '../goldens.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { token } from './support.ts';

let store: string;
let made: Awaited<ReturnType<typeof makeEmbeddingModel>>;
let vectors: readonly EmbeddingVector[];

beforeAll(async () => {
  store = temporaryFolder();
  made = await makeEmbeddingModel({ bareNames: true });
  vectors = await embeddingVectors();
});
afterAll(() => made.remove());

/** A value of a vector of 128, whose standard deviation is 0.09: the bound of float32 logits in these units. */
const bound = 1e-4 / Math.sqrt(128);

describe.each(['reference', 'onnx'] as const)('an embedding model on %s', (backend) => {
  let engine: Engine;
  let server: HttpServer;
  let client: OpenAI;
  let model: string;

  beforeAll(async () => {
    const streams = new Streams<(delta: Delta) => void>();
    engine = new Engine({ storeDirectory: store, onDelta: () => {}, onProgress: () => {} });
    await engine.load(loadParams.parse({ model: made.path, backend, contextTokens: 256, cachePrecision: 'f32' }));
    server = await startHttpServer({ engine, streams, port: 0, token, log: (line) => console.error(line) });
    client = new OpenAI({ baseURL: `${server.address}/v1`, apiKey: token, maxRetries: 0 });
    model = (await client.models.list()).data[0]?.id ?? '';
  });
  afterAll(async () => {
    await server.close();
    await engine.unload();
  });

  const expectVector = (actual: readonly number[] | undefined, wanted: readonly number[] | undefined) => {
    expect(actual).toHaveLength(wanted?.length ?? -1);
    const difference = largestDifference(Float32Array.from(actual ?? []), Float32Array.from(wanted ?? []));
    expect(difference).toBeLessThan(bound);
  };

  it('says that it is an embedding model', () => {
    const card = modelCard.parse(engine.status().model);
    expect(card).toMatchObject({ embeddingDimensions: 128, chat: false, fillInTheMiddle: false, toolCalling: false });
  });

  it('gives the vectors of Hugging Face for texts and for ids, whatever came before', async () => {
    const input = vectors.map(({ text }) => text);
    const { vectors: all, promptTokens } = await engine.embed(embedParams.parse({ inputs: input }));
    for (const [i, { vector }] of vectors.entries()) expectVector([...(all[i] ?? [])], vector);
    expect(promptTokens).toBe(vectors.reduce((sum, { ids }) => sum + ids.length, 0));
    const whole = vectors.map(({ ids }) => [...ids]);
    const cut = vectors.filter(({ ids }) => ids.length > 1).map(({ ids }) => ids.slice(0, -1));
    const asked = await engine.embed(embedParams.parse({ inputs: [...whole, ...cut].reverse() }));
    const wanted = [...vectors, ...vectors.filter(({ ids }) => ids.length > 1)].reverse();
    for (const [i, { vector }] of wanted.entries()) expectVector([...(asked.vectors[i] ?? [])], vector);
  });

  it('gives them to the official client', async () => {
    const texts = vectors.filter(({ text }) => text !== '');
    const { data, usage } = await client.embeddings.create({ model, input: texts.map(({ text }) => text) });
    for (const [i, { vector }] of texts.entries()) expectVector(data[i]?.embedding, vector);
    expect(usage.total_tokens).toBe(texts.reduce((sum, { ids }) => sum + ids.length, 0));
  });

  it('gives a shortened unit vector for fewer dimensions, and refuses more than it has', async () => {
    const { text = '', vector = [] } = vectors[0] ?? {};
    const { data } = await client.embeddings.create({ model, input: text, dimensions: 32 });
    const length = Math.hypot(...vector.slice(0, 32));
    expectVector(
      data[0]?.embedding,
      vector.slice(0, 32).map((value) => value / length),
    );
    await expect(client.embeddings.create({ model, input: text, dimensions: 129 })).rejects.toMatchObject({
      status: 400,
      message: expect.stringContaining('128'),
    });
  });

  it('refuses a text that is longer than its context, and invalid ids', async () => {
    const long = client.embeddings.create({ model, input: 'long '.repeat(100) });
    await expect(long).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' });
    await expect(client.embeddings.create({ model, input: [9999] })).rejects.toMatchObject({ status: 400 });
  });

  it('neither chats nor completes, and says why', async () => {
    const messages = [{ role: 'user' as const, content: 'hi' }];
    await expect(engine.chat(chatParams.parse({ stream: 's', messages }))).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('embedding model'),
    });
    await expect(client.completions.create({ model, prompt: 'a' })).rejects.toMatchObject({ status: 400 });
  });

  it('stops when the client disconnects', async () => {
    const controller = new AbortController();
    controller.abort();
    const asked = engine.embed(embedParams.parse({ inputs: ['a', 'b'] }), controller.signal);
    await expect(asked).rejects.toMatchObject({ code: 'cancelled' });
  });
});

describe('a model that chats', () => {
  it('refuses to give vectors, with an error', async () => {
    const engine = new Engine({ storeDirectory: store, onDelta: () => {}, onProgress: () => {} });
    await expect(engine.embed(embedParams.parse({ inputs: ['a'] }))).rejects.toMatchObject({ code: 'unavailable' });
  });
});
