/** What the engine computes next: the scheduler's decision as a pure function. */

/** Who waits for the answer; earlier classes go first and cut in between the steps of later ones. */
export const requestClasses = ['keystroke', 'chat', 'summary', 'warm-up'] as const;
export type RequestClass = (typeof requestClasses)[number];

/** What the decision looks at. */
export interface PendingRequest {
  readonly id: number;
  readonly requestClass: RequestClass;
  /** Smaller is earlier. */
  readonly arrival: number;
  /** It holds a sequence, so it is known what is cached. */
  readonly admitted: boolean;
  /** Tokens known and not yet in the cache: the rest of the prompt, or the one token just sampled. */
  readonly waitingTokens: number;
  /** It samples once its tokens are computed; a warm-up does not. */
  readonly samples: boolean;
}

export interface StepLimits {
  /** Prompt tokens computed between two decisions: what a keystroke or a cancellation waits for at most. */
  readonly chunkTokens: number;
}

export interface StepSlice {
  readonly id: number;
  readonly tokens: number;
  readonly logits: 'none' | 'last';
}

export type NextStep =
  /** Give the request a sequence, then decide again. */
  { readonly kind: 'admit'; readonly id: number } | { readonly kind: 'run'; readonly slices: readonly StepSlice[] };

/** By class, then in order of arrival; a request runs to its end unless a better class cuts in. */
export function nextStep(pending: Iterable<PendingRequest>, { chunkTokens }: StepLimits): NextStep | undefined {
  let first: PendingRequest | undefined;
  for (const request of pending) if (!first || goesBefore(request, first)) first = request;
  if (!first) return undefined;
  const { id, admitted, waitingTokens, samples } = first;
  if (!admitted) return { kind: 'admit', id };
  const tokens = Math.min(waitingTokens, chunkTokens);
  const logits = samples && tokens === waitingTokens ? 'last' : 'none';
  return { kind: 'run', slices: [{ id, tokens, logits }] };
}

function goesBefore(a: PendingRequest, b: PendingRequest): boolean {
  const byClass = requestClasses.indexOf(a.requestClass) - requestClasses.indexOf(b.requestClass);
  return byClass < 0 || (byClass === 0 && a.arrival < b.arrival);
}
