/**
 * Softmax of the first `count` scores, in place. `sink` is one more logit that takes its share and has no value
 * (GPT-OSS), so that the rest sums to less than one.
 */
export function softmax(scores: Float64Array, count: number, sink = Number.NEGATIVE_INFINITY): void {
  let max = sink;
  for (let i = 0; i < count; i++) max = Math.max(max, scores[i] as number);
  let sum = Math.exp(sink - max);
  for (let i = 0; i < count; i++) {
    const exponential = Math.exp((scores[i] as number) - max);
    scores[i] = exponential;
    sum += exponential;
  }
  for (let i = 0; i < count; i++) scores[i] = (scores[i] as number) / sum;
}
