/** Log-probabilities of an answer's tokens in the model's own distribution, before temperature, penalties and masks. */
import type { OutputPiece } from '../prompt/conversation.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

interface CandidateLogprob {
  readonly token: string;
  /** UTF-8; a token may contain part of a character. */
  readonly bytes: readonly number[];
  readonly logprob: number;
}

export interface TokenLogprob extends CandidateLogprob {
  /** The most probable tokens at this position, in descending order. */
  readonly top: readonly CandidateLogprob[];
}

/** JSON has no infinity; vLLM writes this for a token that the model excludes. */
const leastLogprob = -9999;

export class LogprobRecorder {
  readonly #tokenizer: Pick<Tokenizer, 'bytesOf'>;
  readonly #top: number;
  #chosen: TokenLogprob | undefined;
  /** Tokens that are not yet part of a delivered piece. */
  #pending: TokenLogprob[] = [];

  /** @param top how many alternatives are kept for each token. */
  constructor(tokenizer: Pick<Tokenizer, 'bytesOf'>, top: number) {
    this.#tokenizer = tokenizer;
    this.#top = top;
  }

  /** @param logits `[vocabulary]`, as the decoder gave them. */
  chose(logits: Float32Array, token: number): void {
    const total = logSumExp(logits);
    const candidate = (id: number): CandidateLogprob => {
      const bytes = [...this.#tokenizer.bytesOf(id)];
      const logprob = Math.max(leastLogprob, (logits[id] ?? Number.NEGATIVE_INFINITY) - total);
      return { token: Buffer.from(bytes).toString(), bytes, logprob };
    };
    this.#chosen = { ...candidate(token), top: largest(logits, this.#top).map(candidate) };
  }

  took(): void {
    if (this.#chosen) this.#pending.push(this.#chosen);
    this.#chosen = undefined;
  }

  /** Log-probabilities of the tokens of a text piece; those of thinking, calls and framing are dropped. */
  of(piece: OutputPiece): readonly TokenLogprob[] {
    const taken = this.#pending;
    this.#pending = [];
    if (piece.kind !== 'text') return [];
    const text = Buffer.from(piece.text);
    const found = Buffer.concat(taken.map(({ bytes }) => Buffer.from(bytes))).indexOf(text);
    if (found < 0) return taken;
    let at = 0;
    const shown: TokenLogprob[] = [];
    for (const token of taken) {
      const end = at + token.bytes.length;
      if (at >= found + text.length) this.#pending.push(token);
      else if (end > found) shown.push(token);
      at = end;
    }
    return shown;
  }
}

function logSumExp(logits: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > most) most = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return most + Math.log(sum);
}

/** Ids of the largest logits, in order; the lower id among equals. */
function largest(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  const logitOf = (id: number | undefined): number => logits[id ?? -1] ?? Number.NEGATIVE_INFINITY;
  for (const [id, logit] of logits.entries()) {
    if (ids.length === count && logit <= logitOf(ids.at(-1))) continue;
    const at = ids.findIndex((other) => logit > logitOf(other));
    ids.splice(at < 0 ? ids.length : at, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}
