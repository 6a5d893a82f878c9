import { describe, expect, it } from 'vitest';
import { tensorTable } from '../../../engine/model/weights/decoderWeights.ts';
import type { Weight } from '../../../engine/model/weights/weights.ts';
import {
  expandedWeight,
  joinRows,
  readValues,
  rowsOf,
  selectRows,
  stackedWeight,
  transposedWeight,
} from '../../../engine/model/weights/weightViews.ts';
import { counting, floats, MemoryFile } from './memoryFile.ts';

function table(
  tensors: ConstructorParameters<typeof Map<string, ReturnType<typeof counting>>>[0],
  fp8?: [number, number],
) {
  return tensorTable(new MemoryFile(new Map(tensors)), fp8);
}

async function all(weight: Weight): Promise<number[]> {
  return [...(await readValues(weight, 0, rowsOf(weight.shape)))];
}

/** Reading a view in any pieces must give what reading it whole gives. */
async function expectSameInPieces(weight: Weight): Promise<void> {
  const whole = await all(weight);
  const rows = rowsOf(weight.shape);
  const columns = whole.length / rows;
  for (let start = 0; start < rows; start++) {
    for (let count = 1; start + count <= rows; count++) {
      const piece = await readValues(weight, start, count);
      expect([...piece]).toEqual(whole.slice(start * columns, (start + count) * columns));
    }
  }
}

describe('selected rows', () => {
  it('of a fused tensor are a range', async () => {
    const fused = table([['qkv', counting([6, 2])]]).weight('qkv', [6, 2]);
    const key = selectRows(fused, { period: 6, offset: 3, length: 2 }, [2, 2]);
    expect(await all(key)).toEqual([6, 7, 8, 9]);
    await expectSameInPieces(key);
  });

  it('of interleaved tensors are every second one, across experts', async () => {
    const gateUp = table([['gate_up', counting([2, 4, 2])]]).weight('gate_up', [2, 4, 2]);
    const up = selectRows(gateUp, { period: 2, offset: 1, length: 1 }, [2, 2, 2]);
    expect(await all(up)).toEqual([2, 3, 6, 7, 10, 11, 14, 15]);
    await expectSameInPieces(up);
  });

  it('of heads are some rows of each', async () => {
    const joint = table([['kv_b', counting([10, 1])]]).weight('kv_b', [10, 1]);
    const value = selectRows(joint, { period: 5, offset: 3, length: 2 }, [2, 2, 1]);
    expect(await all(value)).toEqual([3, 4, 8, 9]);
    await expectSameInPieces(value);
  });

  it('of a bias are elements, joined to one row an expert', async () => {
    const bias = table([['bias', counting([2, 4])]]).weight('bias', [2, 4], [8, 1]);
    const gate = joinRows(selectRows(bias, { period: 2, offset: 0, length: 1 }, [4, 1]), [2, 2]);
    expect(await all(gate)).toEqual([0, 2, 4, 6]);
    await expectSameInPieces(gate);
  });
});

describe('stacked tensors', () => {
  it('are read as one, over their borders', async () => {
    const tensors = table([
      ['a', counting([2, 2])],
      ['b', floats([2, 2], [10, 11, 12, 13])],
    ]);
    const stacked = stackedWeight(['a', 'b'].map((name) => tensors.weight(name, [2, 2])));
    expect(stacked.shape).toEqual([2, 2, 2]);
    expect(await all(stacked)).toEqual([0, 1, 2, 3, 10, 11, 12, 13]);
    await expectSameInPieces(stacked);
  });

  it('of two types are refused, naming the odd one', () => {
    const tensors = table([
      ['a', counting([1, 32])],
      ['b', { type: 'Q8_0', shape: [1, 32], bytes: new Uint8Array(34) }],
    ]);
    expect(() => stackedWeight(['a', 'b'].map((name) => tensors.weight(name, [1, 32])))).toThrow(/b is Q8_0/);
  });
});

