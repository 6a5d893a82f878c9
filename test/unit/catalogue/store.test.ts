import { mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { CatalogueEntry } from '../../../engine/catalogue/catalogue.ts';
import { requireSpace, type StoreProgress } from '../../../engine/catalogue/files.ts';
import { stateName } from '../../../engine/catalogue/manifest.ts';
import { stagingFolder } from '../../../engine/catalogue/sources.ts';
import { openStore, type Store, toModelEntry } from '../../../engine/catalogue/store.ts';
import { modelEntry } from '../../../engine/protocol/models.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { type FileServer, sendHubFile, startServer } from './fileServer.ts';
import { filesBelow, randomBytes, sha256, testEntry } from './tools.ts';

const servers: FileServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

const content = randomBytes(30_000);
const hardware = { totalMemoryBytes: 16e9, freeMemoryBytes: 8e9, cores: 8 };
const installedFolder = `models/sha256-${sha256(content)}`;

/** A hub that serves one file under every name, or the given files. */
async function serveHub(files: Readonly<Record<string, Buffer>> = {}): Promise<FileServer> {
  const server = await startServer((request, response) => {
    const name = /([^/?]+)(\?|$)/.exec(request.url ?? '')?.[1] ?? '';
    const body = files[name] ?? content;
    return sendHubFile(server, request, response, body, sha256(body));
  });
  servers.push(server);
  return server;
}

async function open(server: FileServer, entry: CatalogueEntry = testEntry(content)): Promise<Store> {
  return openStore({
    directory: temporaryFolder(),
    entries: [entry],
    endpoints: { hub: new URL(server.origin), index: new URL(`${server.origin}/simple`) },
    retry: { attempts: 1, firstWaitMs: 1, idleMs: 5000 },
    hardware,
  });
}

const failure = (work: Promise<unknown>) =>
  work.then(
    () => expect.fail('It succeeded.'),
    (error: Error) => error,
  );

const sharded = {
  'config.json': Buffer.from('{}'),
  'model-00001-of-00002.safetensors': randomBytes(9000, 11),
  'model-00002-of-00002.safetensors': randomBytes(7000, 12),
};
const shardedEntry = testEntry(content, {
  files: Object.entries(sharded).map(([name, body]) => ({ name, bytes: body.length, sha256: sha256(body) })),
});

describe('a store', () => {
  it('lists every model as absent at first', async () => {
    const [model] = await (await open(await serveHub())).list();
    expect(model).toMatchObject({
      state: 'absent',
      partialBytes: 0,
      recommendedFor: ['chat'],
      fit: { verdict: 'good' },
    });
    expect(model?.path).toBeUndefined();
  });

  it('installs a model in a folder named by its digest, and leaves nothing else', async () => {
    const store = await open(await serveHub());
    const model = await store.pull('tiny');
    expect(model).toMatchObject({ state: 'present', path: join(store.directory, installedFolder, 'tiny.gguf') });
    expect(await filesBelow(store.directory)).toEqual([
      `${installedFolder}/manifest.json`,
      `${installedFolder}/tiny.gguf`,
    ]);
    expect(await store.resolve('tiny')).toBe(model.path);
  });

  it('sends no request for an installed model', async () => {
    const server = await serveHub();
    const store = await open(server);
    await store.pull('tiny');
    await server.close();
    expect((await store.pull('tiny')).state).toBe('present');
  });

  it('loads a checkpoint of several files from their folder', async () => {
    const store = await open(await serveHub(sharded), shardedEntry);
    const { path } = await store.pull('tiny');
    expect(await filesBelow(path ?? '')).toEqual([...Object.keys(sharded), 'manifest.json'].sort());
  });

  it('downloads only missing files', async () => {
    const server = await serveHub(sharded);
    const good = server.handle;
    server.handle = (request, response) =>
      request.url?.includes('00002-of') ? void response.writeHead(404).end() : good(request, response);
    const store = await open(server, shardedEntry);
    await failure(store.pull('tiny'));
    expect(await store.get('tiny')).toMatchObject({ state: 'partial', partialBytes: 9002 });
    server.handle = good;
    server.requests.length = 0;
    await store.pull('tiny');
    expect(server.requests.filter((request) => request.path.includes('00001-of'))).toEqual([]);
  });

  it('reports progress up to the total', async () => {
    const store = await open(await serveHub());
    const seen: StoreProgress[] = [];
    await store.pull('tiny', { onProgress: (progress) => seen.push(progress) });
    const whole = { phase: 'download', doneBytes: content.length, totalBytes: content.length };
    expect(seen.at(-1)).toMatchObject({ ...whole, source: 'Hugging Face (owner/tiny)' });
  });

  it('describes models as the protocol requires', async () => {
    const store = await open(await serveHub());
    for (const model of [await store.get('tiny'), await store.pull('tiny')]) {
      expect(modelEntry.strict().parse(toModelEntry(model))).toMatchObject({ id: 'tiny', state: model.state });
    }
  });
});

describe('resolving', () => {
  it('says how to download a missing model', async () => {
    const error = await failure((await open(await serveHub())).resolve('tiny'));
    expect(error).toMatchObject({ code: 'not-found', message: expect.stringContaining('`hearth models pull tiny`') });
  });

  it("uses the user's own file or folder in place", async () => {
    const store = await open(await serveHub());
    const folder = temporaryFolder();
    await writeFile(join(folder, 'own.gguf'), 'x');
    expect(await store.resolve(join(folder, 'own.gguf'))).toBe(join(folder, 'own.gguf'));
    expect(await store.resolve(folder)).toBe(folder);
  });

  it.each([
    ['an unknown name', 'nothing-like-this'],
    ['an empty name', ''],
    ['a missing file', '/nowhere/at/all.gguf'],
    ['a name with a null character', 'tiny\0'],
    ['a name of 9,001 characters', `x${'y'.repeat(9000)}`],
  ])('reports that %s is neither a model nor a file', async (_, name) => {
    const store = await open(await serveHub());
    expect(await failure(store.resolve(name))).toMatchObject({ code: 'not-found' });
  });

  it.each(['pull', 'verify', 'remove', 'get'] as const)(
    '%s accepts only models of the catalogue',
    async (operation) => {
      const store = await open(await serveHub());
      for (const id of ['../../etc', 'unknown', '', 'tiny/../tiny', '__proto__', 'TINY']) {
        expect(await failure(store[operation](id))).toMatchObject({ code: 'not-found' });
      }
      expect(await filesBelow(store.directory)).toEqual([]);
    },
  );
});

describe('verifying', () => {
  it('accepts an intact model', async () => {
    const store = await open(await serveHub());
    await store.pull('tiny');
    expect((await store.verify('tiny')).state).toBe('present');
  });

  it('detects one changed bit and removes the file, and the next pull repairs it', async () => {
    const store = await open(await serveHub());
    const { path = '' } = await store.pull('tiny');
    const bytes = await readFile(path);
    bytes.writeUInt8(bytes.readUInt8(12_345) ^ 1, 12_345);
    await writeFile(path, bytes);
    expect(await failure(store.verify('tiny'))).toMatchObject({
      code: 'invalid-input',
      message: 'tiny.gguf of Tiny was damaged and has been removed. Download it again with `hearth models pull tiny`.',
    });
    expect((await store.get('tiny')).state).toBe('absent');
    expect(await readFile((await store.pull('tiny')).path ?? '')).toEqual(content);
  });

  it('keeps the intact files of a damaged model', async () => {
    const server = await serveHub(sharded);
    const store = await open(server, shardedEntry);
    const { path = '' } = await store.pull('tiny');
    await writeFile(join(path, 'model-00002-of-00002.safetensors'), Buffer.alloc(7000));
    await failure(store.verify('tiny'));
    server.requests.length = 0;
    await store.pull('tiny');
    expect(server.requests.filter((request) => !request.path.includes('00002-of'))).toEqual([]);
    expect((await store.verify('tiny')).state).toBe('present');
  });
});

describe('removing', () => {
  it('removes the model and its unfinished downloads, and nothing else', async () => {
    const server = await serveHub();
    const store = await open(server);
    await store.pull('tiny');
    await writeFile(join(store.directory, 'notes.txt'), 'mine');
    await mkdir(join(store.directory, 'models', 'other'));
    await writeFile(join(store.directory, 'models', 'other', 'keep'), 'mine');
    const [source] = testEntry(content).sources;
    if (!source) throw new Error('The entry has no source.');
    const staging = stagingFolder(store.directory, testEntry(content), source);
    await mkdir(staging, { recursive: true });
    await writeFile(join(staging, 'tiny.gguf.partial'), 'left');
    expect((await store.remove('tiny')).state).toBe('absent');
    expect(await filesBelow(store.directory)).toEqual(['models/other/keep', 'notes.txt']);
  });

  it('removes what was computed from models that are no longer there', async () => {
    const store = await open(await serveHub());
    await store.pull('tiny');
    const derived = join(store.directory, 'derived');
    const gone = `${'a'.repeat(64)}.onnx2.weights`;
    const [elsewhere, goneElsewhere] = [join(temporaryFolder(), 'own.gguf'), join(temporaryFolder(), 'gone.gguf')];
    const ofFile = async (path: string): Promise<string> => {
      await writeFile(path, content);
      return `${await stateName(path, store.directory)}.onnx2.weights`;
    };
    const kept = await ofFile(elsewhere);
    const names = [`${sha256(content)}.onnx2.weights`, gone, kept, await ofFile(goneElsewhere), 'threads.json'];
    for (const name of names) await writeFile(join(derived, name), 'computed');
    await rm(goneElsewhere);
    await store.remove('tiny');
    const left = (await filesBelow(store.directory)).filter((name) => name.startsWith('derived'));
    const place = `${sha256(elsewhere)}.place`;
    expect(left).toEqual([`derived/${kept}`, `derived/${place}`, 'derived/threads.json'].sort());
  });

  it('does not follow a symbolic link out of the store', async () => {
    const store = await open(await serveHub());
    await store.pull('tiny');
    const elsewhere = temporaryFolder();
    await rename(join(store.directory, installedFolder), join(elsewhere, 'model'));
    await symlink(join(elsewhere, 'model'), join(store.directory, installedFolder));
    await store.remove('tiny');
    expect(await filesBelow(elsewhere)).toContain('model/tiny.gguf');
  });
});

describe('an imported model', () => {
  it('is recognised, copied and verified', async () => {
    const server = await serveHub();
    const store = await open(server);
    const folder = temporaryFolder();
    await writeFile(join(folder, 'from-a-stick.bin'), content);
    const model = await store.add(join(folder, 'from-a-stick.bin'));
    expect(await readFile(model.path ?? '')).toEqual(content);
    expect(server.requests).toEqual([]);
  });

  it('can be a folder with a checkpoint', async () => {
    const store = await open(await serveHub(), shardedEntry);
    const folder = temporaryFolder();
    for (const [name, body] of Object.entries(sharded)) await writeFile(join(folder, name), body);
    expect((await store.add(folder)).state).toBe('present');
    expect((await store.verify('tiny')).state).toBe('present');
  });

  it('is rejected if it is damaged or no model', async () => {
    const store = await open(await serveHub());
    const folder = temporaryFolder();
    await writeFile(join(folder, 'damaged'), randomBytes(content.length, 77));
    await writeFile(join(folder, 'other'), 'x');
    expect((await failure(store.add(join(folder, 'damaged')))).message).toContain('damaged or a different file');
    expect((await failure(store.add(join(folder, 'other')))).message).toContain('not a GGUF file');
    expect((await failure(store.add(join(folder, 'absent')))).message).toContain(': not found');
    expect((await store.get('tiny')).state).toBe('absent');
  });
});

describe('a disk', () => {
  it('that is too small is reported before the download', async () => {
    const folder = temporaryFolder();
    const needs = [
      { what: 'the download', bytes: Number.MAX_SAFE_INTEGER },
      { what: 'unpacking it', bytes: 0 },
      { what: "the CPU's packed weights", bytes: 2e9 },
    ];
    const { message } = await failure(requireSpace(folder, needs));
    expect(message).toContain(
      `The disk of ${folder} is too full: 9010 TB for the download and 2 GB for the CPU's packed weights are needed`,
    );
    // 256 MiB, limits.store.diskReserveBytes.
    expect(message).toContain('268 MB stay free for other programs');
    expect(message).toMatch(/Free 9010 TB, or set HEARTH_HOME to another folder\.$/);
  });

  it('that cannot be written stops the pull without trying other sources', async () => {
    const server = await serveHub();
    const directory = join(temporaryFolder(), 'file');
    await writeFile(directory, 'not a folder');
    const store = openStore({ directory, entries: [testEntry(content)] });
    expect(await failure(store.pull('tiny'))).toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('Could not write'),
    });
    expect((await store.list())[0]?.state).toBe('absent');
    expect(server.requests).toEqual([]);
  });
});

