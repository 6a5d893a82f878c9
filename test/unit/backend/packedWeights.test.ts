import { spawnSync } from 'node:child_process';
import { chmod, cp, mkdir, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import type { Decoder, LoadOptions } from '../../../engine/backend/backend.ts';
import { onnxBackend } from '../../../engine/backend/onnx/index.ts';
import { referenceBackend } from '../../../engine/backend/reference/index.ts';
import { createStagedBackend } from '../../../engine/backend/split/index.ts';
import { openModel } from '../../../engine/model/open.ts';
import { completeParams } from '../../../engine/protocol/engineProtocol.ts';
import { loadParams, type ModelChange } from '../../../engine/protocol/models.ts';
import { Engine } from '../../../engine/runtime/service.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { fixtureFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let cacheDirectory: string;
beforeEach(() => {
  cacheDirectory = join(temporaryFolder(), 'derived');
});

async function load(options: Partial<LoadOptions> = { digest: 'abc' }): Promise<Decoder> {
  const { spec, weights, file } = await openModel(fixtureFile('goldens/llama'));
  try {
    const decoder = await onnxBackend.load(spec, weights, {
      contextTokens: 64,
      threads: 1,
      cacheDirectory,
      ...options,
    });
    onTestFinished(() => decoder.dispose());
    return decoder;
  } finally {
    await file.close();
  }
}

async function logitsOf(decoder: Decoder): Promise<Float32Array | undefined> {
  const [logits] = await decoder.run([{ sequence: decoder.createSequence(), tokens: [1, 2, 3], logits: 'last' }]);
  return logits;
}

async function packed(directory = cacheDirectory): Promise<string> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.weights'));
  expect(names).toHaveLength(1);
  return join(directory, names[0] ?? '');
}

/** Changes a read-only file, as a faulty disk does. */
async function overwrite(path: string, change: (bytes: Buffer) => Buffer): Promise<void> {
  await chmod(path, 0o600);
  await writeFile(path, change(await readFile(path)));
}

const trailerBytes = 12;

/** Every weight is NaN (all bits set, in f32), and the checksum fits. */
function notNumbers(bytes: Buffer): Buffer {
  bytes.fill(0xff, 0, bytes.length - trailerBytes);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, bytes.length - trailerBytes)), bytes.length - 4);
  return bytes;
}

