/** What the engine computes next: the scheduler's decision as a pure function. */

/** Who waits for the answer; earlier classes go first and cut in between the steps of later ones. */
export const requestClasses = ['keystroke', 'chat', 'summary', 'warm-up'] as const;
export type RequestClass = (typeof requestClasses)[number];

/** What the decision looks at. */
export interface Candidate {
  readonly requestClass: RequestClass;
  /** It holds a sequence, so it is known what is cached. */
  readonly admitted: boolean;
  /** Tokens known and not yet in the cache: the rest of the prompt, or the one token just sampled. */
  readonly waitingTokens: number;
  /** DraftTokens at what follows, to be verified in the same run; 0 while the prompt is computed. */
  readonly draftTokens: number;
  /** It samples once its tokens are computed; a warm-up does not. */
  readonly samples: boolean;
}

export interface StepLimits {
  /** Most prompt tokens computed between two decisions: what a keystroke or a cancellation waits for. */
  readonly chunkTokens: number;
  /** Sequences that one run may take. */
  readonly maxSequences: number;
}

export interface StepSlice<Request> {
  readonly request: Request;
  /** Of the waiting tokens. */
  readonly tokens: number;
  /** DraftTokens after them; then every row's logits are asked for. */
  readonly drafts: number;
  readonly logits: 'none' | 'last' | 'all';
}

export type NextStep<Request> =
  /** Give the request a sequence, then decide again. */
  | { readonly kind: 'admit'; readonly request: Request }
  | { readonly kind: 'run'; readonly slices: readonly StepSlice<Request>[] };

/**
 * One run for the first request; where the decoder takes several sequences, those that decode ride along, and the
 * chunk's rest goes to prompts of the same class.
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
