/** What the comparison of requests asks of an engine. */

export interface ChatTurn {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

export interface Answer {
  readonly text: string;
  readonly tokens: number;
  readonly firstMs: number;
  readonly totalMs: number;
}

/** One engine in a process of its own, with a model loaded. */
export interface Requester {
  /** The first token after `text`, as it is. */
  next(text: string): Promise<void>;
  /** The same as a request that goes before a chat, where the engine knows of such. */
  keystroke(text: string): Promise<void>;
  chat(turns: readonly ChatTurn[], maxTokens: number): Promise<Answer>;
  /** Puts what is known of `text` on the disk. */
  store(text: string): Promise<void>;
  /** After a restart: takes what was stored in again, where that must be asked for. */
  recall(): Promise<void>;
  /** Milliseconds of the last `count` runs for a chat; absent where each writes one token. */
  chatRuns?(): Promise<{ count: number; recentMs: readonly number[] }>;
  residentBytes(): number;
  stop(): Promise<void>;
}

export interface EngineOptions {
  readonly model: string;
  readonly contextTokens: number;
  readonly threads: number;
  /** For what is kept between starts. */
  readonly directory: string;
}

/** Until the model is ready. */
export type Start = (options: EngineOptions) => Promise<Requester>;

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
