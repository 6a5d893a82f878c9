import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../../engine/backend/onnx/graphBuilder.ts';
import { integerGrids } from '../../../engine/backend/onnx/integerGrids.ts';
import { type GraphContext, linear, linearRows, linears, lookUp } from '../../../engine/backend/onnx/linear.ts';
import { WeightsLayout } from '../../../engine/backend/onnx/weightsFile.ts';
import { dequantise } from '../../../engine/formats/dequantise.ts';
import type { TensorType } from '../../../engine/formats/tensor.ts';
import { blockLayout, tensorTypes } from '../../../engine/formats/tensor.ts';
import type { Weight } from '../../../engine/model/weights/weights.ts';
import { fixtureFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

/** Blocks of every type, and the values that libggml's dequantisers give for them (gguf/codecs.json says from where). */
function codec(name: string): Uint8Array {
  const file = readFileSync(fixtureFile('gguf/codecs.safetensors'));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  const [begin, end] = header[name].data_offsets;
  return Uint8Array.from(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end));
}

const floats = (bytes: Uint8Array): Float32Array => new Float32Array(Uint8Array.from(bytes).buffer);

/** All blocks of a fixture, one block a row. */
function weightOf(type: TensorType, bytes: Uint8Array): Weight {
  const { bytes: rowBytes, elements: columns } = blockLayout(type);
  return {
    name: type,
    type,
    shape: [bytes.length / rowBytes, columns],
    readRows: async (start, count) => bytes.slice(start * rowBytes, (start + count) * rowBytes),
  };
}

/** Runs what `build` makes of one input. */
async function compute(
  build: (context: GraphContext) => void,
  input: Tensor,
  accuracyLevel: 0 | 4,
): Promise<Record<string, Float32Array>> {
  const directory = temporaryFolder();
  const graph = new GraphBuilder('weights');
  const layout = new WeightsLayout();
  build({ graph, layout, accuracyLevel, normEpsilon: 1e-6, blockMeans: new Map() });
  await layout.write(join(directory, 'weights'), () => {});
  const session = await InferenceSession.create(graph.encode(), {
    extra: { session: { model_external_initializers_file_folder_path: directory } },
  });
  const results = await session.run({ x: input });
  await session.release();
  return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data as Float32Array]));
}

/** `weight` times each unit vector: its values. `[rows, columns]` */
async function productsWithUnits(weight: Weight): Promise<Float32Array> {
  const [rows = 0, columns = 0] = weight.shape;
  const units = new Float32Array(columns * columns);
  for (let i = 0; i < columns; i++) units[i * columns + i] = 1;
  const build = (context: GraphContext) => {
    const x = context.graph.input('x', 'float32', [1, 'tokens', columns]);
    context.graph.output(linear(context, x, { weight }), 'y', 'float32', [1, 'tokens', rows]);
  };
  const { y = new Float32Array() } = await compute(build, new Tensor('float32', units, [1, columns, columns]), 0);
  return Float32Array.from(y, (_, i) => y[(i % columns) * rows + Math.floor(i / columns)] ?? Number.NaN);
}

async function lookedUp(weight: Weight): Promise<Float32Array> {
  const [rows = 0, columns = 0] = weight.shape;
  const ids = BigInt64Array.from({ length: rows }, (_, row) => BigInt(row));
  const build = (context: GraphContext) => {
    const x = context.graph.input('x', 'int64', [1, 'tokens']);
    context.graph.output(lookUp(context, weight, x), 'y', 'float32', [1, 'tokens', columns]);
  };
  return (await compute(build, new Tensor('int64', ids, [1, rows]), 0))['y'] ?? new Float32Array();
}

const quantised = tensorTypes.filter((type) => blockLayout(type).elements > 1);

