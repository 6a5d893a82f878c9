/** Rotary position embedding: pairs of a head's elements turned by an angle that grows with the position. */
import { attentionFactor, inverseFrequencies } from '../../model/spec/rope.ts';
import type { RopeSpec } from '../../model/spec/spec.ts';

/** Rotates every head of every token, in place. `vectors`: `[tokens, heads, headDim]`, `positions`: `[tokens]` */
export function rotate(
  vectors: Float32Array,
  { heads, headDim }: { readonly heads: number; readonly headDim: number },
  rope: RopeSpec,
  positions: readonly number[],
): void {
  const frequencies = inverseFrequencies(rope);
  const pairs = frequencies.length;
  // half-split pairs (i, i + pairs); interleaved pairs (2i, 2i + 1)
  const step = rope.layout === 'half-split' ? 1 : 2;
  const partner = rope.layout === 'half-split' ? pairs : 1;
  for (const [token, position] of positions.entries()) {
    for (let pair = 0; pair < pairs; pair++) {
      const angle = position * (frequencies[pair] as number);
      const cos = Math.cos(angle) * attentionFactor(rope);
      const sin = Math.sin(angle) * attentionFactor(rope);
      for (let head = 0; head < heads; head++) {
        const first = (token * heads + head) * headDim + pair * step;
        const x = vectors[first] as number;
        const y = vectors[first + partner] as number;
        vectors[first] = x * cos - y * sin;
        vectors[first + partner] = y * cos + x * sin;
      }
    }
  }
}
