/** Hearth's side of the request benchmark: the engine process as the extension starts it. Run `npm run build` first. */
import { readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { snapshotDirectory } from '../../engine/catalogue/files.ts';
import { type EngineProcess, startEngine } from '../shared/engineProcess.ts';
import { residentBytes } from '../shared/process.ts';
import { type ChatTurn, type EngineOptions, type Requester, timed } from './requester.ts';

const sampling = { temperature: 0 };
const storeMs = 60_000;

const startProcess = ({ directory }: EngineOptions): EngineProcess =>
  startEngine('dist/engine.mjs', { env: { HEARTH_HOME: directory } });

const load = (engine: EngineProcess, { model, contextTokens, threads }: EngineOptions): Promise<unknown> =>
  engine.requests.load({ model, backend: 'cpu', contextTokens, threads });

/** Times the load in a process that is already running. */
export async function timeLoadAlone(options: EngineOptions): Promise<number> {
  const engine = startProcess(options);
  try {
    await engine.requests.status();
    return await timed(() => load(engine, options));
  } finally {
    await engine.stop();
  }
}

export async function startHearth(options: EngineOptions): Promise<Requester> {
  const engine = startProcess(options);
  try {
    await load(engine, options);
    return requesterOf(engine, options);
  } catch (error) {
    await engine.stop();
    throw error;
  }
}

function requesterOf(engine: EngineProcess, { directory }: EngineOptions): Requester {
  let streams = 0;
  const listeners = new Map<string, () => void>();
  engine.on({ delta: ({ stream }) => listeners.get(stream)?.() });
  return {
    async next(prompt) {
      await engine.requests.generate({ stream: `${streams++}`, prompt, raw: true, maxTokens: 1, sampling });
    },
    async keystroke(prefix) {
      await engine.requests.complete({ prefix, suffix: '', maxTokens: 1, sampling });
    },
    async chat(turns: readonly ChatTurn[], maxTokens) {
      const stream = `${streams++}`;
      const start = performance.now();
      let firstMs: number | undefined;
      listeners.set(stream, () => {
        firstMs ??= performance.now() - start;
      });
      const asked = { stream, messages: [...turns], maxTokens, sampling };
      const { text, statistics } = await engine.requests.chat(asked);
      listeners.delete(stream);
      return {
        text,
        tokens: statistics.generatedTokens,
        firstMs: firstMs ?? Number.NaN,
        totalMs: performance.now() - start,
      };
    },
    // The engine also does this on its own after some idle seconds.
    async store() {
      const isStored = async () =>
        (await readdir(snapshotDirectory(directory)).catch(() => [])).some((name) => name.endsWith('.kv'));
      for (let waitedMs = 0; !(await isStored()); waitedMs += 100) {
        if (waitedMs > storeMs) throw new Error(`No snapshot was stored within ${storeMs / 1000} seconds.`);
        await sleep(100);
      }
    },
    async recall() {},
    async chatRuns() {
      const chat = (await engine.requests.status()).requests?.classes.chat;
      return { count: chat?.answerSteps ?? 0, recentMs: chat?.recentStepMs ?? [] };
    },
    residentBytes: () => residentBytes(engine.child.pid),
    stop: () => engine.stop(),
  };
}