describe('after the process died at any moment', () => {
  /** Moments when every byte is on disk, so that the next pull needs no server. */
  const nothingToFetch = /not yet|state not/;
  /** Disk states between the steps of a pull, produced by undoing its last steps. */
  const moments: Record<string, (installed: string, staging: string) => Promise<void>> = {
    'the whole partial was there, not yet verified': async (installed, staging) => {
      await rename(installed, staging);
      await rm(join(staging, 'manifest.json'));
      await rename(join(staging, 'tiny.gguf'), join(staging, 'tiny.gguf.partial'));
      await writeFile(join(staging, 'tiny.gguf.state.json'), JSON.stringify({ version: 1, sha256: sha256(content) }));
    },
    'it was verified, not yet named': async (installed, staging) => {
      await rename(installed, staging);
      await rm(join(staging, 'manifest.json'));
      await rename(join(staging, 'tiny.gguf'), join(staging, 'tiny.gguf.partial'));
      await writeFile(join(staging, 'tiny.gguf.state.json'), complete);
    },
    'it had its name, not yet its manifest': async (installed, staging) => {
      await rename(installed, staging);
      await rm(join(staging, 'manifest.json'));
      await writeFile(join(staging, 'tiny.gguf.state.json'), complete);
    },
    'the manifest was written, the folder not yet moved': async (installed, staging) => {
      await rename(installed, staging);
      await writeFile(join(staging, 'tiny.gguf.state.json'), complete);
    },
    'the folder was moved, the state not yet cleaned up': (installed) =>
      writeFile(join(installed, 'tiny.gguf.state.json'), complete),
    'the state was half written': async (installed, staging) => {
      await rename(installed, staging);
      await rm(join(staging, 'manifest.json'));
      await rename(join(staging, 'tiny.gguf'), join(staging, 'tiny.gguf.partial'));
      await writeFile(join(staging, 'tiny.gguf.state.json'), '{"version": 1, "sha2');
    },
    'the removal had begun': (installed) => rm(join(installed, 'manifest.json')),
    'the manifest was damaged': (installed) => writeFile(join(installed, 'manifest.json'), '{}'),
    'the file had lost its end': (installed) => writeFile(join(installed, 'tiny.gguf'), content.subarray(0, 100)),
  };
  const complete = JSON.stringify({ version: 1, complete: { bytes: content.length, sha256: sha256(content) } });

  it.each(Object.keys(moments))('the next pull succeeds: %s', async (moment) => {
    const entry = testEntry(content);
    const server = await serveHub();
    const store = await open(server, entry);
    await store.pull('tiny');
    const [source] = entry.sources;
    if (!source) throw new Error('The entry has no source.');
    await mkdir(join(store.directory, 'downloads'), { recursive: true });
    await moments[moment]?.(join(store.directory, installedFolder), stagingFolder(store.directory, entry, source));
    if (nothingToFetch.test(moment)) await server.close();
    const { path = '' } = await store.pull('tiny');
    expect(await readFile(path)).toEqual(content);
    expect((await store.verify('tiny')).state).toBe('present');
    expect(await filesBelow(join(store.directory, 'downloads'))).toEqual([]);
  });
});
