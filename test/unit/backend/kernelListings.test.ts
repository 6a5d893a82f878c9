import { expect, it } from 'vitest';
import { type Listing, stepInstructions } from '../../../scripts/kernels/listings.ts';

const multiply = (count: number) => Array.from({ length: count }, () => 'r1 = ffma r2 r3 r1');

/** Before the loop, its head, an inner loop of `inner`, its end that jumps back, after the loop. */
const nested = (inner: readonly string[]): Listing => ({
  registers: 1,
  spills: 0,
  instructions: 0,
  blocks: [
    { instructions: ['mov', 'mov'], next: [1] },
    { instructions: ['ld', 'st', 'bar'], next: [2] },
    { instructions: [...inner, 'bra'], next: [2, 3] },
    { instructions: ['iadd', 'bra'], next: [1, 4] },
    { instructions: ['exit'], next: [] },
  ],
});

it('an inner loop counts as often as its multiplications are wanted, what is around it once', () => {
  // 16 of 4 in each iteration: four times five, and three and two around them.
  expect(stepInstructions(nested(multiply(4)), 16)).toBe(4 * 5 + 3 + 2);
});

it('a loop that the compiler unrolled counts once', () => {
  expect(stepInstructions(nested(multiply(16)), 16)).toBe(17);
});

it('matrices count once, however many instructions a driver makes of one', () => {
  const matrices = Array.from({ length: 8 }, () => 'r1..5 = hmma.m16n8k16.f32 r5..9 r9..11 r1..5');
  expect(stepInstructions(nested([...matrices, ...multiply(3)]), 4)).toBe(8 + 3 + 1);
});

it('a kernel without a loop has no step', () => {
  expect(stepInstructions({ ...nested([]), blocks: [{ instructions: multiply(9), next: [] }] }, 9)).toBeUndefined();
});
