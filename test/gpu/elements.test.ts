import { describe, expect, it } from 'vitest';
import { gatedNetwork } from '../../engine/backend/reference/feedForward.ts';
import { layerNorm, rmsNorm } from '../../engine/backend/reference/linear.ts';
import { embedKernel } from '../../engine/backend/webgpu/kernels/embed.ts';
import { activationGroups, activationKernel } from '../../engine/backend/webgpu/kernels/gatedNetwork.ts';
import { normKernel } from '../../engine/backend/webgpu/kernels/norms.ts';
import type { Activation } from '../../engine/model/spec/spec.ts';
import { normalisedError, randomValues, runKernel, runKernelOutputs, useGpu } from './kernel.ts';
import { allTypes, matrixOf } from './matrices.ts';

/** Design's bound for what is computed element by element. */
const elementwise = 1e-7;

describe('normalised rows', () => {
  const held = useGpu();
  const poorest = useGpu(true);
  // The narrowest, one that fills no workgroup, DeepSeek-V3's.
  for (const [width, tokens] of [
    [4, 1],
    [260, 3],
    [7168, 2],
  ] as const) {
    it(`of ${width} values equal the reference, with subgroups and without`, async () => {
      const x = randomValues(tokens * width, 1, 3);
      const gain = randomValues(width, 2);
      const expected = rmsNorm(x, gain, 1e-5);
      for (const { gpu } of [held, poorest]) {
        const kernel = normKernel({ normEpsilon: 1e-5 }, width, gpu.capabilities);
        const y = await runKernel(gpu, kernel, [x, gain], tokens * width, [tokens]);
        expect(normalisedError(y, expected)).toBeLessThan(elementwise);
      }
    });

    it(`of ${width} values far from zero less their mean equal the reference's LayerNorm`, async () => {
      const x = randomValues(tokens * width, 1, 3).map((value) => value + 50);
      const gainAndBias = randomValues(2 * width, 2);
      const expected = layerNorm(x, gainAndBias, 1e-5);
      for (const { gpu } of [held, poorest]) {
        const kernel = normKernel({ norm: 'layer', normEpsilon: 1e-5 }, width, gpu.capabilities);
        const y = await runKernel(gpu, kernel, [x, gainAndBias], tokens * width, [tokens]);
        expect(normalisedError(y, expected)).toBeLessThan(elementwise);
      }
    });
  }
});

describe('activations', () => {
  const held = useGpu();

  /** The reference's network whose matrices hand gate and up through. */
  function expectedOf(activation: Activation, gate: Float32Array, up: Float32Array, width: number): Float32Array {
    const pick = (rows: number, columns: number, first: number) => ({
      weight: {
        rows,
        columns,
        values: new Float32Array(rows * columns).map((_, i) =>
          Math.floor(i / columns) + first === i % columns ? 1 : 0,
        ),
      },
    });
    const network = {
      kind: 'dense' as const,
      gate: pick(width, 2 * width, 0),
      up: pick(width, 2 * width, width),
      down: pick(width, width, 0),
    };
    const input = new Float32Array(2 * gate.length);
    for (let token = 0; token < gate.length / width; token++) {
      input.set(gate.subarray(token * width, (token + 1) * width), 2 * token * width);
      input.set(up.subarray(token * width, (token + 1) * width), (2 * token + 1) * width);
    }
    return gatedNetwork(network, activation, input);
  }

  const kinds: readonly Activation[] = [{ kind: 'silu-gate' }, { kind: 'swiglu-clamped', alpha: 1.702, limit: 7 }];
  for (const activation of kinds) {
    for (const [width, tokens, scale] of [
      [4, 1, 3],
      [260, 3, 10],
      [264, 2, 1000],
    ] as const) {
      it(`${activation.kind}: ${tokens} rows of ${width} values up to ${scale}`, async () => {
        const gate = randomValues(tokens * width, 3, scale);
        const up = randomValues(tokens * width, 4, scale);
        const kernel = activationKernel(activation, width);
        const [y] = await runKernelOutputs(held.gpu, kernel, [gate], [up], activationGroups(width, tokens));
        expect(normalisedError(y ?? [], expectedOf(activation, gate, up, width))).toBeLessThan(elementwise);
      });
    }
  }
});

describe('embeddings', () => {
  const held = useGpu();
  for (const type of allTypes) {
    it(`${type}: rows in any order and repeated; rows of another piece are kept`, async () => {
      const [rows, columns, firstRow] = [5, 512, 100];
      const { layout, words, values, blockScale } = await matrixOf(type, rows, columns);
      const ids = [104, 100, 99, 102, 104, 105];
      const batch = Uint32Array.from(ids.flatMap((id) => [0, 0, id, 0]));
      const before = new Float32Array(ids.length * columns).fill(-3);
      const kernel = embedKernel(layout, { firstRow, blockScale });
      const [h = new Float32Array()] = await runKernelOutputs(held.gpu, kernel, [words, batch], [before], [ids.length]);
      for (const [i, id] of ids.entries()) {
        const own = h.subarray(i * columns, (i + 1) * columns);
        const held = id >= firstRow && id < firstRow + rows;
        if (held) {
          const row = values.subarray((id - firstRow) * columns, (id - firstRow + 1) * columns);
          expect(normalisedError(own, row)).toBeLessThan(1e-14);
        } else expect(own.every((value) => value === -3)).toBe(true);
      }
    });
  }
});
