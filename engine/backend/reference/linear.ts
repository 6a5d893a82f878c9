/** Matrix products: f32 in and out, float64 sums. */

/** Row-major. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  /** `[rows, columns]` */
  readonly values: Float32Array;
}

/** `y = W·x + b` for every token. `[tokens, columns]` to `[tokens, rows]` */
export function linear(input: Float32Array, weight: Matrix, bias?: Float32Array): Float32Array {
  const { rows, columns, values } = weight;
  const tokens = input.length / columns;
  const output = new Float32Array(tokens * rows);
  for (let row = 0; row < rows; row++) {
    const offset = bias?.[row] ?? 0;
    for (let token = 0; token < tokens; token++) {
      output[token * rows + row] = offset + dot(values, row * columns, input, token * columns, columns);
    }
  }
  return output;
}

/** `a[aStart…] · b[bStart…]` over `length` elements. Four sums, because one would wait for itself at every step. */
export function dot(a: Float32Array, aStart: number, b: Float32Array, bStart: number, length: number): number {
  let sum0 = 0;
  let sum1 = 0;
  let sum2 = 0;
  let sum3 = 0;
  const whole = length - (length % 4);
  let i = 0;
  // `as number`: indices stay inside by construction, and a fallback would cost a branch an element.
  for (; i < whole; i += 4) {
    sum0 += (a[aStart + i] as number) * (b[bStart + i] as number);
    sum1 += (a[aStart + i + 1] as number) * (b[bStart + i + 1] as number);
    sum2 += (a[aStart + i + 2] as number) * (b[bStart + i + 2] as number);
    sum3 += (a[aStart + i + 3] as number) * (b[bStart + i + 3] as number);
  }
  for (; i < length; i++) sum0 += (a[aStart + i] as number) * (b[bStart + i] as number);
  return sum0 + sum1 + (sum2 + sum3);
}

/** `target += source` */
export function addTo(target: Float32Array, source: Float32Array): void {
  for (let i = 0; i < target.length; i++) target[i] = (target[i] as number) + (source[i] as number);
}
