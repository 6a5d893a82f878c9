/** The remote endpoint against real servers: llama-server of llama.cpp, and `hearth serve`, each with the same model. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, type TestContext } from 'vitest';
import { chatParams, completeParams, type Delta, summariseParams } from '../../../../engine/protocol/engineProtocol.ts';
import type { ConnectParams } from '../../../../engine/protocol/models.ts';
import { RemoteEngine } from '../../../../engine/runtime/remote/remoteEngine.ts';
import { RemoteServer } from '../../../../engine/runtime/remote/server.ts';
import { temporaryFolder } from '../../temporaryFolder.ts';
import { bundle } from '../bundle.ts';
import { findLlamaServer, type Peer, startHearth, startLlamaServer, token } from './peers.ts';
import { writeTinyGguf } from './tinyGguf.ts';

const contextTokens = 4096;
let folder: string;
let cli: Awaited<ReturnType<typeof bundle>>;
const model = (name: 'fills' | 'plain') => join(folder, `${name}.gguf`);

beforeAll(async () => {
  folder = temporaryFolder();
  cli = await bundle('engine/cli.ts');
  writeTinyGguf(model('fills'), { fillsIn: true });
  writeTinyGguf(model('plain'), { fillsIn: false });
  await writeFile(join(folder, 'token'), token, { mode: 0o600 });
});
afterAll(async () => {
  await cli.remove();
});

const peers = {
  'llama-server': (name: 'fills' | 'plain') => {
    const program = findLlamaServer();
    return program === undefined ? undefined : startLlamaServer(program, model(name), contextTokens);
  },
  'hearth serve': (name: 'fills' | 'plain') =>
    startHearth(cli.path, model(name), join(folder, 'token'), join(folder, 'store')),
};
const absent = 'no llama-server: set HEARTH_LLAMA_SERVER or put it on the PATH';

describe.each(Object.entries(peers))('%s as a remote server', (_, start) => {
  let peer: Peer | undefined;
  const deltas: Delta[] = [];
  beforeAll(async () => {
    peer = await start('fills');
  });
  beforeEach(() => void deltas.splice(0));
  afterAll(() => peer?.stop());

  const connect = (context: TestContext, fields: Partial<ConnectParams> = {}): Promise<RemoteEngine> => {
    if (peer === undefined) context.skip(absent);
    const params = { url: peer.url, token, ...fields };
    return RemoteEngine.connect(params, {
      onDelta: (delta) => void deltas.push(delta),
      storeDirectory: join(folder, 'store'),
    });
  };
  const ask = (fields: object = {}) =>
    chatParams.parse({ stream: 's', messages: [{ role: 'user', content: 'Hi' }], maxTokens: 12, ...fields });
  const place = (fields: object = {}) =>
    completeParams.parse({ prefix: 'let a = ', suffix: ';\n', stream: 's', whole: true, maxTokens: 8, ...fields });

  it('lists its models with their context', async (context) => {
    const { card } = await connect(context);
    expect(card).toMatchObject({ name: 'fills.gguf', contextTokens, fillInTheMiddle: true, backend: 'remote' });
    expect(await new RemoteServer({ url: peer?.url ?? '', token }).models()).toHaveLength(1);
  });

  it('streams a chat, with its figures', async (context) => {
    const engine = await connect(context);
    const answer = await engine.chat(ask({ sampling: { temperature: 0 } }));
    expect(answer).toMatchObject({ finish: 'length', statistics: { generatedTokens: 12 } });
    expect(answer.text).toMatch(/^[!-~]{12}$/);
    expect(deltas.map(({ text }) => text).join('')).toBe(answer.text);
    expect(deltas.length).toBeGreaterThan(1);
    // `<|user|>Hi<|end|><|assistant|>`, with or without a token that begins the text.
    expect([5, 6]).toContain(answer.statistics.promptTokens);
  });

  it('samples by the given settings', async (context) => {
    const engine = await connect(context);
    const drawn = async (sampling: object) => (await engine.chat(ask({ sampling }))).text;
    expect(await drawn({ temperature: 0 })).toBe(await drawn({ temperature: 4, topK: 1 }));
    expect(await drawn({ temperature: 3, seed: 1 })).toBe(await drawn({ temperature: 3, seed: 1 }));
    expect(await drawn({ temperature: 3, seed: 1 })).not.toBe(await drawn({ temperature: 3, seed: 2 }));
  });

  it('stops on cancellation and takes the next question', async (context) => {
    const engine = await connect(context);
    const controller = new AbortController();
    const answering = engine.chat(ask({ maxTokens: 3000 }), controller.signal);
    await expect.poll(() => deltas.length).toBeGreaterThan(0);
    controller.abort();
    const answer = await answering;
    expect(answer.finish).toBe('cancelled');
    expect(answer.text.length).toBeGreaterThan(0);
    expect(answer.text.length).toBeLessThan(3000);
    expect((await engine.chat(ask())).finish).toBe('length');
  });

  it('fills in between prefix and suffix', async (context) => {
    const engine = await connect(context);
    const short = await engine.complete(place());
    const long = await engine.complete(place({ suffix: `;\n${'x'.repeat(100)}\n` }));
    expect(short).toMatchObject({ finish: 'length', statistics: { generatedTokens: 8 } });
    // The first of the eight is the prefix's last token, sampled again.
    expect(short.text).toMatch(/^[!-~]{7}$/);
    expect(long.statistics.promptTokens - short.statistics.promptTokens).toBe(101);
  });

  it('uses related code of other files for a completion', async (context) => {
    const engine = await connect(context);
    const alone = await engine.complete(place());
    const snippets = [{ path: 'b.ts', text: 'y'.repeat(100) }];
    const related = await engine.complete(place({ snippets }));
    expect(related.statistics.promptTokens - alone.statistics.promptTokens).toBeGreaterThanOrEqual(100);
  });

  it('completes no further than the line of the cursor', async (context) => {
    const engine = await connect(context);
    const { text } = await engine.complete(place({ whole: false }));
    expect(text).not.toContain('\n');
    const controller = new AbortController();
    controller.abort();
    await expect(engine.complete(place(), controller.signal)).rejects.toMatchObject({ code: 'cancelled' });
  });

  it('summarises, part by part where the file is longer than its context', async (context) => {
    const engine = await connect(context);
    const text = 'a line of the file\n'.repeat(100);
    const summary = await engine.summarise(summariseParams.parse({ stream: 's', path: 'a.ts', text, maxTokens: 8 }));
    expect(summary).toMatchObject({ parts: 1, finish: 'length' });
    expect(summary.text).toMatch(/^[!-~]{8}$/);
  });

  it('drops the beginning of a conversation that is too long', async (context) => {
    const engine = await connect(context);
    const turn = (role: string, content: string) => ({ role, content });
    const messages = [turn('user', 'x'.repeat(9000)), turn('assistant', 'y'), turn('user', 'z')];
    const { finish, statistics } = await engine.chat(ask({ messages }));
    expect(finish).toBe('length');
    expect(statistics.promptTokens).toBeLessThan(10);
    const endless = engine.chat(ask({ messages: [turn('user', 'x'.repeat(9000))] }));
    await expect(endless).rejects.toMatchObject({ code: 'context-overflow' });
  });

  it('says what is wrong with an address, a token or a name', async (context) => {
    await expect(connect(context, { token: 'wrong' })).rejects.toThrow('Check the token.');
    await expect(connect(context, { model: 'none' })).rejects.toMatchObject({ code: 'not-found' });
    await expect(connect(context, { url: `${peer?.url}/nowhere` })).rejects.toMatchObject({ code: 'not-found' });
  });

  it('is distinguished from one without fill-in-the-middle, which continues the prefix', async (context) => {
    const plain = (await start('plain')) ?? context.skip(absent);
    try {
      const engine = await connect(context, { url: plain.url });
      expect(engine.card.fillInTheMiddle).toBe(false);
      const short = await engine.complete(place());
      const long = await engine.complete(place({ suffix: 'x'.repeat(100) }));
      expect(short.text).toMatch(/^[!-~]{8}$/);
      expect(long.statistics.promptTokens).toBe(short.statistics.promptTokens);
    } finally {
      await plain.stop();
    }
  });

  it('that dies during an answer ends it with an error', async (context) => {
    const mortal = (await start('fills')) ?? context.skip(absent);
    const engine = await connect(context, { url: mortal.url });
    const answering = engine.chat(ask({ maxTokens: 3000 }));
    answering.catch(() => {});
    await expect.poll(() => deltas.length).toBeGreaterThan(0);
    await mortal.stop();
    await expect(answering).rejects.toMatchObject({ code: 'unavailable' });
    await expect(engine.chat(ask())).rejects.toThrow('cannot be reached');
  });
});
