/**
 * Many mixed requests to one engine, a fifth cancelled, one in twenty failing: each must end once, as it should, and
 * memory must not grow. When a request is cancelled is a matter of its progress, not of time, so that it is on every machine.
 * The model is tiny and writes nonsense; everything around it is what users run.
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

/** Before anything happens; when the engine has made some steps; when the request has written some pieces. */
const stages = ['waiting', 'reading', 'writing'] as const;
type Stage = (typeof stages)[number];

interface Cancellation {
  readonly stage: Stage;
  /** Steps or pieces. */
  readonly after: number;
  readonly controller: AbortController;
}

export interface SoakResult {
  readonly finished: number;
  /** By what the request had reached. */
  readonly cancelled: Readonly<Record<Stage, number>>;
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
    cancelled: { waiting: 0, reading: 0, writing: 0 },
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
  /** Requests that were to be cancelled and had ended before. */
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

  /** For a fifth of the requests; an ending that came first is made up for. */
  #cancellation(): Cancellation | undefined {
    const [drawn, stage, share] = [this.#random(), this.#random(), this.#random()];
    if (drawn >= 0.2 / 0.95 && this.#owed === 0) return undefined;
    if (drawn >= 0.2 / 0.95) this.#owed--;
    const controller = new AbortController();
    if (stage < 0.25) return { stage: 'waiting', after: 0, controller };
    if (stage < 0.5) return { stage: 'reading', after: 1 + Math.floor(share * 4), controller };
    return { stage: 'writing', after: 1 + Math.floor(share * 6), controller };
  }

  #count(finish: string, cancellation: Cancellation | undefined): void {
    if (finish !== 'cancelled') {
      this.counts.finished++;
      if (cancellation) this.#owed++;
    } else if (cancellation) this.counts.cancelled[cancellation.stage]++;
    else this.counts.unexpected.push('a request was cancelled by nobody');
  }

  async #ask(number: number, cancellation: Cancellation | undefined): Promise<string> {
    const stream = `soak ${number}`;
    if (!cancellation) return this.#submit(number, stream, {});
    const { stage, after, controller } = cancellation;
    let [pieces, isDone] = [0, false];
    if (stage === 'writing') {
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
    while (stage === 'reading' && steps() < last && !isDone) await sleep(1);
    if (stage === 'reading') controller.abort();
    return answer;
  }

  /** @param stage at which it is cancelled: long enough for it to get there, and for something to be left. */
  async #submit(
    number: number,
    stream: string,
    {
      stage,
      leastTokens = 0,
      signal,
    }: { readonly stage?: Stage; readonly leastTokens?: number; readonly signal?: AbortSignal },
  ): Promise<string> {
    const kind = this.#random() * (stage === 'writing' ? 0.85 : 1);
    const text = stage === 'reading' ? `# ${number}\n`.repeat(60) : this.#text();
    const maxTokens = 1 + 4 * leastTokens + Math.floor(this.#random() * 24);
    const sampling = { seed: number };
    if (kind < 0.4) {
      const place = {
        prefix: text,
        suffix: '\n',
        maxTokens,
        sampling,
        ...(stage === 'writing' && { stream, whole: true }),
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
