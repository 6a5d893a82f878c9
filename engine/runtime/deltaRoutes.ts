/** Routes the deltas of each stream to its receiver, because one engine serves several clients. */
import { randomUUID } from 'node:crypto';
import type { Delta } from '../protocol/engineProtocol.ts';

export class DeltaRoutes {
  readonly #takers = new Map<string, (delta: Delta) => void>();

  /** Whether a receiver took it. */
  deliver(delta: Delta): boolean {
    const take = this.#takers.get(delta.stream);
    take?.(delta);
    return take !== undefined;
  }

  /** Runs `ask` with the id of a new stream; `take` gets its deltas until `ask` is done. */
  async with<Result>(take: (delta: Delta) => void, ask: (stream: string) => Promise<Result>): Promise<Result> {
    const stream = randomUUID();
    this.#takers.set(stream, take);
    try {
      return await ask(stream);
    } finally {
      this.#takers.delete(stream);
    }
  }
}
