/** What a token at decode costs: kernels started, bytes read, and the share of the memory's speed that comes to. */
import { cacheBytes } from '../model/spec/inspect.ts';
import type { OpenDecoder } from './decoder.ts';
import type { Work } from './speedMeter.ts';

export interface DecodeCosts {
  readonly weightBytesPerToken: number;
  /** Of keys and values, in the middle of the answer. */
  readonly cacheBytesPerToken: number;
  /** Absent: the backend starts no kernels. */
  readonly dispatchesPerToken?: number;
  readonly mostDispatchesPerLayer?: number;
  /** Read and written, by a copy on the same device. Absent: it was not measured. */
  readonly copyBytesPerSecond?: number;
  /** Of that speed, what weights and cache alone account for. */
  readonly bandwidthShare?: number;
}

export async function decodeCosts(
  { decoder, weightBytesPerToken }: OpenDecoder,
  { promptTokens, depthTokens, tokens }: Work,
  tokensPerSecond: number,
): Promise<DecodeCosts> {
  const { cacheBytesPerValue } = decoder.memory();
  const contextTokens = depthTokens + promptTokens + Math.floor(tokens / 2);
  const cacheBytesPerToken = cacheBytes(decoder.spec, contextTokens, cacheBytesPerValue);
  const dispatches = await decoder.dispatches?.();
  const copyBytesPerSecond = await decoder.copyBandwidth?.();
  const bytesPerSecond = tokensPerSecond * (weightBytesPerToken + cacheBytesPerToken);
  return {
    weightBytesPerToken,
    cacheBytesPerToken,
    ...(dispatches && {
      dispatchesPerToken: dispatches.token,
      mostDispatchesPerLayer: Math.max(...dispatches.layers),
    }),
    ...(copyBytesPerSecond !== undefined && {
      copyBytesPerSecond,
      bandwidthShare: bytesPerSecond / copyBytesPerSecond,
    }),
  };
}

/** One line, for people. */
export function showCosts(costs: DecodeCosts): string {
  const parts = [
    `${megabytes(costs.weightBytesPerToken)} of weights and ${megabytes(costs.cacheBytesPerToken)} of keys and values`,
  ];
  const { dispatchesPerToken, mostDispatchesPerLayer, copyBytesPerSecond, bandwidthShare } = costs;
  if (dispatchesPerToken !== undefined) {
    parts.push(`${dispatchesPerToken} dispatches (at most ${mostDispatchesPerLayer} a layer)`);
  }
  if (copyBytesPerSecond !== undefined && bandwidthShare !== undefined) {
    const speed = `${(copyBytesPerSecond / 1e9).toFixed(1)} GB/s`;
    parts.push(`${(100 * bandwidthShare).toFixed(0)} % of the ${speed} that a copy reaches here`);
  }
  return `a token: ${parts.join(', ')}`;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
