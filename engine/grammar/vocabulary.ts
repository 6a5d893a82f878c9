/** Every token in its spelling of bytes: `bytes[starts[id] … starts[id + 1]]`. */
export interface Vocabulary {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly starts: Uint32Array<ArrayBuffer>;
  /** 1: it frames text and is never part of it. */
  readonly special: Uint8Array<ArrayBuffer>;
  readonly endIds: readonly number[];
}
