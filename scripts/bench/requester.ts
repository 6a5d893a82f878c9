/** The engine interface of the request comparison. */

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

/** An engine in its own process, with a loaded model. */
export interface Requester {
  /** Generates the first token after `text`, without a template. */
  next(text: string): Promise<void>;
  /** The same, with priority over a chat if the engine has request classes. */
  keystroke(text: string): Promise<void>;
  chat(turns: readonly ChatTurn[], maxTokens: number): Promise<Answer>;
  /** Saves the KV cache of `text` to disk. */
  store(text: string): Promise<void>;
  /** Restores the saved KV cache after a restart, if the engine needs a request for that. */
  recall(): Promise<void>;
  /** Milliseconds of the last `count` forward passes of a chat. Absent if each decodes one token. */
  chatRuns?(): Promise<{ count: number; recentMs: readonly number[] }>;
  residentBytes(): number;
  stop(): Promise<void>;
}

export interface EngineOptions {
  readonly model: string;
  readonly contextTokens: number;
  readonly threads: number;
  /** Folder for data kept between starts. */
  readonly directory: string;
}

/** Time until the model is ready. */
export type Start = (options: EngineOptions) => Promise<Requester>;

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
