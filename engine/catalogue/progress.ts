/** What long work on the store tells its caller. */
export interface StoreProgress {
  /** `waiting`: another process is getting the same model. */
  readonly phase: 'waiting' | 'download' | 'extract' | 'verify' | 'copy';
  readonly source: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface WorkOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: StoreProgress) => void) | undefined;
}

/** Callers need no more than ten reports a second. */
const progressIntervalMs = 100;

export function reporter(source: string, onProgress: WorkOptions['onProgress']) {
  let last = Number.NEGATIVE_INFINITY;
  return (phase: StoreProgress['phase'], doneBytes: number, totalBytes: number): void => {
    const now = performance.now();
    if (now - last < progressIntervalMs && doneBytes < totalBytes) return;
    last = now;
    onProgress?.({ phase, source, doneBytes, totalBytes });
  };
}
