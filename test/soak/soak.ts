/**
 * Sends many mixed requests to one engine: a fifth are cancelled, and one in twenty fails. Each must end exactly once with the
 * expected result, and memory must not grow. Cancellation depends on progress instead of time, so it is the same on every
 * machine. The model is tiny and its output is meaningless; everything else is what users run.
 */
import { EventEmitter } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HearthError } from '../../engine/errors.ts';
import {
  chatParams,
  completeParams,
  generateParams,
  loadParams,
  summariseParams,
  warmParams,
} from '../../engine/protocol/engineProtocol.ts';
import { Engine } from '../../engine/runtime/service.ts';
import { seededRandom } from '../../engine/sampling/random.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';

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

/** When to cancel: in the queue, after some engine steps of prefill, or after some deltas of decode. */
const stages = ['waiting', 'prefill', 'decode'] as const;
type Stage = (typeof stages)[number];

interface Cancellation {
  readonly stage: Stage;
  /** Number of steps or deltas. */
  readonly after: number;
  readonly controller: AbortController;
}

export interface SoakResult {
  readonly finished: number;
  /** Cancelled requests by stage. */
  readonly cancelled: Readonly<Record<Stage, number>>;
  /** Expected failures: prompts that are too long. */
  readonly failed: number;
  readonly unexpected: readonly string[];
  readonly samples: readonly MemorySample[];
  /** Requests still pending in the engine at the end. */
  readonly pending: number;
  readonly tookMs: number;
}

const inFlight = 8;
const sampleEvery = 500;
const contextTokens = 512;

export async function soak(options: SoakOptions): Promise<SoakResult> {
  const tiny = await makeTinyModel();
  const storeDirectory = await mkdtemp(join(tmpdir(), 'hearth-soak-'));
  const pieces = new EventEmitter();
  const onDelta = ({ stream }: { readonly stream: string }) => pieces.emit(stream);
  const engine = new Engine({ storeDirectory, onDelta, onProgress: () => {} });
  try {
    await engine.load(loadParams.parse({ model: tiny.path, backend: options.backend, contextTokens, threads: 1 }));
    const startMs = performance.now();
    const load = new Load(engine, pieces, options);
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
  readonly counts = {
    finished: 0,
    cancelled: { waiting: 0, prefill: 0, decode: 0 },
    failed: 0,
    unexpected: [] as string[],
  };
  readonly samples: MemorySample[] = [];
  readonly #engine: Engine;
  readonly #pieces: EventEmitter;
  readonly #random: () => number;
  readonly #requests: number;
  readonly #onSample: SoakOptions['onSample'];
  #begun = 0;
  #ended = 0;
  /** Planned cancellations of requests that had already ended. */
  #owed = 0;

  constructor(engine: Engine, pieces: EventEmitter, { seed, requests, onSample }: SoakOptions) {
    this.#engine = engine;
    this.#pieces = pieces;
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
    const cancellation = fails ? undefined : this.#cancellation();
    try {
      const finish = await (fails ? this.#tooLong(number) : this.#ask(number, cancellation));
      if (fails) this.counts.unexpected.push(`request ${number} did not fail`);
      else this.#count(finish, cancellation);
    } catch (error) {
      const code = error instanceof HearthError ? error.code : 'internal';
      if (fails && code === 'context-overflow') this.counts.failed++;
      else if (cancellation && code === 'cancelled') this.#count(code, cancellation);
      else this.counts.unexpected.push(`request ${number}: ${error}`);
    }
  }

  /** Chooses a fifth of the requests, plus replacements for those that ended before their cancellation. */
  #cancellation(): Cancellation | undefined {
    const [chance, stage, share] = [this.#random(), this.#random(), this.#random()];
    if (chance >= 0.2 / 0.95 && this.#owed === 0) return undefined;
    if (chance >= 0.2 / 0.95) this.#owed--;
    const controller = new AbortController();
    if (stage < 0.25) return { stage: 'waiting', after: 0, controller };
    if (stage < 0.5) return { stage: 'prefill', after: 1 + Math.floor(share * 4), controller };
    return { stage: 'decode', after: 1 + Math.floor(share * 6), controller };
  }

  #count(finish: string, cancellation: Cancellation | undefined): void {
    if (finish !== 'cancelled') {
      this.counts.finished++;
      if (cancellation) this.#owed++;
    } else if (cancellation) this.counts.cancelled[cancellation.stage]++;
    else this.counts.unexpected.push('a request ended as cancelled without a cancellation');
  }

  async #ask(number: number, cancellation: Cancellation | undefined): Promise<string> {
    const stream = `soak ${number}`;
    if (!cancellation) return this.#submit(number, stream, {});
    const { stage, after, controller } = cancellation;
    let [pieces, isDone] = [0, false];
    if (stage === 'decode') {
      this.#pieces.on(stream, () => {
        if (++pieces === after) controller.abort();
      });
    }
    const answer = this.#submit(number, stream, { stage, leastTokens: after, signal: controller.signal }).finally(
      () => {
        isDone = true;
        this.#pieces.removeAllListeners(stream);
      },
    );
    if (stage === 'waiting') controller.abort();
    const steps = (): number => this.#engine.status().requests?.steps ?? 0;
    const last = steps() + after;
    while (stage === 'prefill' && steps() < last && !isDone) await sleep(1);
    if (stage === 'prefill') controller.abort();
    return answer;
  }

  /** @param stage stage of its cancellation. The request is long enough to reach it and not to finish before. */
  async #submit(
    number: number,
    stream: string,
    {
      stage,
      leastTokens = 0,
      signal,
    }: { readonly stage?: Stage; readonly leastTokens?: number; readonly signal?: AbortSignal },
  ): Promise<string> {
    const kind = this.#random() * (stage === 'decode' ? 0.85 : 1);
    const text = stage === 'prefill' ? `# ${number}\n`.repeat(60) : this.#text();
    const maxTokens = 1 + 4 * leastTokens + Math.floor(this.#random() * 24);
    const sampling = { seed: number };
    if (kind < 0.4) {
      const place = {
        prefix: text,
        suffix: '\n',
        maxTokens,
        sampling,
        ...(stage === 'decode' && { stream, whole: true }),
      };
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

  /** The start of one of a few documents, so that the prefix cache has hits. */
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
