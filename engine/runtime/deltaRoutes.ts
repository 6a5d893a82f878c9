/** Who gets the pieces of which answer, where one engine serves several askers. */
import { randomUUID } from 'node:crypto';
import type { Delta } from '../protocol/engineProtocol.ts';

export class DeltaRoutes {
  readonly #takers = new Map<string, (delta: Delta) => void>();

  /** Whether somebody took it. */
  deliver(delta: Delta): boolean {
    const take = this.#takers.get(delta.stream);
    take?.(delta);
    return take !== undefined;
  }

  /** Runs `ask` with the name of a new stream, whose pieces `take` gets until it is done. */
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
