/** Root-mean-square normalisation (Zhang and Sennrich 2019): `x · w / sqrt(mean(x²) + epsilon)`. */

/** Normalises every run of `weight.length` elements: a token's hidden state, or one head of it. Returns new values. */
export function rmsNorm(input: Float32Array, weight: Float32Array, epsilon: number): Float32Array {
  const width = weight.length;
  const output = new Float32Array(input.length);
  for (let start = 0; start < input.length; start += width) {
    let squares = 0;
    for (let i = start; i < start + width; i++) squares += (input[i] as number) ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) output[start + i] = (input[start + i] as number) * scale * (weight[i] as number);
  }
  return output;
}
