import { cp, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { findEntry } from '../../../engine/catalogue/catalogue.ts';
import { snapshotDirectory } from '../../../engine/catalogue/files.ts';
import { ModelDigest } from '../../../engine/catalogue/manifest.ts';
import { listSnapshots, writeSnapshot } from '../../../engine/kv/snapshotFile.ts';
import { completeParams, warmParams } from '../../../engine/protocol/engineProtocol.ts';
import { loadParams } from '../../../engine/protocol/models.ts';
import { Engine } from '../../../engine/runtime/service.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { makeTinyModel } from './tinyModel.ts';

let store: string;
let model: string;
const engines: Engine[] = [];

beforeAll(async () => {
  const tiny = await makeTinyModel();
  store = temporaryFolder();
  // Its folder's name says the digest, as in the model store.
  model = join(store, 'models', `sha256-${'c'.repeat(64)}`);
  await cp(tiny.path, model, { recursive: true });
  await tiny.remove();
});
afterAll(async () => {
  for (const engine of engines) await engine.unload();
});

async function started(fields: object = {}): Promise<Engine> {
  const engine = new Engine({ storeDirectory: store, onDelta: () => {}, onProgress: () => {} });
  engines.push(engine);
  await engine.load(loadParams.parse({ model, backend: 'onnx', contextTokens: 1024, ...fields }));
  return engine;
}

const place = { prefix: 'value = other(1)\n'.repeat(60), suffix: '\n' };
const complete = (engine: Engine) =>
  engine.complete(completeParams.parse({ ...place, maxTokens: 8, sampling: { temperature: 0 } }));
const stored = () => listSnapshots(snapshotDirectory(store));

describe('an engine that is started again', () => {
  it('finds the warmed-up prompt and completes the same', { timeout: 60_000 }, async () => {
    const first = await started();
    await first.warm(warmParams.parse({ kind: 'completion', ...place }));
    // Snapshots are written after some idle seconds.
    while ((await stored()).length === 0) await new Promise((resolve) => setTimeout(resolve, 50));
    const before = await complete(first);
    const second = await started();
    const after = await complete(second);
    expect(after.statistics.cachedTokens).toBeGreaterThan(256);
    expect(after.text).toBe(before.text);
    expect((await stored()).map(({ header }) => header.model)).toEqual([`sha256-${'c'.repeat(64)}`]);
  });

  it('restores what was used last before the first request', { timeout: 60_000 }, async () => {
    const engine = await started();
    const [{ bytes } = { bytes: 0 }] = await stored();
    await vi.waitFor(() => expect(engine.status().cacheBytes).toBeGreaterThan(bytes / 2), { timeout: 30_000 });
    // Nothing can be read from there any more.
    const away = `${snapshotDirectory(store)}.away`;
    await rename(snapshotDirectory(store), away);
    const { statistics } = await complete(engine);
    await rename(away, snapshotDirectory(store));
    expect(statistics.cachedTokens).toBeGreaterThan(256);
  });

  it('restores nothing if the disk is not used', async () => {
    const engine = await started({ diskCacheBytes: 0 });
    await sleep(200);
    expect(engine.status().cacheBytes).toBe(0);
    expect((await complete(engine)).statistics.cachedTokens).toBe(0);
  });

  it('has nothing cached after clearing, in memory or on disk', async () => {
    const engine = await started();
    await complete(engine);
    const [{ bytes } = { bytes: 0 }] = await stored();
    expect(await engine.clearCache()).toEqual({ files: 1, bytes });
    expect(await stored()).toEqual([]);
    expect(engine.status().cacheBytes).toBe(0);
    expect((await complete(engine)).statistics.cachedTokens).toBe(0);
  });
});

it('removes the snapshots of a removed model and keeps those of others', async () => {
  const storeDirectory = temporaryFolder();
  const directory = snapshotDirectory(storeDirectory);
  await mkdir(directory, { recursive: true });
  const [name = '', other] = [findEntry('smollm2-135m-instruct')?.name, 'Other'];
  async function* pieces(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(8);
  }
  for (const model of [name, other]) {
    const header = { identity: 'a'.repeat(64), model, tokens: [1, 2], held: [[0, 2]], pieceBytes: [8] };
    await writeSnapshot(join(directory, `${model}.kv`), header, pieces(), new AbortController().signal);
  }
  const { models } = new Engine({ storeDirectory, onDelta: () => {}, onProgress: () => {} });
  await models.remove('smollm2-135m-instruct');
  expect((await listSnapshots(directory)).map(({ header }) => header.model)).toEqual([other]);
});

describe("an engine with a user's own model", () => {
  it('keeps snapshots once the digest of the files is known, and none when the files change', {
    timeout: 60_000,
  }, async () => {
    const own = await makeTinyModel();
    const isStored = async () => (await stored()).some(({ header }) => header.model === basename(own.path));
    const first = await started({ model: own.path });
    await first.warm(warmParams.parse({ kind: 'completion', ...place }));
    while (!(await isStored())) await sleep(50);
    const before = await complete(first);
    const second = await started({ model: own.path });
    const after = await complete(second);
    expect(after.statistics.cachedTokens).toBeGreaterThan(256);
    expect(after.text).toBe(before.text);
    const config = join(own.path, 'config.json');
    await writeFile(config, `${await readFile(config, 'utf8')}\n`);
    const third = await started({ model: own.path });
    const digest = async () => (await ModelDigest.of(own.path, store)).known;
    await vi.waitFor(async () => expect(await digest()).toBeDefined(), { timeout: 30_000 });
    expect((await complete(third)).statistics.cachedTokens).toBe(0);
    await third.unload();
    await own.remove();
  });
});
