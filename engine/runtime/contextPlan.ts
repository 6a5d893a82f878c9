/** How much context a model gets when nobody asks for a certain one. */
import { fullContexts } from '../backend/backend.ts';
import { cacheBytesPerToken, processorPrecision } from '../model/spec/cachePrecision.ts';
import type { DecoderSpec } from '../model/spec/spec.ts';
import type { CachePrecision } from '../protocol/engineProtocol.ts';

/** A file with its surroundings, or a long conversation. */
const usualContextTokens = 8192;
/** Less is of no use to a chat. */
export const leastContextTokens = 1024;
/** Of the memory that is free after the weights are loaded; the editor and its extensions need the rest. */
const cacheShareOfMemory = 0.5;

/** `precision`: how keys and values are asked to be kept. */
export function defaultContextTokens(
  spec: DecoderSpec,
  weightBytes: number,
  freeBytes: number,
  precision?: CachePrecision,
): number {
  const attentions = spec.layers.map(({ attention }) => attention);
  const tokenBytes = cacheBytesPerToken(attentions, processorPrecision(precision));
  const forCache = Math.max(0, freeBytes - weightBytes) * cacheShareOfMemory;
  const fitting = Math.floor(forCache / (fullContexts * tokenBytes));
  // A round number, so that the same machine gives the same context on a slightly different day.
  const rounded = Math.floor(fitting / 1024) * 1024;
  return Math.min(spec.contextTokens, usualContextTokens, Math.max(leastContextTokens, rounded));
}
