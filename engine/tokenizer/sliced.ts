/** Work that can pause: it yields wherever others may go on. */
export type Sliced<Result> = Generator<void, Result, void>;

/** For short work, and for callers that cannot wait. */
export function runWhole<Result>(work: Sliced<Result>): Result {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}