describe('damaged packed weights', () => {
  it.each<[string, (bytes: Buffer) => Buffer]>([
    ['all zeros', (bytes) => bytes.fill(0)],
    ['zeros before an intact end', (bytes) => bytes.fill(0, 0, bytes.length - trailerBytes)],
    ['one flipped bit', (bytes) => bytes.fill((bytes[5000] ?? 0) ^ 1, 5000, 5001)],
    ['a flipped bit of the checksum', (bytes) => bytes.fill((bytes.at(-1) ?? 0) ^ 1, bytes.length - 1)],
    [
      'two exchanged pages',
      (bytes) => Buffer.concat([bytes.subarray(4096, 8192), bytes.subarray(0, 4096), bytes.subarray(8192)]),
    ],
    ['half of the file', (bytes) => bytes.subarray(0, bytes.length / 2)],
    ['no bytes', () => Buffer.alloc(0)],
  ])('are rebuilt once, as the model card says: %s', async (_, change) => {
    const first = await load();
    const logits = await logitsOf(first);
    await first.dispose();
    const path = await packed();
    const intact = await readFile(path);
    await overwrite(path, change);
    const second = await load();
    expect(await logitsOf(second)).toEqual(logits);
    expect(second.notes).toContain('The packed weights were damaged and have been built again from the model.');
    expect((await readFile(path)).equals(intact)).toBe(true);
    expect((await load()).notes.join()).not.toContain('damaged');
  });

  it('end a forward pass that yields NaN, and are removed', async () => {
    await (await load()).dispose();
    await overwrite(await packed(), notNumbers);
    const decoder = await load();
    await expect(logitsOf(decoder)).rejects.toMatchObject({
      code: 'device-lost',
      message: expect.stringContaining('packed weights of this model were damaged'),
    });
    expect(await readdir(cacheDirectory)).toEqual([]);
    expect((await logitsOf(await load()))?.every(Number.isFinite)).toBe(true);
  });

  it.each<[string, (bytes: Buffer) => Buffer]>([
    ['filled with zeros', (bytes) => bytes.fill(0, 0, bytes.length - trailerBytes)],
    ['cut short, which would end the process at the next access', (bytes) => bytes.subarray(0, 4096)],
    ['emptied', () => Buffer.alloc(0)],
  ])('are detected while they are mapped, before any computation: %s', async (_, change) => {
    const decoder = await load();
    const logits = await logitsOf(decoder);
    await overwrite(await packed(), change);
    await expect(logitsOf(decoder)).rejects.toMatchObject({ code: 'device-lost' });
    await decoder.dispose();
    expect(await logitsOf(await load())).toEqual(logits);
  });

  it('may be removed or replaced while they are mapped, which changes nothing', async () => {
    const decoder = await load();
    const logits = await logitsOf(decoder);
    const path = await packed();
    await rm(path);
    expect(await logitsOf(decoder)).toEqual(logits);
    await writeFile(path, 'another file');
    expect(await logitsOf(decoder)).toEqual(logits);
  });

  it('are rebuilt if a folder has their name', async () => {
    await (await load()).dispose();
    const path = await packed();
    await rm(path);
    await mkdir(path);
    expect(await logitsOf(await load())).toHaveLength(512);
  });

  it('are rebuilt during a completion, which continues with the same text and one notice', async () => {
    const [store, tiny] = [temporaryFolder(), await makeTinyModel()];
    const model = join(store, 'models', `sha256-${'c'.repeat(64)}`);
    await cp(tiny.path, model, { recursive: true });
    await tiny.remove();
    const changes: ModelChange[] = [];
    const complete = async (): Promise<string> => {
      const onModelChange = (change: ModelChange) => void changes.push(change);
      const engine = new Engine({ storeDirectory: store, onDelta: () => {}, onProgress: () => {}, onModelChange });
      onTestFinished(() => engine.unload());
      await engine.load(
        loadParams.parse({ model, backend: 'onnx', contextTokens: 256, threads: 1, diskCacheBytes: 0 }),
      );
      const { text } = await engine.complete(completeParams.parse({ prefix: 'a = ', suffix: '', maxTokens: 6 }));
      return text;
    };
    const text = await complete();
    await overwrite(await packed(join(store, 'derived')), notNumbers);
    expect(await complete()).toBe(text);
    expect(changes.map(({ message }) => message)).toEqual([
      expect.stringMatching(
        /^The packed weights of this model were damaged, so they were removed .* answers continue where they stopped\.$/,
      ),
    ]);
    expect(await complete()).toBe(text);
    expect(changes).toHaveLength(1);
  });

  it('of a model outside of the store are kept until its files change, or are gone at the next load', async () => {
    const [store, tiny, second] = [temporaryFolder(), await makeTinyModel(), await makeTinyModel()];
    onTestFinished(() => Promise.all([tiny.remove(), second.remove()]).then(() => undefined));
    const derived = join(store, 'derived');
    /** Name and inode of what a start leaves. */
    const left = async ({ path } = tiny) => {
      const engine = new Engine({ storeDirectory: store, onDelta: () => {}, onProgress: () => {} });
      const wish = { model: path, backend: 'onnx', contextTokens: 256, threads: 1, diskCacheBytes: 0 };
      await engine.load(loadParams.parse(wish));
      await engine.unload();
      const names = (await readdir(derived)).filter((name) => name.endsWith('.weights'));
      return Promise.all(names.map(async (name) => [name, (await stat(join(derived, name))).ino]));
    };
    const first = await left();
    expect(first).toEqual([
      [expect.stringMatching(/^[0-9a-f]{64}\.at[0-9a-f]{16}\.onnx\d+\.weights$/), expect.anything()],
    ]);
    expect(await left()).toEqual(first);
    await utimes(join(tiny.path, 'config.json'), 1, 1);
    const other = await left();
    expect(other).toHaveLength(1);
    expect(other[0]?.[0]).not.toBe(first[0]?.[0]);
    expect(await left(second)).toHaveLength(2);
    await tiny.remove();
    const [last, ...rest] = await left(second);
    expect(rest).toEqual([]);
    expect(last?.[0]).not.toBe(other[0]?.[0]);
  });

  it("are not blamed if the model's own weights yield NaN", async () => {
    const { spec, weights, file } = await openModel(fixtureFile('goldens/llama'));
    onTestFinished(() => file.close());
    const finalNorm = {
      ...weights.finalNorm,
      readRows: async () => new Uint8Array(await weights.finalNorm.readRows(0, 1)).fill(0xff),
    };
    const decoder = await onnxBackend.load(spec, { ...weights, finalNorm }, { contextTokens: 64, threads: 1 });
    onTestFinished(() => decoder.dispose());
    await expect(logitsOf(decoder)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/^The model's results are not finite numbers[^\n]*$/),
    });
  });
});

