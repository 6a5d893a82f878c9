/**
 * Notices calls into native code (Dawn, ONNX Runtime, ggml) that never return. Time is counted in looks, one a second, so that
 * time in which the process was stopped or the computer slept does not count. Whoever looks ends the process.
 */
import { limits } from '../limits.ts';

/** A forward pass is compared with the earlier ones of its decoder. */
export interface WatchedPass {
  readonly decoder: object;
  readonly tokens: number;
}

/** A call that has not returned. */
export interface WatchedCall {
  /** It has told its progress. */
  goesOn(): void;
  end(): void;
}

interface Slowest {
  looks: number;
  /** Of the largest pass. */
  tokens: number;
}

export class CallWatch {
  readonly #running = new Set<{ looks: number; readonly most: number }>();
  readonly #slowest = new WeakMap<object, Slowest>();

  begin(pass?: WatchedPass): WatchedCall {
    const call = { looks: 0, most: this.#mostLooks(pass) };
    this.#running.add(call);
    return {
      goesOn: () => {
        call.looks = 0;
      },
      end: () => {
        this.#running.delete(call);
        if (pass) this.#measured(pass, call.looks);
      },
    };
  }

  async during<Result>(work: Result | Promise<Result>, pass?: WatchedPass): Promise<Result> {
    const call = this.begin(pass);
    try {
      return await work;
    } finally {
      call.end();
    }
  }

  /** To be called every second. @returns the seconds that a call has taken which won't return any more. */
  look(): number | undefined {
    let hung: number | undefined;
    for (const call of this.#running) if (++call.looks > call.most) hung = call.looks;
    return hung;
  }

  #mostLooks(pass: WatchedPass | undefined): number {
    const { callSeconds, passSeconds, slowerPass } = limits.hang;
    const slowest = pass && this.#slowest.get(pass.decoder);
    if (!slowest) return callSeconds;
    // A pass of under a second was never looked at.
    const expected = (slowest.looks + 1) * Math.max(1, pass.tokens / slowest.tokens);
    return Math.max(passSeconds, slowerPass * expected);
  }

  #measured({ decoder, tokens }: WatchedPass, looks: number): void {
    const slowest = this.#slowest.get(decoder);
    if (!slowest) this.#slowest.set(decoder, { looks, tokens });
    else Object.assign(slowest, { looks: Math.max(looks, slowest.looks), tokens: Math.max(tokens, slowest.tokens) });
  }
}
