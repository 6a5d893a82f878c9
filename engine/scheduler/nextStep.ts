/** Decides what the engine computes next, as a pure function. */

/** The first class goes first; better classes pre-empt worse ones between steps. */
export const requestClasses = ['keystroke', 'chat', 'summary', 'warm-up'] as const;
export type RequestClass = (typeof requestClasses)[number];

export interface Candidate {
  readonly requestClass: RequestClass;
  /** It holds a sequence, so its cached length is known. */
  readonly admitted: boolean;
  /** Known tokens that are not yet in the cache: the rest of the prompt, or the last sampled token. */
  readonly waitingTokens: number;
  /** Verified in the same pass; 0 during prefill. */
  readonly draftTokens: number;
  /** False for a warm-up. */
  readonly samples: boolean;
}

export interface StepLimits {
  /** Most prompt tokens between two decisions. A keystroke or a cancellation waits at most this long. */
  readonly chunkTokens: number;
  /** Sequences in one forward pass. */
  readonly maxSequences: number;
  /** Passes that are submitted and not yet computed when another request or a cancellation comes; absent: 1. */
  readonly passesInFlight?: number;
}

export interface StepSlice<Request> {
  readonly request: Request;
  /** How many of the waiting tokens. */
  readonly tokens: number;
  /** Draft tokens after them; if there are any, `logits` is `all`. */
  readonly drafts: number;
  readonly logits: 'none' | 'last' | 'all';
}

export type NextStep<Request> =
  /** Give the request a sequence, then decide again. */
  | { readonly kind: 'admit'; readonly request: Request }
  | { readonly kind: 'run'; readonly slices: readonly StepSlice<Request>[] };

/**
 * Plans one pass for the first request. If the decoder takes several sequences, decoding requests join the pass, and
 * prompts of the same class share the rest of the chunk.
 * @param ordered the first goes first.
 */
export function nextStep<Request extends Candidate>(
  ordered: readonly Request[],
  { chunkTokens, maxSequences }: StepLimits,
): NextStep<Request> | undefined {
  const [first] = ordered;
  if (!first) return undefined;
  const slices: StepSlice<Request>[] = [];
  let roomTokens = chunkTokens;
  for (const request of ordered) {
    if (slices.length === maxSequences || roomTokens === 0) break;
    const isPeer = request.requestClass === first.requestClass;
    if (!request.admitted) {
      if (isPeer) return { kind: 'admit', request };
      continue;
    }
    if (!isPeer && !decodes(request)) continue;
    const slice = sliceOf(request, roomTokens);
    slices.push(slice);
    roomTokens -= slice.tokens + slice.drafts;
  }
  return { kind: 'run', slices };
}

const decodes = ({ waitingTokens, samples }: Candidate): boolean => samples && waitingTokens === 1;

function sliceOf<Request extends Candidate>(request: Request, roomTokens: number): StepSlice<Request> {
  const { waitingTokens, draftTokens, samples } = request;
  const tokens = Math.min(waitingTokens, roomTokens);
  const drafts = decodes(request) ? Math.min(draftTokens, roomTokens - tokens) : 0;
  const last = samples && tokens === waitingTokens;
  return { request, tokens, drafts, logits: last ? (drafts > 0 ? 'all' : 'last') : 'none' };
}