it('a transposed tensor turns columns to rows, expert by expert', async () => {
  const transposed = transposedWeight(table([['w', counting([2, 2, 3])]]).weight('w', [2, 2, 3]));
  expect(transposed.shape).toEqual([2, 3, 2]);
  expect(await all(transposed)).toEqual([0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
  await expectSameInPieces(transposed);
});

describe('FP8 block scales', () => {
  /** All values 1 (0x38 in E4M3), so that what is read are the scales. */
  const ones = (shape: readonly number[]) => ({
    type: 'F8_E4M3' as const,
    shape,
    bytes: new Uint8Array(shape.reduce((a, b) => a * b, 1)).fill(0x38),
  });

  it('turn with a transposed tensor', async () => {
    const tensors = table(
      [
        ['a', ones([3, 5])],
        ['a_scale_inv', floats([2, 3], [1, 2, 3, 4, 5, 6])],
        ['b', ones([3, 5])],
        ['b_scale_inv', floats([2, 3], [7, 8, 9, 10, 11, 12])],
      ],
      [2, 2],
    );
    const weight = stackedWeight(['a', 'b'].map((name) => tensors.weight(name, [3, 5])));
    const transposed = transposedWeight(weight);
    const stored = await all(weight);
    const expected = Array.from({ length: 30 }, (_, i) => {
      const [expert, column, row] = [Math.floor(i / 15), Math.floor(i / 3) % 5, i % 3];
      return stored[expert * 15 + row * 5 + column];
    });
    expect(await all(transposed)).toEqual(expected);
    await expectSameInPieces(transposed);
  });

  it('are applied when a weight is expanded', async () => {
    const tensors = table(
      [
        ['w', ones([2, 3])],
        ['w_scale_inv', floats([1, 2], [3, 4])],
      ],
      [2, 2],
    );
    const expanded = expandedWeight(tensors.weight('w', [2, 3]));
    expect(expanded.type).toBe('F32');
    expect(await all(expanded)).toEqual([3, 3, 4, 3, 3, 4]);
  });

  it('multiply whole and partial blocks', async () => {
    const tensors = table(
      [
        ['w', ones([3, 3])],
        ['w_scale_inv', floats([2, 2], [1, 2, 3, 4])],
      ],
      [2, 2],
    );
    const weight = tensors.weight('w', [3, 3]);
    expect(await all(weight)).toEqual([1, 1, 2, 1, 1, 2, 3, 3, 4]);
    await expectSameInPieces(weight);
  });

  it('start anew in every stacked expert', async () => {
    const tensors = table(
      [
        ['a', ones([3, 2])],
        ['a_scale_inv', floats([2, 1], [1, 2])],
        ['b', ones([3, 2])],
        ['b_scale_inv', floats([2, 1], [3, 4])],
      ],
      [2, 2],
    );
    const stacked = stackedWeight(['a', 'b'].map((name) => tensors.weight(name, [3, 2])));
    expect(await all(stacked)).toEqual([1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4]);
    await expectSameInPieces(stacked);
  });

  it('follow selected rows that do not start where a block does', async () => {
    // Two heads of two key rows and one value row, in blocks of four rows.
    const tensors = table(
      [
        ['kv_b', ones([6, 1])],
        ['kv_b_scale_inv', floats([2, 1], [1, 2])],
      ],
      [4, 1],
    );
    const joint = tensors.weight('kv_b', [6, 1]);
    expect(await all(selectRows(joint, { period: 3, offset: 0, length: 2 }, [2, 2, 1]))).toEqual([1, 1, 1, 2]);
    expect(await all(selectRows(joint, { period: 3, offset: 2, length: 1 }, [2, 1, 1]))).toEqual([1, 2]);
  });

  it('may be stored as powers of two (E8M0)', async () => {
    const scale = { type: 'F8_E8M0' as const, shape: [1, 1], bytes: Uint8Array.of(128) };
    const weight = table(
      [
        ['w', ones([1, 2])],
        ['w_scale_inv', scale],
      ],
      [128, 128],
    ).weight('w', [1, 2]);
    expect(await all(weight)).toEqual([2, 2]);
  });

  it('that are missing are named', () => {
    expect(() => table([['w', ones([1, 2])]], [128, 128]).weight('w', [1, 2])).toThrow(/w_scale_inv/);
    expect(() => table([['w', ones([1, 2])]]).weight('w', [1, 2])).toThrow(/weight_block_size/);
  });
});

describe('a tensor', () => {
  const tensors = table([
    ['w', counting([2, 3])],
    ['i', { type: 'I32', shape: [1], bytes: new Uint8Array(4) }],
  ]);

  it('that is missing is named', () => {
    expect(() => tensors.weight('absent', [1])).toThrow(expect.objectContaining({ code: 'invalid-input' }));
    expect(() => tensors.weight('absent', [1])).toThrow(/absent/);
  });

  it('of another shape is named with both shapes', () => {
    expect(() => tensors.weight('w', [3, 2])).toThrow(/w is \[2, 3\].*\[3, 2\]/);
  });

  it('of integers is refused as a weight', () => {
    expect(() => tensors.weight('i', [1])).toThrow(expect.objectContaining({ code: 'unsupported' }));
  });
});
