/** How many tokens of a prompt one forward pass takes: decided here alone, by the time that passes take on this device. */

/** While somebody types, the next key waits for a pass to end. A pass of fewer tokens reads all weights for too little. */
const typing = { passMs: 100, leastTokens: 16 };

/**
 * Otherwise what fills the device, unless a cancellation, or the first key of somebody who begins to type, would wait for longer than this.
 * As many tokens as `leastTokens` run at once on any device, and before its speed is known.
 */
const idle = { passMs: 1000, leastTokens: 128 };

export interface ChunkConditions {
  /** Of a pass that fills the device (`Decoder.maxTokensPerRun`). */
  readonly fullTokens: number;
  /** Measured in the last passes; 0: not known yet. */
  readonly msPerToken: number;
  /** Somebody types, or asks otherwise for what goes first. */
  readonly isTyping: boolean;
}

export function chunkTokens({ fullTokens, msPerToken, isTyping }: ChunkConditions): number {
  const { passMs, leastTokens } = isTyping ? typing : idle;
  const timely = msPerToken > 0 ? Math.floor(passMs / msPerToken) : leastTokens;
  return Math.min(fullTokens, Math.max(leastTokens, timely));
}

/** The time of shorter passes is that of reading the weights, and says little of a prompt's. */
export const leastMeasuredTokens = typing.leastTokens;
