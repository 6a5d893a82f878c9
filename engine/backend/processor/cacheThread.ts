/** The KV caches of a compute thread, by sequence, and the messages that are about them alone. */
import type { CacheLayout, CacheMessage, FromThread, ThreadSlice } from './messages.ts';

export interface ThreadCache<Self> {
  /** Cached tokens. */
  length: number;
  arrange(layout: CacheLayout, length: number): void;
  /** Of recurrent layers; absent: the backend computes none. */
  keepStates?(layout: CacheLayout): void;
  fork(): Self;
  dispose(): void;
  saved(layer: number, layout: CacheLayout): Uint8Array;
  restore(layer: number, layout: CacheLayout, bytes: Uint8Array): void;
}

export const done: FromThread = { kind: 'done', values: [] };

export class ThreadCaches<Cache extends ThreadCache<Cache>> {
  readonly #empty: () => Cache;
  readonly #caches = new Map<number, Cache>();

  /** @param empty makes the cache of a new sequence. */
  constructor(empty: () => Cache) {
    this.#empty = empty;
  }

  of(sequence: number): Cache {
    const cache = this.#caches.get(sequence);
    if (!cache) throw new Error(`Unknown sequence ${sequence}.`);
    return cache;
  }

  clear(): void {
    this.#caches.clear();
  }

  handle(message: Exclude<CacheMessage, { kind: 'run' | 'end' }>): FromThread | undefined {
    switch (message.kind) {
      case 'create':
        this.#caches.set(message.sequence, message.from === undefined ? this.#empty() : this.of(message.from).fork());
        return undefined;
      case 'change':
        this.of(message.sequence).arrange(message.layout, message.length);
        this.of(message.sequence).keepStates?.(message.layout);
        return undefined;
      case 'dispose':
        this.of(message.sequence).dispose();
        this.#caches.delete(message.sequence);
        return undefined;
      case 'save':
        return { kind: 'done', values: [], saved: this.of(message.sequence).saved(message.layer, message.layout) };
      case 'restore': {
        const cache = this.of(message.sequence);
        cache.restore(message.layer, message.layout, message.bytes);
        cache.length = message.length;
        return done;
      }
    }
  }

  /** @returns what gives the sequences back the lengths that they have now, after a pass that failed. */
  lengthsOf(slices: readonly ThreadSlice[]): () => void {
    const before = slices.map(({ sequence }) => this.of(sequence).length);
    return () => {
      for (const [i, { sequence }] of slices.entries()) this.of(sequence).length = before[i] ?? 0;
    };
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Buffers to transfer instead of copying. */
export function transferred(answer: FromThread): ArrayBuffer[] {
  if (answer.kind === 'failed') return [];
  const { values, saved } = answer;
  return [...values, ...(saved ? [saved] : [])].map(({ buffer }) => buffer as ArrayBuffer);
}
