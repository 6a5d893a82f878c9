/** What a model will take on the GPU, worked out before anything is loaded, and refused in words and numbers where it cannot fit. */
import { HearthError } from '../../../errors.ts';
import { showBytes } from '../../../units.ts';
import type { GraphicsCard } from './graphicsCards.ts';

export interface Needs {
  readonly weightBytes: number;
  /** To compute in, whatever the context. */
  readonly scratchBytes: number;
  /** Keys and values of one sequence as long as the context. */
  readonly cacheBytes: (contextTokens: number) => number;
}

export interface ContextRequest {
  readonly contextTokens: number;
  /** A shorter context will do, down to this. */
  readonly leastContextTokens?: number;
}

/** Nothing was loaded. */
export class DoesNotFit extends HearthError {
  /** What weights, context and buffers may take together. */
  readonly freeBytes: number;
  /** Longest context that fits beside the weights; 0: none. */
  readonly contextTokens: number;

  constructor(message: string, freeBytes: number, contextTokens: number) {
    super('out-of-memory', message);
    this.name = 'DoesNotFit';
    this.freeBytes = freeBytes;
    this.contextTokens = contextTokens;
  }
}

/** Contexts are given in steps of this. */
const contextStep = 1024;

/**
 * @returns the context to load with.
 * @throws DoesNotFit
 */
export function contextFor(needs: Needs, request: ContextRequest, { name, freeBytes }: GraphicsCard): number {
  const { contextTokens, leastContextTokens = contextTokens } = request;
  const fits = (tokens: number): boolean =>
    needs.weightBytes + needs.scratchBytes + needs.cacheBytes(tokens) <= freeBytes;
  if (fits(contextTokens)) return contextTokens;
  let [fitting, beyond] = [0, Math.ceil(contextTokens / contextStep)];
  while (beyond - fitting > 1) {
    const middle = Math.floor((fitting + beyond) / 2);
    if (fits(middle * contextStep)) fitting = middle;
    else beyond = middle;
  }
  const longest = fitting * contextStep;
  if (longest > 0 && longest >= leastContextTokens) return longest;
  const parts = [
    `${showBytes(needs.weightBytes)} of weights`,
    `${showBytes(needs.cacheBytes(contextTokens))} for a context of ${contextTokens} tokens`,
    `${showBytes(needs.scratchBytes)} to compute in`,
  ];
  const total = needs.weightBytes + needs.scratchBytes + needs.cacheBytes(contextTokens);
  const remedy = longest > 0 ? `A context of ${longest} tokens fits.` : 'No context fits beside the weights.';
  throw new DoesNotFit(
    `The model needs ${showBytes(total)} of GPU memory (${parts.join(', ')}); ${name} has ${showBytes(freeBytes)} free. Nothing was loaded. ${remedy}`,
    freeBytes,
    longest,
  );
}
