/** What both sides of the GPU benchmark compute, and how they say how fast. */

export interface GpuWorkload {
  /** Tokens in the cache before anything is measured. */
  readonly depths: readonly number[];
  readonly promptTokens: number;
  readonly decodeTokens: number;
}

/** Tokens a second at one depth. */
export interface SpeedAtDepth {
  readonly depth: number;
  readonly prefill: number;
  readonly decode: number;
}

/** Ids that every vocabulary has; which ones makes no difference to the work. */
export const someTokens = (count: number): number[] => Array.from({ length: count }, (_, i) => 3 + ((i * 37) % 200));

export const contextFor = ({ depths, promptTokens, decodeTokens }: GpuWorkload): number =>
  Math.max(...depths) + promptTokens + decodeTokens + 16;