describe('the folder of packed weights', () => {
  it('also holds the packed weights of a model without a digest, until it is closed', async () => {
    const decoder = await load({});
    const path = await packed();
    expect(path).toContain(`temporary-${process.pid}-`);
    await decoder.dispose();
    expect(await readdir(cacheDirectory)).toEqual([]);
  });

  it('loses only the leftovers of killed processes and older versions', async () => {
    // A process that has ended: its id is free.
    const { pid } = spawnSync(process.execPath, ['--eval', '']);
    await mkdir(cacheDirectory);
    const digest = 'd'.repeat(64);
    const left = [`temporary-${pid}-0a0b.weights`, `${digest}.onnx2.weights.${pid}.partial`, `${digest}.onnx1.weights`];
    const used = [`temporary-${process.ppid}-0a0b.weights`, `${digest}.onnx2.weights`, 'notes.txt'];
    for (const name of [...left, ...used]) await writeFile(join(cacheDirectory, name), 'x');
    await load({});
    const names = await readdir(cacheDirectory);
    expect(names).toEqual(expect.arrayContaining(used));
    for (const name of left) expect(names).not.toContain(name);
  });

  it('keeps the layers of one split of a model, and files of other models', async () => {
    await mkdir(cacheDirectory);
    const others = ['abc.onnx2.weights', 'abcd.layers0to1.onnx2.weights'];
    for (const name of [...others, 'abc.layers0to1.onnx2.weights']) await writeFile(join(cacheDirectory, name), 'x');
    const { spec, weights, file } = await openModel(fixtureFile('goldens/llama'));
    const layers = spec.layers.length;
    const backend = createStagedBackend([
      { backend: onnxBackend, layers: layers - 1 },
      { backend: referenceBackend, layers: 1 },
    ]);
    for (let start = 0; start < 2; start++) {
      const decoder = await backend.load(spec, weights, {
        contextTokens: 64,
        threads: 1,
        cacheDirectory,
        digest: 'abc',
      });
      await decoder.dispose();
      const names = await readdir(cacheDirectory);
      expect(names.sort()).toEqual([`abc.layers0to${layers - 1}.onnx2.weights`, ...others].sort());
    }
    await file.close();
  });

  it.skipIf(process.platform === 'win32' || process.getuid?.() === 0)(
    'keeps other programs from truncating files while they are mapped (except root)',
    async () => {
      await load();
      await expect(truncate(await packed(), 0)).rejects.toMatchObject({ code: 'EACCES' });
    },
  );
});
