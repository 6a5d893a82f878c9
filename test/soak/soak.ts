/**
 * Sends many mixed requests to one engine with two models, one that chats and one that completes, and to a remote server, which
 * is killed again and again: a fifth are cancelled, and one in twenty fails. Each must end exactly once with the expected
 * result, memory must not grow, and completions must stay as quick as at first. Cancellation depends on progress instead of time, so it is the same on every
 * machine. The model is tiny and its output is meaningless; everything else is what users run.
 */
import { EventEmitter } from 'node:events';
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HearthError } from '../../engine/errors.ts';
import {
  chatParams,
  completeParams,
  generateParams,
  summariseParams,
  warmParams,
} from '../../engine/protocol/engineProtocol.ts';
import { loadParams } from '../../engine/protocol/models.ts';
import type { RemoteEngine } from '../../engine/runtime/remote/remoteEngine.ts';
import { Engine } from '../../engine/runtime/service.ts';
import { seededRandom } from '../../engine/sampling/random.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';
import { KilledServer } from './remote.ts';

export interface SoakOptions {
  readonly requests: number;
  readonly seed: number;
  readonly backend: 'onnx' | 'reference';
  /** How often the remote server is killed. */
  readonly kills: number;
  readonly onSample?: (sample: MemorySample) => void;
}

export interface MemorySample {
  readonly requests: number;
  readonly residentBytes: number;
  readonly heapBytes: number;
  readonly cacheBytes: number;
  /** Open file descriptors and running threads; 0 where the system does not list them. */
  readonly handles: number;
  readonly threads: number;
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
  /** Of all, those sent to the remote server, and those that a kill of the server ended with one sentence. */
  readonly remote: number;
  readonly broken: number;
  readonly kills: number;
  /** Milliseconds of local completions that finished, in order. */
  readonly completionMs: readonly number[];
  /** From cancellations to the ends of their requests. */
  readonly cancelMs: readonly number[];
  readonly unexpected: readonly string[];
  readonly samples: readonly MemorySample[];
  /** Requests still pending in the engine at the end. */
  readonly pending: number;
  readonly tookMs: number;
}

interface Asked {
  readonly isRemote: boolean;
  readonly stage?: Stage;
  readonly leastTokens?: number;
  readonly signal?: AbortSignal;
}

const inFlight = 8;
const sampleEvery = 500;
const contextTokens = 512;

export async function soak(options: SoakOptions): Promise<SoakResult> {
  const [chat, completing] = await Promise.all([makeTinyModel(), makeTinyModel()]);
  const storeDirectory = await mkdtemp(join(tmpdir(), 'hearth-soak-'));
  const pieces = new EventEmitter();
  const onDelta = ({ stream }: { readonly stream: string }) => pieces.emit(stream);
  const engine = new Engine({ storeDirectory, onDelta, onProgress: () => {} });
  const server = await KilledServer.start(storeDirectory, chat.path);
  try {
    const loaded = { backend: options.backend, contextTokens, threads: 1 };
    await engine.load(loadParams.parse({ ...loaded, model: completing.path, role: 'completion' }));
    await engine.load(loadParams.parse({ ...loaded, model: chat.path }));
    const remote = await server.connect({ onDelta, storeDirectory });
    const startMs = performance.now();
    const load = new Load({ engine, server, remote, pieces }, options);
    await Promise.all(Array.from({ length: inFlight }, () => load.work()));
    const tookMs = performance.now() - startMs;
    const { counts, samples, completionMs, cancelMs } = load;
    const { queuedRequests: pending } = engine.status();
    return { ...counts, kills: server.kills, samples, completionMs, cancelMs, pending, tookMs };
  } finally {
    await server.stop();
    await engine.unload();
    await Promise.all([chat.remove(), completing.remove()]);
    await rm(storeDirectory, { recursive: true, force: true });
  }
}

interface Targets {
  readonly engine: Engine;
  readonly server: KilledServer;
  readonly remote: RemoteEngine;
  readonly pieces: EventEmitter;
}

class Load {
  readonly counts = {
    finished: 0,
    remote: 0,
    broken: 0,
    cancelled: { waiting: 0, prefill: 0, decode: 0 },
    failed: 0,
    unexpected: [] as string[],
  };
  readonly samples: MemorySample[] = [];
  readonly completionMs: number[] = [];
  readonly cancelMs: number[] = [];
  readonly #engine: Engine;
  readonly #server: KilledServer;
  readonly #remote: RemoteEngine;
  readonly #pieces: EventEmitter;
  readonly #random: () => number;
  readonly #requests: number;
  readonly #kills: number;
  readonly #onSample: SoakOptions['onSample'];
  #begun = 0;
  #ended = 0;
  /** Planned cancellations of requests that had already ended. */
  #owed = 0;

  constructor({ engine, server, remote, pieces }: Targets, { seed, requests, kills, onSample }: SoakOptions) {
    this.#engine = engine;
    this.#server = server;
    this.#remote = remote;
    this.#kills = kills;
    this.#pieces = pieces;
    this.#random = seededRandom(seed);
    this.#requests = requests;
    this.#onSample = onSample;
  }

