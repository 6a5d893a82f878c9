/** How long a product takes that is bound by memory, as decoding is. */
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { GraphBuilder } from './graphBuilder.ts';

/** Rows and columns of f32: 64 MB, which no cache holds. */
const size = 4096;
const runs = 7;

/** Of a vector and a matrix that has to come from memory. The median of some runs, in milliseconds. */
export async function productMs(threads: number): Promise<number> {
  const graph = new GraphBuilder('');
  const vector = graph.input('vector', 'float32', [1, size]);
  const matrix = graph.input('matrix', 'float32', [size, size]);
  graph.output(graph.op('MatMul', [vector, matrix]), 'product', 'float32', [1, size]);
  const session = await InferenceSession.create(graph.encode(), {
    executionProviders: ['cpu'],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
  });
  const feeds = {
    vector: new Tensor('float32', new Float32Array(size).fill(1), [1, size]),
    matrix: new Tensor('float32', new Float32Array(size * size).fill(1), [size, size]),
  };
  const times: number[] = [];
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    await session.run(feeds);
    times.push(performance.now() - start);
  }
  await session.release();
  return times.sort((a, b) => a - b)[runs >> 1] ?? 0;
}
