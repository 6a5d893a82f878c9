/**
 * Ids of pieces seen before: source code repeats its words, so nine of ten pieces need no merging. Two generations:
 * what is used moves to the younger one, and when that is full the older one goes. Bounded, and exact, as the ids of
 * a piece depend on nothing else.
 */
import { limits } from '../limits.ts';

export class PieceCache {
  #young = new Map<string, Int32Array>();
  #old = new Map<string, Int32Array>();

  get(piece: string): Int32Array | undefined {
    const ids = this.#young.get(piece);
    if (ids !== undefined) return ids;
    const older = this.#old.get(piece);
    if (older !== undefined) this.set(piece, older);
    return older;
  }

  set(piece: string, ids: Int32Array): void {
    if (this.#young.size >= limits.text.cachedPieces) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(piece, ids);
  }
}
