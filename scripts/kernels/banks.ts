/** Counts bank conflicts in workgroup memory by NVIDIA's rules: 32 banks of four bytes, 16-byte accesses by quarter warps. */

import { attentionAccesses, attentionShape, attentionTile } from '../../engine/backend/webgpu/kernels/attention.ts';
import { matrixAttentionAccesses } from '../../engine/backend/webgpu/kernels/attentionTiles.ts';
import type { SharedAccess } from '../../engine/backend/webgpu/kernels/bindings.ts';
import { matrixTileAccesses, plainTileAccesses } from '../../engine/backend/webgpu/kernels/matrixTiles.ts';
import { cachedAttentions } from '../../engine/model/spec/spec.ts';
import type { BenchModel } from './models.ts';

const [banks, bankBytes, lanes, quarter, accessBytes] = [32, 4, 32, 8, 16];

/** Number of passes for the first warp's access. Lanes that read the same word share a pass. */
export function wavefronts({ address }: SharedAccess): number {
  let total = 0;
  for (let first = 0; first < lanes; first += quarter) {
    const words = new Map<number, Set<number>>();
    for (let lane = first; lane < first + quarter; lane++) {
      const from = address(lane) / bankBytes;
      for (let word = from; word < from + accessBytes / bankBytes; word++) {
        words.set(word % banks, (words.get(word % banks) ?? new Set()).add(word));
      }
    }
    total += Math.max(...[...words.values()].map(({ size }) => size));
  }
  return total;
}

/** The largest access of each kernel that reads rows of workgroup memory. */
export function sharedWavefronts(models: readonly BenchModel[]): Map<string, number> {
  const found = new Map<string, number>();
  const note = (kernel: string, accesses: readonly SharedAccess[]) =>
    found.set(kernel, Math.max(found.get(kernel) ?? 0, ...accesses.map(wavefronts)));
  for (const { spec } of models) {
    for (const attention of cachedAttentions(spec)) {
      const shape = attentionShape(attention);
      for (const tokens of [1, 16])
        note(`attention of ${shape.keyDim}`, attentionAccesses(shape, attentionTile(shape, tokens)));
      if (!shape.latent) note(`attention tiles of ${shape.keyDim}`, matrixAttentionAccesses(shape.keyDim));
    }
  }
  note('plain tiles', plainTileAccesses);
  note('matrix tiles', matrixTileAccesses);
  return found;
}
