/** What both sides of the comparison of speeds compute. */

export interface Workload {
  /** Tokens in the cache before the prompt, and before the decode. */
  readonly depthTokens: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly threads: number;
  /** Times that each is measured. */
  readonly samples: number;
}

/** Tokens a second, a sample each. */
export interface Speeds {
  readonly prefill: readonly number[];
  readonly decode: readonly number[];
}

export interface SpeedPeer {
  readonly version: string;
  measure(path: string, workload: Workload): Promise<Speeds>;
}

/** Ids that every vocabulary has; which ones makes no difference to the work. */
export const someTokens = (count: number): number[] => Array.from({ length: count }, (_, i) => 3 + ((i * 37) % 200));

export const perSecond = (tokens: number, ms: number): number => (1000 * tokens) / ms;
