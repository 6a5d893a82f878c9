import { readdir, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceSession } from 'onnxruntime-node';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Decoder, LoadOptions } from '../../../engine/backend/backend.ts';
import { buildDecoderGraph, notesOn } from '../../../engine/backend/onnx/decoderGraph.ts';
import { attentionMask, GraphRun, spanColumns } from '../../../engine/backend/onnx/graphRun.ts';
import { createOnnxBackend, onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { coresOfCpuInfo } from '../../../engine/backend/processor/threads.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { openModel } from '../../../engine/model/open.ts';
import { largestDifference } from '../goldens.ts';
import { fixtureFile, withRope } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

const llama = fixtureFile('goldens/llama');

async function load(options: Partial<LoadOptions> = {}): Promise<Decoder> {
  const { spec, weights, file } = await openModel(llama);
  try {
    const decoder = await onnxBackend.load(spec, weights, { contextTokens: 4096, ...options });
    onTestFinished(() => decoder.dispose());
    return decoder;
  } finally {
    await file.close();
  }
}

async function temporaryDirectory(): Promise<string> {
  const directory = temporaryFolder();
  return directory;
}

const temporaryWeights = async (): Promise<string[]> =>
  (await readdir(tmpdir())).filter((name) => name.startsWith('hearth-onnx-'));

describe('loading', () => {
  it('computes after the model file is closed', async () => {
    const decoder = await load();
    const [logits] = await decoder.run([{ sequence: decoder.createSequence(), tokens: [1, 2], logits: 'last' }]);
    expect(logits).toHaveLength(512);
  });

  it('writes the packed weights once, under the name of the digest', async () => {
    const cacheDirectory = join(await temporaryDirectory(), 'derived');
    await load({ cacheDirectory, digest: 'abc' });
    const [name = '', ...others] = (await readdir(cacheDirectory)).sort();
    expect(name).toMatch(/^abc\./);
    // The other file has this machine's thread measurement.
    expect(others).toEqual(['threads.json']);
    const written = await stat(join(cacheDirectory, name));
    await load({ cacheDirectory, digest: 'abc' });
    expect((await stat(join(cacheDirectory, name))).mtimeMs).toBe(written.mtimeMs);
  });

  it('writes packed weights again that were cut short', async () => {
    const cacheDirectory = await temporaryDirectory();
    const first = await load({ cacheDirectory, digest: 'abc' });
    const [name = ''] = (await readdir(cacheDirectory)).sort();
    const { size } = await stat(join(cacheDirectory, name));
    await first.dispose();
    await truncate(join(cacheDirectory, name), size / 2);
    await writeFile(join(cacheDirectory, `${name}.1.partial`), 'left by a killed process');
    await load({ cacheDirectory, digest: 'abc' });
    expect((await stat(join(cacheDirectory, name))).size).toBe(size);
  });

  it('leaves nothing on disk if it may not keep packed weights', async () => {
    const before = await temporaryWeights();
    const decoder = await load();
    await decoder.dispose();
    expect(await temporaryWeights()).toEqual(before);
  });

  it('does not block other work while it waits for its thread', async () => {
    const { spec, weights, file } = await openModel(llama);
    onTestFinished(() => file.close());
    const steps: string[] = [];
    const onProgress = () => steps.push('weights written');
    const meanwhile = () => steps.push('meanwhile');
    const decoder = await onnxBackend.load(spec, weights, { contextTokens: 64, onProgress, meanwhile });
    onTestFinished(() => decoder.dispose());
    steps.push('loaded');
    expect(steps.slice(-3)).toEqual(['weights written', 'meanwhile', 'loaded']);
    expect(steps.filter((step) => step === 'meanwhile')).toHaveLength(1);
  });

  it('reports its progress up to the end', async () => {
    const seen: number[] = [];
    let total = 0;
    await load({
      onProgress: ({ doneBytes, totalBytes }) => {
        seen.push(doneBytes);
        total = totalBytes;
      },
    });
    expect(seen.at(-1)).toBe(total);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  it('can be cancelled, and leaves nothing on disk', async () => {
    const before = await temporaryWeights();
    const cacheDirectory = await temporaryDirectory();
    const signal = AbortSignal.abort();
    await expect(load({ signal })).rejects.toMatchObject({ code: 'cancelled' });
    await expect(load({ signal, cacheDirectory, digest: 'abc' })).rejects.toMatchObject({ code: 'cancelled' });
    expect(await temporaryWeights()).toEqual(before);
    expect(await readdir(cacheDirectory)).toEqual([]);
  });

  it('names the folder that it can’t write weights to', async () => {
    const cacheDirectory = join(await temporaryDirectory(), 'file');
    await writeFile(cacheDirectory, '');
    await expect(load({ cacheDirectory, digest: 'abc' })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining(cacheDirectory),
    });
  });
});

describe('a forward pass', () => {
  it('does not block the calling thread', async () => {
    const decoder = await load();
    const tokens = Array.from({ length: decoder.maxTokensPerRun }, (_, i) => i);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    for (let i = 0; i < 4; i++) await decoder.run([{ sequence: decoder.createSequence(), tokens, logits: 'none' }]);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(4);
  });

  it('computes the same on one thread and on two', async () => {
    const logits: (Float32Array | undefined)[] = [];
    for (const threads of [1, 2]) {
      const decoder = await load({ threads });
      const tokens = [5, 6, 7, 8, 9];
      logits.push((await decoder.run([{ sequence: decoder.createSequence(), tokens, logits: 'all' }]))[0]);
    }
    expect(logits[1]).toEqual(logits[0]);
  });

  it.each(['half-split', 'interleaved'] as const)(
    'rotates a part of each head as the reference does (%s)',
    async (layout) => {
      const { spec, weights, file } = await openModel(llama);
      onTestFinished(() => file.close());
      const layers = spec.layers.map((layer) => ({
        ...layer,
        attention: withRope(layer.attention, { dimensions: 8, layout }),
      }));
      const [expected, actual] = await Promise.all(
        [referenceBackend, createOnnxBackend({ roundActivations: false, cachePrecision: 'f32' })].map(
          async (backend) => {
            const decoder = await backend.load({ ...spec, layers }, weights, { contextTokens: 64 });
            onTestFinished(() => decoder.dispose());
            return decoder.run([{ sequence: decoder.createSequence(), tokens: [1, 2, 3, 4, 5], logits: 'last' }]);
          },
        ),
      );
      expect(largestDifference(actual?.[0] ?? new Float32Array(), expected?.[0] ?? new Float32Array(1))).toBeLessThan(
        1e-4,
      );
    },
  );

  it('refuses tokens outside the vocabulary and changes nothing', async () => {
    const decoder = await load();
    const sequence = decoder.createSequence();
    await expect(decoder.run([{ sequence, tokens: [1, 512], logits: 'last' }])).rejects.toMatchObject({
      code: 'invalid-input',
    });
    expect(sequence.length).toBe(0);
  });

  it('refuses a sequence that was disposed, and one of another decoder', async () => {
    const [decoder, other] = [await load(), await load()];
    const sequence = decoder.createSequence();
    sequence.dispose();
    await expect(decoder.run([{ sequence, tokens: [1], logits: 'last' }])).rejects.toThrow('disposed');
    const foreign = other.createSequence();
    await expect(decoder.run([{ sequence: foreign, tokens: [1], logits: 'last' }])).rejects.toThrow('another decoder');
  });
});

describe('a prompt with attention scores beyond the memory limit', () => {
  it('is computed in chunks, with the same logits', async () => {
    const { spec, weights, file } = await openModel(llama);
    const directory = await temporaryDirectory();
    const graph = buildDecoderGraph(spec, weights, {
      weightsFile: 'weights',
      accuracyLevel: 0,
      cacheType: 'float32',
    });
    await graph.layout.write(join(directory, 'weights'), () => {});
    await file.close();
    const session = await InferenceSession.create(graph.model, {
      extra: { session: { model_external_initializers_file_folder_path: directory } },
    });
    const tokens = Array.from({ length: 100 }, (_, i) => i);
    const few = 6 * 4 * 500;
    const scoreBytes = { usual: few, max: few };
    const [whole, pieces] = [new GraphRun(session, graph.inputs), new GraphRun(session, graph.inputs, scoreBytes)];
    const layout = [[{ first: 0, columns: 128 }]];
    const slice = { layout, tokens, logits: 'all' } as const;
    const expected = await whole.run(whole.emptyCache(), slice);
    const actual = await pieces.run(pieces.emptyCache(), slice);
    expect(actual).toHaveLength(expected.length);
    expect(largestDifference(actual, expected)).toBeLessThan(1e-4);
    await session.release();
  });
});

describe('the model card', () => {
  it('mentions no rounding without quantised weights', async () => {
    const { weights, file } = await openModel(llama);
    expect(notesOn(weights, true)).toEqual(['BF16 weights are stored as 32-bit floats: the same values, more memory.']);
    await file.close();
  });

  it('names the types with rounded activations, and those that take more memory', async () => {
    const { weights, file } = await openModel(fixtureFile('goldens/gguf/gpt-oss-bf16.gguf'));
    const [rounded, widened, floats] = notesOn(weights, true);
    expect(rounded).toContain('MXFP4');
    expect(widened).toContain('MXFP4');
    expect(floats).toContain('BF16');
    expect(notesOn(weights, false)).toEqual([widened, floats]);
    await file.close();
  });
});

describe('the cache', () => {
  // 3 layers, keys and values of 2 heads of 16 f16.
  const tokenBytes = 3 * 2 * 2 * 16 * 2;

  it('takes at most an eighth or a block more than its tokens need', async () => {
    const decoder = await load();
    const sequence = decoder.createSequence();
    for (const tokens of [1, 99, 156, 256, 256]) {
      await decoder.run([{ sequence, tokens: new Array(tokens).fill(3), logits: 'none' }]);
      const { cacheBytes } = decoder.memory();
      expect(cacheBytes).toBeGreaterThanOrEqual(sequence.length * tokenBytes);
      expect(cacheBytes).toBeLessThanOrEqual((sequence.length * 1.125 + 64) * tokenBytes);
    }
  });

  it('is shared by forks until one writes', async () => {
    const decoder = await load();
    const sequence = decoder.createSequence();
    await decoder.run([{ sequence, tokens: new Array(200).fill(3), logits: 'none' }]);
    const { cacheBytes } = decoder.memory();
    const fork = sequence.fork();
    expect(decoder.memory().cacheBytes).toBe(cacheBytes);
    await decoder.run([{ sequence: fork, tokens: [3], logits: 'none' }]);
    expect(decoder.memory().cacheBytes).toBeGreaterThan(1.9 * cacheBytes);
  });

  it('is released when the sequence is disposed', async () => {
    const decoder = await load();
    const continued = decoder.createSequence();
    const sequence = decoder.createSequence();
    await decoder.run([{ sequence, tokens: new Array(250).fill(3), logits: 'none' }]);
    sequence.dispose();
    await decoder.run([{ sequence: continued, tokens: [3], logits: 'none' }]);
    expect(decoder.memory().cacheBytes).toBeLessThanOrEqual(64 * tokenBytes);
  });
});

describe('the attention mask', () => {
  /** Rows of 'x' for hidden columns, 'o' for visible ones. */
  const drawn = (dims: Parameters<typeof attentionMask>[0]): string[] => {
    const width = dims.columns + spanColumns;
    const requested = Array.from(attentionMask(dims), (value) => (value === 0 ? 'o' : 'x')).join('');
    return Array.from({ length: dims.count }, (_, row) =>
      requested.slice(row * width, (row + 1) * width).replace(/x+$/, ''),
    );
  };

  it('hides the empty columns of the cache and later tokens', () => {
    const endless = { start: 0, slidingWindow: Number.POSITIVE_INFINITY };
    const mask = drawn({ count: 3, columns: 4, length: 2, ...endless });
    expect(mask).toEqual(['xxxxooo', 'xxxxoooo', 'xxxxooooo']);
    const later = drawn({ count: 2, columns: 132, length: 129, ...endless });
    expect(later).toEqual([`${'o'.repeat(128)}xxxxoo`, `${'o'.repeat(128)}xxxxooo`]);
  });

  it('masks cached and new tokens outside the sliding window', () => {
    const mask = drawn({ count: 4, columns: 4, length: 3, start: 0, slidingWindow: 3 });
    expect(mask).toEqual(['xxxxxooo', 'xxxxxxooo', 'xxxxxxxooo', 'xxxxxxxxooo']);
    const later = drawn({ count: 3, columns: 4, length: 129, start: 126, slidingWindow: 3 });
    expect(later).toEqual(['xoxxoo', 'xxxxooo', 'xxxxxooo']);
  });
});

describe('counting cores', () => {
  it('counts two threads of one core once', () => {
    const processor = (package_: number, core: number) =>
      `processor\t: 0\nphysical id\t: ${package_}\ncore id\t\t: ${core}\n`;
    expect(coresOfCpuInfo([processor(0, 0), processor(0, 1), processor(0, 0), processor(1, 0)].join('\n'))).toBe(3);
  });

  it('assumes nothing if the file doesn’t say', () => {
    expect(coresOfCpuInfo('processor\t: 0\nBogoMIPS\t: 50.00\n')).toBeUndefined();
  });
});
