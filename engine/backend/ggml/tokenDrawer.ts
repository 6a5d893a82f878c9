/** Draws tokens on the decoder's thread: a forward pass, a sample, and the same again with the sampled token. */

import type { AwaitedRows, DrawMessage, DrawSlice, SharedRow } from '../processor/drawing.ts';
import type { ThreadCaches } from '../processor/threadCache.ts';
import { emptyHistory, sample, without } from '../sampler.ts';
import type { PassRunner, SequenceCache } from './passRunner.ts';

const noBias = new Map<number, number>();

export class TokenDrawer {
  readonly #runner: PassRunner;
  readonly #caches: ThreadCaches<SequenceCache>;
  readonly #rows: AwaitedRows;
  /** `[vocabulary]`, reused: fresh memory of this size takes longer to get than to fill. */
  readonly #logits: Float32Array;

  constructor(runner: PassRunner, caches: ThreadCaches<SequenceCache>, rows: AwaitedRows, vocabularySize: number) {
    this.#runner = runner;
    this.#caches = caches;
    this.#rows = rows;
    this.#logits = new Float32Array(vocabularySize);
  }

  /** @returns the tokens of each slice, `steps` of them or up to its first stop id. */
  draw({ slices, steps, row }: DrawMessage): number[][] {
    return slices.map((slice) => this.#drawSlice(slice, steps, row));
  }

  #drawSlice(slice: DrawSlice, steps: number, row: SharedRow): number[] {
    const { layout, rules, forbidden, uniforms, stopIds } = slice;
    const cache = this.#caches.of(slice.sequence);
    const settings = { ...rules, logitBias: noBias };
    const said = slice.history && {
      sequence: new Set(slice.history.sequence),
      generated: new Set(slice.history.generated),
    };
    const drawn: number[] = [];
    let token = slice.token;
    while (drawn.length < steps && !stopIds.has(token)) {
      const hidden = this.#rows.of(token, row);
      const logits = this.#runner.run(cache, { layout, tokens: [token], logits: 'last', hidden }, this.#logits);
      const uniform = uniforms[drawn.length] ?? 0;
      token = sample(without(logits, forbidden), settings, said ?? emptyHistory, () => uniform);
      drawn.push(token);
      said?.sequence.add(token);
      said?.generated.add(token);
    }
    return drawn;
  }
}
