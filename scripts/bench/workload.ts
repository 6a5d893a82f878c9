/** The workload of the speed comparison. */

export interface Workload {
  /** Cached tokens before prefill and before decode. */
  readonly depthTokens: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly threads: number;
  /** Number of measurements. */
  readonly samples: number;
}

/** Samples in tokens a second. */
export interface Speeds {
  readonly prefill: readonly number[];
  readonly decode: readonly number[];
}

export interface SpeedPeer {
  readonly version: string;
  measure(path: string, workload: Workload): Promise<Speeds>;
}

/** Ids that every vocabulary has. The choice doesn't affect the work. */
export const someTokens = (count: number): number[] => Array.from({ length: count }, (_, i) => 3 + ((i * 37) % 200));

export const perSecond = (tokens: number, ms: number): number => (1000 * tokens) / ms;
