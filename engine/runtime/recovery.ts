/** What follows the loss of a device: the model is loaded there once more; when it is lost again soon, on the next backend. */
import type { BackendName, Decoder } from '../backend/backend.ts';
import { HearthError } from '../errors.ts';
import { type BackendChoice, type Candidate, candidates, type ReferenceWeights } from './backends.ts';

/** A driver's reset or a laptop's sleep may come again another day; twice within this time is a device that fails. */
const soonMs = 10 * 60_000;

export interface RecoveryOptions {
  readonly choice: BackendChoice;
  readonly load: (among: readonly Candidate[]) => Promise<ReferenceWeights>;
  /** Milliseconds, never going back. */
  readonly now: () => number;
  readonly candidates?: readonly Candidate[];
}

export interface Recovered extends ReferenceWeights {
  /** What happened, for the user. */
  readonly notice: string;
}

export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #givenUp = new Set<BackendName>();
  #lastLossMs = Number.NEGATIVE_INFINITY;

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  /** @throws HearthError `device-lost` where the backend was asked for by name and is lost again, and what loading throws. */
  async another(lost: Decoder, loss: HearthError): Promise<Recovered> {
    const { choice, now, load } = this.#options;
    const lossMs = now();
    if (lossMs - this.#lastLossMs < soonMs) this.#givenUp.add(lost.backend);
    this.#lastLossMs = lossMs;
    await lost.dispose();
    const among = (this.#options.candidates ?? candidates).filter(({ name }) => !this.#givenUp.has(name));
    if (choice !== 'auto' && this.#givenUp.has(choice)) {
      throw new HearthError(
        'device-lost',
        `${loss.message} This is the second time in ten minutes: load the model again, or choose the CPU (backend 'onnx').`,
        { cause: loss },
      );
    }
    const loaded = await load(among);
    return { ...loaded, notice: noticeOf(loss, lost, loaded.decoder) };
  }
}

function noticeOf(loss: HearthError, before: Decoder, after: Decoder): string {
  if (after.backend === before.backend)
    return `${loss.message} It was set up again, and answers go on where they stood.`;
  return `${loss.message} Answers go on where they stood, computed by '${after.backend}' and slower. Load the model again to try the GPU once more.`;
}
