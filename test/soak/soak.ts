/**
 * Many mixed requests to one engine, a fifth cancelled, one in twenty failing: each must end once, as it should, and
 * memory must not grow. The model is tiny and writes nonsense; everything around it is what users run.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HearthError } from '../../engine/errors.ts';
import { seededRandom } from '../../engine/generation/random.ts';
import {
  chatParams,
  completeParams,
  generateParams,
  loadParams,
  summariseParams,
  warmParams,
} from '../../engine/server/protocol.ts';
import { Engine } from '../../engine/server/service.ts';
import { makeTinyModel } from '../unit/server/tinyModel.ts';

export interface SoakOptions {
  readonly requests: number;
  readonly seed: number;
  readonly backend: 'onnx' | 'reference';
  readonly onSample?: (sample: MemorySample) => void;
}

export interface MemorySample {
  readonly requests: number;
  readonly residentBytes: number;
  readonly heapBytes: number;
  readonly cacheBytes: number;
}

export interface SoakResult {
  readonly finished: number;
  readonly cancelled: number;
  /** As they should: their prompts are too long. */
  readonly failed: number;
  readonly unexpected: readonly string[];
  readonly samples: readonly MemorySample[];
  /** Requests that the engine still holds at the end. */
  readonly pending: number;
  readonly tookMs: number;
}

const inFlight = 8;
const sampleEvery = 500;
const contextTokens = 512;

export async function soak({ requests, seed, backend, onSample }: SoakOptions): Promise<SoakResult> {
  const tiny = await makeTinyModel();
  const storeDirectory = await mkdtemp(join(tmpdir(), 'hearth-soak-'));
  const engine = new Engine({ storeDirectory, onDelta: () => {}, onProgress: () => {} });
  try {
    await engine.load(loadParams.parse({ model: tiny.path, backend, contextTokens, threads: 1 }));
    const startMs = performance.now();
    const load = new Load(engine, seed, requests, onSample);
    await Promise.all(Array.from({ length: inFlight }, () => load.work()));
    const tookMs = performance.now() - startMs;
    return { ...load.counts, samples: load.samples, pending: engine.status().queuedRequests, tookMs };
  } finally {
    await engine.unload();
    await tiny.remove();
    await rm(storeDirectory, { recursive: true, force: true });
  }
}

class Load {
  readonly counts = { finished: 0, cancelled: 0, failed: 0, unexpected: [] as string[] };
  readonly samples: MemorySample[] = [];
  readonly #engine: Engine;
  readonly #random: () => number;
  readonly #requests: number;
  readonly #onSample: SoakOptions['onSample'];
  #begun = 0;
  #ended = 0;

  constructor(engine: Engine, seed: number, requests: number, onSample: SoakOptions['onSample']) {
    this.#engine = engine;
    this.#random = seededRandom(seed);
    this.#requests = requests;
    this.#onSample = onSample;
  }

  async work(): Promise<void> {
    while (this.#begun < this.#requests) {
      const number = this.#begun++;
      await this.#one(number);
      this.#ended++;
      if (this.#ended % sampleEvery === 0) this.#sample();
    }
  }

  async #one(number: number): Promise<void> {
    const fails = this.#random() < 0.05;
    const cancels = !fails && this.#random() < 0.2 / 0.95;
    const controller = new AbortController();
    const timer = cancels ? setTimeout(() => controller.abort(), this.#random() * 12) : undefined;
    try {
      const finish = await (fails ? this.#tooLong(number) : this.#ask(number, controller.signal));
      if (fails) this.counts.unexpected.push(`request ${number} did not fail`);
      else if (finish === 'cancelled') this.counts.cancelled++;
      else this.counts.finished++;
    } catch (error) {
      const code = error instanceof HearthError ? error.code : 'internal';
      if (fails && code === 'context-overflow') this.counts.failed++;
      else if (cancels && code === 'cancelled') this.counts.cancelled++;
      else this.counts.unexpected.push(`request ${number}: ${error}`);
    } finally {
      clearTimeout(timer);
    }
  }

  async #ask(number: number, signal: AbortSignal): Promise<string> {
    const stream = `soak ${number}`;
    const kind = this.#random();
    const text = this.#text();
    const maxTokens = 1 + Math.floor(this.#random() * 24);
    const sampling = { seed: number };
    if (kind < 0.4) {
      const place = { prefix: text, suffix: '\n', maxTokens, sampling };
      return (await this.#engine.complete(completeParams.parse(place), signal)).finish;
    }
    if (kind < 0.7) {
      const messages = [{ role: 'user', content: text }];
      return (await this.#engine.chat(chatParams.parse({ stream, messages, maxTokens, sampling }), signal)).finish;
    }
    if (kind < 0.85) {
      const raw = { stream, prompt: text, raw: true, maxTokens, sampling };
      return (await this.#engine.generate(generateParams.parse(raw), signal)).finish;
    }
    if (kind < 0.97) {
      const ahead = { kind: 'completion', prefix: text, suffix: '\n' };
      return (await this.#engine.warm(warmParams.parse(ahead), signal)).finish;
    }
    const file = { stream, path: 'file.py', text: text.repeat(3), languageId: 'python', maxTokens };
    return (await this.#engine.summarise(summariseParams.parse(file), signal)).finish;
  }

  async #tooLong(number: number): Promise<string> {
    const messages = [{ role: 'user', content: 'too long '.repeat(contextTokens) }];
    return (await this.#engine.chat(chatParams.parse({ stream: `soak ${number}`, messages }))).finish;
  }

  /** The beginning of one of a few documents, so that the cache is of use. */
  #text(): string {
    const document = Math.floor(this.#random() * 12);
    const lines = 1 + Math.floor(this.#random() * 9);
    return Array.from({ length: lines }, (_, line) => `value${document} = other(${line})\n`).join('');
  }

  #sample(): void {
    globalThis.gc?.();
    const { rss, heapUsed } = process.memoryUsage();
    const { cacheBytes } = this.#engine.status();
    const sample = { requests: this.#ended, residentBytes: rss, heapBytes: heapUsed, cacheBytes };
    this.samples.push(sample);
    this.#onSample?.(sample);
  }
}
