/**
 * Seam: from a request on the protocol (a chat in its prompt format with its plan, a completion with its healing) to the sampler on the GPU.
 *
 * Fault it would have found: tokens were never sampled on the GPU in a chat or completion, since every chat has a plan and every completion
 * heals its first token; the benchmark called the device's sampler itself, and saw nothing of it.
 *
 * The same requests with a bias of 0 for one token are sampled on the host, from the same distribution and the same random numbers.
 */
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createMessageConnection, StreamMessageReader, StreamMessageWriter } from 'vscode-jsonrpc/node';
import { LocalServer } from '../../engine/http/server.ts';
import { type Delta, type EngineRequests, engineRequests } from '../../engine/protocol/engineProtocol.ts';
import { type Client, proxy, Streams } from '../../engine/protocol/rpc.ts';
import { Switchboard, serveEngine } from '../../engine/runtime/serveEngine.ts';
import { Engine } from '../../engine/runtime/service.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';
import { askedGoldens, onLavapipe } from './adapters.ts';

/** The two ends of the protocol, in one process: a software adapter's driver cannot be handed to a child. */
function connect(engine: Engine): { readonly requests: Client<EngineRequests, AbortSignal>; close(): void } {
  const [there, back] = [new PassThrough(), new PassThrough()];
  const served = createMessageConnection(new StreamMessageReader(there), new StreamMessageWriter(back));
  const client = createMessageConnection(new StreamMessageReader(back), new StreamMessageWriter(there));
  const board = new Switchboard(engine, { onDelta: () => {}, onProgress: () => {} });
  serveEngine(served, board, new LocalServer(engine, new Streams<(delta: Delta) => void>(), () => {}), () => {});
  for (const end of [served, client]) end.listen();
  return {
    requests: proxy(
      engineRequests,
      (method, params) => client.sendRequest(method, params),
      (method, problem) => new Error(`Invalid answer to '${method}': ${problem}`),
    ),
    close() {
      client.dispose();
      served.dispose();
    },
  };
}

const onHost = { logitBias: { '0': 0 } };
const tools = [{ name: 'look', parameters: { type: 'object', properties: { path: { type: 'string' } } } }];
type Chat = readonly [name: string, fields: object];
const withMostRules: readonly Chat[] = [
  ['a chat that may call tools', { tools }],
  ['a chat that thinks up to a limit', { thinking: 'on', thinkingTokens: 9 }],
];
const others: readonly Chat[] = [
  ['a chat', {}],
  ['a chat that is shown tools and may call none', { tools, toolChoice: 'none' }],
];
/** A software GPU takes half a minute for each (all: npm run proof:gpu). */
const chats = askedGoldens === 'all' ? [...withMostRules, ...others] : withMostRules;
const warm = { temperature: 0.9, topP: 0.95, topK: 40, repetitionPenalty: 1.1 };

await onLavapipe(() => {
  describe('requests of users on the GPU', requestsOfUsers);
});

function requestsOfUsers(): void {
  let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
  let engine: Engine;
  let link: ReturnType<typeof connect>;

  beforeAll(async () => {
    tiny = await makeTinyModel();
    engine = new Engine({ storeDirectory: `${tiny.path}/store`, onDelta: () => {}, onProgress: () => {} });
    link = connect(engine);
    await link.requests.load({ model: tiny.path, backend: 'webgpu', contextTokens: 512 });
  });
  afterAll(async () => {
    await engine?.unload();
    link?.close();
    await tiny?.remove();
  });

  /** Tokens written, and how many of them the device sampled. */
  async function counted(requestClass: 'chat' | 'keystroke') {
    const { requests } = await link.requests.status();
    if (!requests) throw new Error('a model is loaded');
    return requests.classes[requestClass];
  }

  async function chat(fields: object, sampling: object): Promise<{ readonly text: string; readonly onDevice: number }> {
    const before = await counted('chat');
    const asked = { stream: 's', messages: [{ role: 'user' as const, content: 'tell me' }], maxTokens: 24 };
    const { text, thinking } = await link.requests.chat({ ...asked, ...fields, sampling });
    const after = await counted('chat');
    return { text: `${thinking}|${text}`, onDevice: after.deviceTokens - before.deviceTokens };
  }

  it.each(chats)('%s is sampled on the GPU, with the same text as on the host', async (_, fields) => {
    let onDevice = 0;
    for (const sampling of [
      { ...warm, seed: 1 },
      { temperature: 0.8, seed: 2 },
    ]) {
      const device = await chat(fields, sampling);
      const host = await chat(fields, { ...sampling, ...onHost });
      expect(device.text).toBe(host.text);
      expect(host.onDevice).toBe(0);
      onDevice += device.onDevice;
    }
    // Two answers of up to 24 tokens, each of whose first comes from the prompt's logits; draft tokens are verified by logits, too.
    expect(onDevice).toBeGreaterThan(16);
  });

  it('a completion is sampled on the GPU after its healed first token, with the same text as on the host', async () => {
    const complete = async (sampling: object) => {
      const before = await counted('keystroke');
      const asked = { prefix: 'const answer = function the', suffix: '', maxTokens: 32, whole: true, sampling };
      const { text } = await link.requests.complete(asked);
      const after = await counted('keystroke');
      return {
        text,
        onDevice: after.deviceTokens - before.deviceTokens,
        written: after.generatedTokens - before.generatedTokens,
      };
    };
    let [onDevice, written] = [0, 0];
    for (const seed of [1, 2]) {
      const device = await complete({ temperature: 0.8, seed });
      const host = await complete({ temperature: 0.8, seed, ...onHost });
      expect(device.text).toBe(host.text);
      expect(host.onDevice).toBe(0);
      onDevice += device.onDevice;
      written += device.written;
    }
    expect(onDevice).toBeGreaterThan(written / 2);
  });
}
