/** The OpenAI-compatible server in the engine process: off by default, at most one. */
import type { z } from 'zod';
import type { DeltaStreams, ServerAddress, startServerParams } from '../protocol/engineProtocol.ts';
import type { Engine } from '../runtime/service.ts';
import type { HttpServer } from './server.ts';

export class LocalServer {
  readonly #engine: Engine;
  readonly #streams: DeltaStreams;
  readonly #log: (line: string) => void;
  #running: HttpServer | undefined;
  /** Starts and stops are sequential. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(engine: Engine, streams: DeltaStreams, log: (line: string) => void) {
    this.#engine = engine;
    this.#streams = streams;
    this.#log = log;
  }

  /** Replaces a running server. @throws HearthError `unavailable` if the port is in use. */
  start({ port, token }: z.output<typeof startServerParams>): Promise<ServerAddress> {
    return this.#inTurn(async () => {
      await this.#close();
      // Loaded on demand, because few users need it.
      const { startHttpServer } = await import('./server.ts');
      const parts = { engine: this.#engine, streams: this.#streams, log: this.#log };
      this.#running = await startHttpServer({ ...parts, port, token });
      return { address: `${this.#running.address}/v1` };
    });
  }

  stop(): Promise<void> {
    return this.#inTurn(() => this.#close());
  }

  async #close(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.close();
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}
