/** Hearth's side of the benchmark of requests: the engine process as the extension starts it (`npm run build` first). */
import { readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { startEngine } from '../../engine/server/client.ts';
import { messages } from '../../engine/server/protocol.ts';
import { snapshotDirectory } from '../../engine/store/paths.ts';
import { residentBytes } from '../shared/residentBytes.ts';
import type { ChatTurn, EngineOptions, Requester } from './requests.ts';

const sampling = { temperature: 0 };

export async function startHearth({ model, contextTokens, threads, directory }: EngineOptions): Promise<Requester> {
  const engine = startEngine('dist/engine.mjs', { env: { HEARTH_HOME: directory } });
  await engine.request(messages.load, { model, backend: 'onnx', contextTokens, threads });
  let streams = 0;
  const listeners = new Map<string, () => void>();
  engine.on(messages.delta, ({ stream }) => listeners.get(stream)?.());
  return {
    async next(prompt) {
      await engine.request(messages.generate, { stream: `${streams++}`, prompt, raw: true, maxTokens: 1, sampling });
    },
    async keystroke(prefix) {
      await engine.request(messages.complete, { prefix, suffix: '', maxTokens: 1, sampling });
    },
    async chat(turns: readonly ChatTurn[], maxTokens) {
      const stream = `${streams++}`;
      const start = performance.now();
      let firstMs: number | undefined;
      listeners.set(stream, () => {
        firstMs ??= performance.now() - start;
      });
      const { text } = await engine.request(messages.chat, { stream, messages: [...turns], maxTokens, sampling });
      listeners.delete(stream);
      return { text, firstMs: firstMs ?? Number.NaN, totalMs: performance.now() - start };
    },
    // It does so by itself when nothing was asked for some seconds.
    async store() {
      const isStored = async () =>
        (await readdir(snapshotDirectory(directory)).catch(() => [])).some((name) => name.endsWith('.kv'));
      for (let waitedMs = 0; !(await isStored()); waitedMs += 100) {
        if (waitedMs > 60_000) throw new Error('Nothing was stored within a minute.');
        await sleep(100);
      }
    },
    async recall() {},
    residentBytes: () => residentBytes(engine.child.pid),
    stop: () => engine.stop(),
  };
}