  async work(): Promise<void> {
    while (this.#begun < this.#requests) {
      const number = this.#begun++;
      if (number >= ((this.#server.kills + 1) * this.#requests) / (this.#kills + 1)) this.#server.kill();
      await this.#one(number);
      this.#ended++;
      if (this.#ended % sampleEvery === 0) this.#sample();
    }
  }

  async #one(number: number): Promise<void> {
    const fails = this.#random() < 0.05;
    const isRemote = !fails && this.#random() < 0.2;
    const cancellation = fails ? undefined : this.#cancellation(isRemote);
    if (isRemote) await this.#server.up();
    const { kills } = this.#server;
    if (isRemote) this.counts.remote++;
    try {
      const finish = await (fails ? this.#tooLong(number) : this.#ask(number, isRemote, cancellation));
      if (fails) this.counts.unexpected.push(`request ${number} did not fail`);
      else this.#count(finish, cancellation);
    } catch (error) {
      const code = error instanceof HearthError ? error.code : 'internal';
      const wasKilled = isRemote && this.#server.kills > kills;
      if (fails && code === 'context-overflow') this.counts.failed++;
      else if (cancellation && code === 'cancelled') this.#count(code, cancellation);
      else if (wasKilled && code === 'unavailable') this.counts.broken++;
      else this.counts.unexpected.push(`request ${number}${isRemote ? ' (remote)' : ''}: ${error}`);
    }
  }

  /** Chooses a fifth of the requests, plus replacements for those that ended before their cancellation. */
  #cancellation(isRemote: boolean): Cancellation | undefined {
    const [chance, stage, share] = [this.#random(), this.#random(), this.#random()];
    if (chance >= 0.2 / 0.95 && this.#owed === 0) return undefined;
    if (chance >= 0.2 / 0.95) this.#owed--;
    const controller = new AbortController();
    if (stage < 0.25) return { stage: 'waiting', after: 0, controller };
    // A server does not tell its steps.
    if (stage < 0.5 && !isRemote) return { stage: 'prefill', after: 1 + Math.floor(share * 4), controller };
    return { stage: 'decode', after: 1 + Math.floor(share * 6), controller };
  }

  #count(finish: string, cancellation: Cancellation | undefined): void {
    if (finish !== 'cancelled') {
      this.counts.finished++;
      if (cancellation) this.#owed++;
    } else if (cancellation) this.counts.cancelled[cancellation.stage]++;
    else this.counts.unexpected.push('a request ended as cancelled without a cancellation');
  }

  async #ask(number: number, isRemote: boolean, cancellation: Cancellation | undefined): Promise<string> {
    const stream = `soak ${number}`;
    if (!cancellation) return this.#submit(number, stream, { isRemote });
    const { stage, after, controller } = cancellation;
    let abortedMs: number | undefined;
    const abort = (): void => {
      abortedMs ??= performance.now();
      controller.abort();
    };
    let [pieces, isDone] = [0, false];
    if (stage === 'decode') {
      this.#pieces.on(stream, () => {
        if (++pieces === after) abort();
      });
    }
    const answer = this.#submit(number, stream, {
      isRemote,
      stage,
      leastTokens: after,
      signal: controller.signal,
    }).finally(() => {
      isDone = true;
      if (abortedMs !== undefined) this.cancelMs.push(performance.now() - abortedMs);
      this.#pieces.removeAllListeners(stream);
    });
    if (stage === 'waiting') abort();
    const steps = (): number => this.#engine.status().requests?.steps ?? 0;
    const last = steps() + after;
    while (stage === 'prefill' && steps() < last && !isDone) await sleep(1);
    if (stage === 'prefill' && !isDone) abort();
    return answer;
  }

  /** @param stage stage of its cancellation. The request is long enough to reach it and not to finish before. */
  async #submit(number: number, stream: string, { isRemote, stage, leastTokens = 0, signal }: Asked): Promise<string> {
    const kind = this.#random() * (stage === 'decode' ? 0.85 : 1);
    const text = stage === 'prefill' ? `# ${number}\n`.repeat(60) : this.#text();
    const maxTokens = 1 + 4 * leastTokens + Math.floor(this.#random() * 24);
    const sampling = { seed: number };
    const target = isRemote ? this.#remote : this.#engine;
    if (kind < 0.4) {
      const place = {
        prefix: text,
        suffix: '\n',
        maxTokens,
        sampling,
        ...(stage === 'decode' && { stream, whole: true }),
      };
      const startMs = performance.now();
      const { finish } = await target.complete(completeParams.parse(place), signal);
      if (!isRemote && !signal) this.completionMs.push(performance.now() - startMs);
      return finish;
    }
    if (kind < 0.7 || (isRemote && kind < 0.97)) {
      const messages = [{ role: 'user', content: text }];
      return (await target.chat(chatParams.parse({ stream, messages, maxTokens, sampling }), signal)).finish;
    }
    if (kind < 0.85) {
      const raw = { stream, prompt: text, raw: true, maxTokens, sampling };
      return (await this.#engine.generate(generateParams.parse(raw), signal)).finish;
    }
    if (kind < 0.97) {
      const ahead = { kind: 'completion', prefix: text, suffix: '\n' };
      return (await this.#engine.warm(warmParams.parse(ahead), signal)).finish;
    }
    // Remote tokens are estimated, far too few for this vocabulary of bytes: a part of a longer file would not fit.
    const file = { stream, path: 'file.py', text: text.repeat(isRemote ? 1 : 3), languageId: 'python', maxTokens };
    return (await target.summarise(summariseParams.parse(file), signal)).finish;
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
    const sample = { requests: this.#ended, residentBytes: rss, heapBytes: heapUsed, cacheBytes, ...held() };
    this.samples.push(sample);
    this.#onSample?.(sample);
  }
}

function held(): { handles: number; threads: number } {
  if (process.platform !== 'linux') return { handles: 0, threads: 0 };
  const count = (folder: string): number => readdirSync(`/proc/self/${folder}`).length;
  return { handles: count('fd'), threads: count('task') };
}
