import { describe, expect, it } from 'vitest';
import { chooseMatrix } from '../../../engine/backend/webgpu/device/adapter.ts';

const config = (componentType: string, resultComponentType: string, [M, N, K]: readonly [number, number, number]) => ({
  componentType,
  resultComponentType,
  M,
  N,
  K,
});
const of = (size: number) => ({ min: size, max: size });

describe('the subgroup matrices for prompts', () => {
  it('are the first with f16 inputs and f32 sums', () => {
    // As Mesa's lavapipe reports them.
    const reported = [
      config('i8', 'i32', [8, 8, 8]),
      config('f16', 'f16', [8, 8, 8]),
      config('f16', 'f32', [8, 8, 8]),
      config('f16', 'f32', [16, 16, 16]),
    ];
    expect(chooseMatrix(reported, of(8), 32_768)).toEqual({ m: 8, n: 8, k: 8 });
  });

  it('may have different sides, and subgroups of a size that the driver chooses', () => {
    expect(chooseMatrix([config('f16', 'f32', [8, 16, 16])], { min: 8, max: 32 }, 32_768)).toEqual({
      m: 8,
      n: 16,
      k: 16,
    });
  });

  it('are skipped if a tile isn’t a multiple of them or exceeds the workgroup memory', () => {
    const reported = [config('f16', 'f32', [24, 8, 8]), config('f16', 'f32', [16, 16, 16])];
    expect(chooseMatrix(reported, of(32), 32_768)).toEqual({ m: 16, n: 16, k: 16 });
    expect(chooseMatrix(reported, of(32), 16_384)).toBe(
      'the adapter multiplies f16 into f32 24x8x8, f16 into f32 16x16x16',
    );
  });

  it('are none if sums are f16 or nothing is reported', () => {
    expect(chooseMatrix([config('f16', 'f16', [8, 8, 8]), config('f32', 'f32', [8, 8, 8])], of(32), 32_768)).toBe(
      'the adapter multiplies f16 into f16 8x8x8, f32 into f32 8x8x8',
    );
    expect(chooseMatrix(undefined, of(32), 32_768)).toBe('the adapter multiplies nothing that it names');
    expect(chooseMatrix([{ M: 'many' }], of(32), 32_768)).toBe('the adapter multiplies nothing that it names');
  });
});