describe('weights for ONNX Runtime', () => {
  it('keeps every quantised type on its integer grid', () => {
    expect(Object.keys(integerGrids).sort()).toEqual([...quantised].sort());
  });

  describe.each(quantised)('%s', (type) => {
    // A minimum takes up the grid's centre in f32, and is added to the product in f32: each may round once.
    const mayRound = integerGrids[type]?.minimum !== undefined;

    it.each(['', '.rand'])('multiplies by the values of libggml (%s)', async (kind) => {
      const weight = weightOf(type, codec(`${type}${kind}.bytes`));
      const expected = floats(codec(`${type}${kind}.values`));
      expectSame(await productsWithUnits(weight), expected, mayRound);
    });

    it.each(['', '.rand'])('looks up the values of libggml (%s)', async (kind) => {
      const weight = weightOf(type, codec(`${type}${kind}.bytes`));
      const expected = floats(codec(`${type}${kind}.values`));
      expectSame(await lookedUp(weight), expected, mayRound);
    });
  });

  it.each(['F32', 'F16', 'BF16'] as const)('multiplies by unchanged %s values', async (type) => {
    const { bytes: valueBytes } = blockLayout(type);
    // Numbers that all three types hold: bit patterns of small positive values.
    const bytes = Uint8Array.from({ length: 32 * valueBytes }, (_, i) => (i % valueBytes === valueBytes - 1 ? 60 : 0));
    const weight = { ...weightOf(type, bytes), shape: [2, 16], readRows: async () => bytes };
    expect(await productsWithUnits(weight)).toEqual(dequantise(type, bytes));
  });

  it('quantises activations to within half a step of the block’s grid if enabled', async () => {
    const weight = weightOf('Q8_0', codec('Q8_0.bytes'));
    const [rows = 0, columns = 0] = weight.shape;
    const values = floats(codec('Q8_0.values'));
    const x = Float32Array.from({ length: columns }, (_, i) => Math.sin(i + 1));
    const build = (context: GraphContext) => {
      const input = context.graph.input('x', 'float32', [1, 'tokens', columns]);
      context.graph.output(linear(context, input, { weight }), 'y', 'float32', [1, 'tokens', rows]);
    };
    const { y = new Float32Array() } = await compute(build, new Tensor('float32', x, [1, 1, columns]), 4);
    for (let row = 0; row < rows; row++) {
      let exact = 0;
      let absolute = 0;
      for (let column = 0; column < columns; column++) {
        const value = values[row * columns + column] ?? 0;
        exact += value * (x[column] ?? 0);
        absolute += Math.abs(value);
      }
      // Half a step of the block's grid, 1 / 127 of its largest value, for every element at worst.
      expect(Math.abs((y[row] ?? Number.NaN) - exact)).toBeLessThan((absolute * 0.5) / 127);
    }
  });

  it('splits one matmul between neighbours, each with its own rows', async () => {
    const bytes = codec('Q4_0.bytes');
    const weight = weightOf('Q4_0', bytes);
    const half = (weight.shape[0] ?? 0) / 2;
    const parts = [0, half].map((firstRow) => ({ weight: { weight, firstRow, rows: half } }));
    const build = (context: GraphContext) => {
      const x = context.graph.input('x', 'float32', [1, 'tokens', 32]);
      const whole = linears(context, x, [linearRows({ weight })])[0] ?? '';
      const [first = '', second = ''] = linears(context, x, parts);
      context.graph.output(whole, 'whole', 'float32', [1, 'tokens', 2 * half]);
      context.graph.output(first, 'first', 'float32', [1, 'tokens', half]);
      context.graph.output(second, 'second', 'float32', [1, 'tokens', half]);
    };
    const x = Float32Array.from({ length: 32 }, (_, i) => Math.cos(i));
    const { whole, first, second } = await compute(build, new Tensor('float32', x, [1, 1, 32]), 0);
    expect([...(first ?? []), ...(second ?? [])]).toEqual([...(whole ?? [])]);
  });
});

/** Equal, or within two roundings of the larger of the parts that make up a value. */
function expectSame(actual: Float32Array, expected: Float32Array, mayRound: boolean): void {
  expect(actual.length).toBe(expected.length);
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (const [i, value] of expected.entries()) {
    const difference = Math.abs((actual[i] ?? Number.NaN) - value);
    expect(difference, `element ${i}`).toBeLessThanOrEqual(mayRound ? largest * 2 ** -22 : 0);
  }
}
