/** Workload and result format of the GPU benchmark. */

export interface GpuWorkload {
  /** Cached tokens before the measurement. */
  readonly depths: readonly number[];
  readonly promptTokens: number;
  readonly decodeTokens: number;
}

/** Speed at one depth, in tokens a second. */
export interface SpeedAtDepth {
  readonly depth: number;
  readonly prefill: number;
  readonly decode: number;
}

/** Ids that every vocabulary has. The choice doesn't affect the work. */
export const someTokens = (count: number): number[] => Array.from({ length: count }, (_, i) => 3 + ((i * 37) % 200));

export const contextFor = ({ depths, promptTokens, decodeTokens }: GpuWorkload): number =>
  Math.max(...depths) + promptTokens + decodeTokens + 16;
