/** Models outside of the catalogue: from a hub on loopback, imported, and in the folders of other programs. */
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { catalogue } from '../../../engine/catalogue/catalogue.ts';
import { type ForeignModel, listForeign } from '../../../engine/catalogue/foreign.ts';
import { parseHubReference } from '../../../engine/catalogue/hub.ts';
import { endpointsFrom } from '../../../engine/catalogue/sources.ts';
import { openStore, type Store, toModelEntry } from '../../../engine/catalogue/store.ts';
import { openModel } from '../../../engine/model/open.ts';
import { modelEntry } from '../../../engine/protocol/models.ts';
import {
  type HubFile,
  type ModelServer,
  type ModelServerOptions,
  startModelServer,
} from '../../loopback/modelServer.ts';
import { concat, gguf, stringKey, u32Key, u64 } from '../formats/builders.ts';
import { fixtureFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { sendFile, startServer } from './fileServer.ts';
import { sha256 } from './tools.ts';

const servers: ModelServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

const golden = (name: string): Promise<Buffer> => readFile(fixtureFile(`goldens/${name}`));
const llama = await golden('gguf/llama-bf16.gguf');
const qwen3 = await golden('gguf/qwen3-bf16.gguf');
const mamba = Buffer.from(gguf({ keys: [stringKey('general.architecture', 'mamba')] }));

const repository = 'maker/Tiny-GGUF';
const commit = '8be1b8a895a84beea772817caaa71eba6b6e0d07';
const file = (name: string, content: Buffer, changes: Partial<HubFile> = {}): HubFile => ({
  ...{ repository, revision: commit, name, content, large: true },
  ...changes,
});
const tiny = [
  file('README.md', Buffer.from('# Tiny'), { large: false }),
  file('mmproj-F16.gguf', Buffer.from('GGUF')),
  file('tiny-Q4_K_M.gguf', llama),
  file('tiny-Q8_0.gguf', qwen3),
];

async function serve(options: ModelServerOptions): Promise<ModelServer> {
  const server = await startModelServer(options);
  servers.push(server);
  return server;
}

interface Setting {
  readonly foreign?: readonly ForeignModel[];
  readonly variables?: Readonly<Record<string, string>>;
}

const storeOn = (server: ModelServer, { foreign = [], variables = {} }: Setting = {}): Store =>
  openStore({
    directory: temporaryFolder(),
    endpoints: endpointsFrom({ ...server.environment, ...variables }),
    retry: { attempts: 1, firstWaitMs: 1, idleMs: 5000 },
    hardware: { totalMemoryBytes: 16e9, freeMemoryBytes: 8e9, cores: 8 },
    foreign: async () => foreign,
  });

const failure = (work: Promise<unknown>): Promise<Error> =>
  work.then(
    () => expect.fail('It succeeded.'),
    (error: Error) => error,
  );

async function opens(path: string | undefined): Promise<boolean> {
  const model = await openModel(path ?? '');
  await model.file.close();
  return true;
}

/** Splits as llama.cpp's gguf-split does: part 1 has all metadata; here also all tensors, and part 2 none. */
function splitInTwo(whole: Buffer): readonly [Buffer, Buffer] {
  const keys = (part: number) => [u32Key('split.no', part), u32Key('split.count', 2)];
  // The tensors stay aligned to 32 bytes: 24 + 27 bytes of keys above, and 45 of this one.
  const added = concat(...keys(0), stringKey('pad', 'x'.repeat(22)));
  const counts = concat(whole.subarray(0, 16), u64(whole.readBigUInt64LE(16) + 3n));
  return [Buffer.from(concat(counts, added, whole.subarray(24))), Buffer.from(gguf({ keys: keys(1) }))];
}

describe('a name on the hub', () => {
  it.each([
    ['maker/Tiny-GGUF', { repository: 'maker/Tiny-GGUF' }],
    ['maker/Tiny-GGUF:Q4_K_M', { repository: 'maker/Tiny-GGUF', quantisation: 'Q4_K_M' }],
    ['https://huggingface.co/maker/Tiny-GGUF', { repository: 'maker/Tiny-GGUF' }],
    ['hf.co/maker/Tiny-GGUF:IQ4_XS', { repository: 'maker/Tiny-GGUF', quantisation: 'IQ4_XS' }],
    ['models/tiny.gguf', undefined],
    ['../tiny/model', undefined],
    ['tiny', undefined],
    ['a/b/c', undefined],
  ])('%s', (text, expected) => {
    expect(parseHubReference(text)).toEqual(expected);
  });
});

describe('a repository of the hub', () => {
  it('lists its models with sizes and fit, and neither images nor other files', async () => {
    const store = storeOn(await serve({ hubFiles: tiny, licences: { [repository]: 'mit' }, filesPerPage: 1 }));
    const fit = { verdict: 'good', reason: expect.stringContaining('of memory') };
    expect(await store.offers(repository)).toEqual([
      { id: `${repository}:Q4_K_M`, label: 'Q4_K_M', bytes: llama.length, files: 1, licence: 'mit', fit },
      { id: `${repository}:Q8_0`, label: 'Q8_0', bytes: qwen3.length, files: 1, licence: 'mit', fit },
    ]);
  });

  it('gives Q4_K_M unless another file is named, checked against its LFS digest, from the commit that was listed', async () => {
    const server = await serve({ hubFiles: tiny, licences: { [repository]: 'mit' } });
    const store = storeOn(server);
    const model = await store.pull(repository);
    expect(model).toMatchObject({ state: 'present', entry: { id: `${repository}:Q4_K_M`, licence: { name: 'mit' } } });
    expect(model.path).toContain(`sha256-${sha256(llama)}`);
    expect(await readFile(model.path ?? '')).toEqual(llama);
    expect(server.requests.map(({ path }) => path)).toContain(`/${repository}/resolve/${commit}/tiny-Q4_K_M.gguf`);
    const other = await store.pull(`${repository}:q8_0`);
    expect(other).toMatchObject({ entry: { id: `${repository}:Q8_0`, family: 'qwen3', contextTokens: 40_960 } });
  });

  it('stays usable by its id without the hub', async () => {
    const server = await serve({ hubFiles: tiny });
    const store = storeOn(server);
    const { path } = await store.pull(`${repository}:Q8_0`);
    await server.close();
    expect(await store.resolve(`${repository}:Q8_0`)).toBe(path);
    expect(await store.resolve(repository)).toBe(path);
    expect((await store.pull(`${repository}:Q8_0`)).path).toBe(path);
    const listed = (await store.list()).find(({ entry }) => entry.id === `${repository}:Q8_0`);
    expect(modelEntry.strict().parse(toModelEntry(listed ?? expect.fail()))).toMatchObject({ state: 'present' });
    expect((await store.verify(`${repository}:Q8_0`)).state).toBe('present');
    expect((await store.remove(`${repository}:Q8_0`)).state).toBe('absent');
    expect((await failure(store.resolve(`${repository}:Q8_0`))).message).toContain(`models pull ${repository}:Q8_0`);
  });

  it('gives all parts of a split file, from a folder of the repository', async () => {
    const parts = splitInTwo(llama);
    const hubFiles = parts.map((part, index) => file(`BF16/tiny-BF16-0000${index + 1}-of-00002.gguf`, part));
    const store = storeOn(await serve({ hubFiles }));
    expect(await store.offers(repository)).toMatchObject([{ label: 'BF16', files: 2 }]);
    const { path } = await store.pull(repository);
    expect(path).toMatch(/tiny-BF16-00001-of-00002\.gguf$/);
    expect(await opens(path)).toBe(true);
  });

  it('gives a checkpoint of safetensors', async () => {
    const hubFiles = [
      file('config.json', await golden('qwen3/config.json'), { large: false }),
      file('model.safetensors', await golden('qwen3/model.safetensors')),
      file('train.py', Buffer.from('pass'), { large: false }),
    ];
    const store = storeOn(await serve({ hubFiles }));
    const { path, entry } = await store.pull(repository);
    expect(entry).toMatchObject({ id: `${repository}:safetensors`, family: 'qwen3' });
    expect(await opens(path)).toBe(true);
  });

  it('resumes a cancelled download, also where a commit in between left the file as it is', async () => {
    const server = await serve({ hubFiles: tiny });
    const store = storeOn(server);
    server.faults.bytesPerSecond = 1e6;
    const stop = new AbortController();
    const pulled = store.pull(repository, {
      signal: stop.signal,
      onProgress: ({ doneBytes }) => doneBytes > 0 && stop.abort(),
    });
    expect(await failure(pulled)).toMatchObject({ code: 'cancelled' });
    const later = await serve({ hubFiles: tiny.map((each) => ({ ...each, revision: 'f'.repeat(40) })) });
    const again = openStore({
      directory: store.directory,
      endpoints: endpointsFrom(later.environment),
      foreign: async () => [],
    });
    expect((await again.pull(repository)).state).toBe('present');
    expect(later.requests.some(({ headers }) => /^bytes=[1-9]\d*-$/.test(headers.range ?? ''))).toBe(true);
  });

  it('without the named file lists those that it has', async () => {
    const store = storeOn(await serve({ hubFiles: tiny }));
    expect((await failure(store.pull(`${repository}:Q2_K`))).message).toMatch(
      /has no Q2_K\. It has Q4_K_M \(704 kB\), Q8_0 \(1\.79 MB\)/,
    );
    const undecided = storeOn(
      await serve({
        hubFiles: tiny.filter(({ name }) => !name.includes('Q4_K_M')).concat(file('tiny-Q6_K.gguf', llama)),
      }),
    );
    expect((await failure(undecided.pull(repository))).message).toMatch(/several models: Q6_K .*Name one: /);
  });

  it('is refused before the download if Hearth does not run its architecture or quantisation', async () => {
    const server = await serve({
      hubFiles: [file('mamba-Q8_0.gguf', Buffer.concat([mamba, Buffer.alloc(2_000_000)]))],
    });
    expect((await failure(storeOn(server).pull(repository))).message).toMatch(/mamba is not one of/);
    expect(server.bytesSent()).toBeLessThan(1_500_000);
    const config = JSON.parse((await golden('qwen3/config.json')).toString());
    const awq = JSON.stringify({ ...config, quantization_config: { quant_method: 'awq', bits: 4 } });
    const folder = [file('config.json', Buffer.from(awq), { large: false }), file('model.safetensors', qwen3)];
    const store = storeOn(await serve({ hubFiles: folder }));
    expect((await failure(store.pull(repository))).message).toMatch(/weights are AWQ.*GGUF of the same model/);
  });

  it('is not kept if the downloaded file does not open', async () => {
    const broken = Buffer.from(concat(llama.subarray(0, -3000)));
    const store = storeOn(await serve({ hubFiles: [file('tiny-Q8_0.gguf', broken)] }));
    expect((await failure(store.pull(repository))).message).toContain('is incomplete');
    expect((await store.list()).every(({ state }) => state === 'absent')).toBe(true);
  });

  it('that answers with other bytes than it listed is refused', async () => {
    const listed = await serve({ hubFiles: tiny });
    const other = Buffer.from(llama);
    other[other.length - 1] = (other.at(-1) ?? 0) ^ 1;
    const server = await startServer((request, response) => {
      const { pathname } = new URL(request.url ?? '', 'http://127.0.0.1');
      // An honest hub lists the file, but different bytes are delivered.
      const location = `${listed.environment['HF_ENDPOINT']}${request.url}`;
      if (pathname.startsWith('/api/')) response.writeHead(302, { location }).end();
      else void sendFile(server, request, response, other);
    });
    const store = storeOn(listed, { variables: { HF_ENDPOINT: server.origin } });
    expect((await failure(store.pull(repository))).message).toContain(`instead of ${sha256(llama)}`);
    await server.close();
  });
});

describe('several hubs', () => {
  it('are asked in the order of HF_ENDPOINT', async () => {
    const [empty, full] = [await serve({}), await serve({ hubFiles: tiny })];
    const endpoints = `${empty.environment['HF_ENDPOINT']}, ${full.environment['HF_ENDPOINT']}`;
    const store = storeOn(full, { variables: { HF_ENDPOINT: endpoints } });
    expect((await store.pull(repository)).state).toBe('present');
    expect(empty.requests.length).toBeGreaterThan(0);
  });

  it('give one reason each if none has the model', async () => {
    const [first, second] = [await serve({}), await serve({})];
    const endpoints = `${first.environment['HF_ENDPOINT']},${second.environment['HF_ENDPOINT']}`;
    const { message } = await failure(storeOn(first, { variables: { HF_ENDPOINT: endpoints } }).pull(repository));
    expect(message.match(/There is no public repository maker\/Tiny-GGUF/g)).toHaveLength(2);
  });
});

describe('a gated repository', () => {
  const gates = [{ repository, token: 'hf_right' }];

  it('says how to get access', async () => {
    const store = storeOn(await serve({ hubFiles: tiny, gates }));
    const { message } = await failure(store.pull(repository));
    expect(message).toMatch(/maker\/Tiny-GGUF is gated: .*Accept them at .*\/maker\/Tiny-GGUF, then .*HF_TOKEN/);
  });

  it('opens with HF_TOKEN or a given token, which no other host sees', async () => {
    const server = await serve({ hubFiles: tiny, gates });
    expect((await storeOn(server, { variables: { HF_TOKEN: 'hf_right' } }).pull(repository)).state).toBe('present');
    expect((await storeOn(server).pull(repository, { token: 'hf_right' })).state).toBe('present');
    const delivered = server.requests.filter(({ path }) => path.startsWith('/repos/'));
    expect(delivered.length).toBeGreaterThan(0);
    expect(delivered.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  it('says so if the account has not accepted the terms', async () => {
    const store = storeOn(await serve({ hubFiles: tiny, gates }), { variables: { HF_TOKEN: 'hf_other' } });
    expect((await failure(store.pull(repository))).message).toMatch(/gated, and the token's account may not read it/);
  });

  it('that is private looks as if it did not exist, with and without a token', async () => {
    const server = await serve({ hubFiles: tiny, gates: [{ repository, token: 'hf_right', isPrivate: true }] });
    expect((await failure(storeOn(server).pull(repository))).message).toMatch(/no public repository.*if it is private/);
    const other = storeOn(server, { variables: { HF_TOKEN: 'hf_other' } });
    expect((await failure(other.pull(repository))).message).toMatch(/no repository .* that the token may read/);
  });
});

describe('a model that is imported', () => {
  it('needs no catalogue, but must open', async () => {
    const store = storeOn(await serve({}));
    const folder = temporaryFolder();
    await writeFile(join(folder, 'My Model.gguf'), qwen3);
    await writeFile(join(folder, 'mamba.gguf'), mamba);
    const model = await store.add(join(folder, 'My Model.gguf'));
    expect(model).toMatchObject({ state: 'present', entry: { id: 'my-model', name: 'My Model', family: 'qwen3' } });
    expect(await readFile(await store.resolve('my-model'))).toEqual(qwen3);
    expect((await failure(store.add(join(folder, 'mamba.gguf')))).message).toMatch(/mamba is not one of/);
    await mkdir(join(folder, 'empty'));
    expect((await failure(store.add(join(folder, 'empty')))).message).toContain('empty folder');
  });

  it('is not taken for a catalogue entry whose size and digest are not known', async () => {
    const store = storeOn(await serve({}));
    const folder = temporaryFolder();
    for (const { id, files } of catalogue.filter((entry) => entry.files.some(({ sha256 }) => sha256 === undefined))) {
      await mkdir(join(folder, id));
      for (const { name } of files) await writeFile(join(folder, id, name), 'x');
      await expect(store.add(join(folder, id)), id).rejects.toThrow();
      await expect(store.add(join(folder, id, files[0]?.name ?? '')), id).rejects.toThrow();
    }
    expect((await store.list()).filter(({ state }) => state !== 'absent')).toEqual([]);
  });

  it('may be a checkpoint, or a split file by its first part', async () => {
    const store = storeOn(await serve({}));
    expect((await store.add(fixtureFile('goldens/qwen3'))).entry.id).toBe('qwen3');
    expect(await opens(await store.resolve('qwen3'))).toBe(true);
    const folder = temporaryFolder();
    const names = ['tiny-00001-of-00002.gguf', 'tiny-00002-of-00002.gguf'];
    for (const [index, part] of splitInTwo(llama).entries()) await writeFile(join(folder, names[index] ?? ''), part);
    expect((await store.add(join(folder, names[0] ?? ''))).entry.id).toBe('tiny');
    expect(await opens(await store.resolve('tiny'))).toBe(true);
  });

  it('never replaces another of the same name', async () => {
    const store = storeOn(await serve({}));
    const [one, two] = [temporaryFolder(), temporaryFolder()];
    await writeFile(join(one, 'm.gguf'), llama);
    await writeFile(join(two, 'm.gguf'), qwen3);
    await store.add(join(one, 'm.gguf'));
    expect((await failure(store.add(join(two, 'm.gguf')))).message).toMatch(
      /There is a model m already.*models remove m/,
    );
    expect(await readFile(await store.resolve('m'))).toEqual(llama);
  });
});

describe("other programs' models", () => {
  async function write(path: string, content: Buffer | string): Promise<void> {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }

  /** A home with each program's own folder layout. */
  async function home(): Promise<string> {
    const root = temporaryFolder();
    const ollama = join(root, '.ollama/models');
    const model = {
      mediaType: 'application/vnd.ollama.image.model',
      digest: `sha256:${sha256(qwen3)}`,
      size: qwen3.length,
    };
    const template = {
      mediaType: 'application/vnd.ollama.image.template',
      digest: `sha256:${'a'.repeat(64)}`,
      size: 1,
    };
    const manifest = JSON.stringify({ schemaVersion: 2, config: {}, layers: [model, template] });
    await write(join(ollama, 'blobs', `sha256-${sha256(qwen3)}`), qwen3);
    await write(join(ollama, 'manifests/registry.ollama.ai/library/qwen3/0.6b'), manifest);
    await write(join(ollama, 'manifests/hf.co/maker/Tiny-GGUF/Q4_K_M'), manifest);
    await write(
      join(ollama, 'manifests/registry.ollama.ai/library/gone/latest'),
      manifest.replaceAll(sha256(qwen3), 'b'.repeat(64)),
    );
    await write(join(root, '.lmstudio/models/maker/Tiny-GGUF/Tiny Q8_0.gguf'), llama);
    await write(join(root, '.lmstudio/models/maker/Tiny-GGUF/mmproj-F16.gguf'), llama);
    await write(join(root, '.cache/lm-studio/models/old/Mamba/mamba.gguf'), mamba);
    const cache = join(root, '.cache/huggingface/hub/models--Qwen--Qwen3-Tiny');
    await write(join(cache, 'refs/main'), `${commit}\n`);
    await write(join(cache, 'blobs/config'), await golden('qwen3/config.json'));
    await write(join(cache, 'blobs/weights'), await golden('qwen3/model.safetensors'));
    await mkdir(join(cache, 'snapshots', commit), { recursive: true });
    await symlink('../../blobs/config', join(cache, 'snapshots', commit, 'config.json'));
    await symlink('../../blobs/weights', join(cache, 'snapshots', commit, 'model.safetensors'));
    return root;
  }

  const listIn = (root: string, variables: Record<string, string> = {}) =>
    listForeign({ platform: 'darwin', home: root, variables });

  it('are found where Ollama, LM Studio and huggingface_hub put them', async () => {
    const root = await home();
    const models = await listIn(root);
    expect(models.map(({ id }) => id)).toEqual([
      'hub-cache:Qwen/Qwen3-Tiny',
      'lm-studio:maker/Tiny-GGUF/Tiny Q8_0.gguf',
      'lm-studio:old/Mamba/mamba.gguf',
      'ollama:hf.co/maker/Tiny-GGUF:Q4_K_M',
      'ollama:qwen3:0.6b',
    ]);
    for (const { path, id } of models) if (!id.includes('mamba')) expect(await opens(path), id).toBe(true);
    expect(await listIn(temporaryFolder())).toEqual([]);
  });

  it('are found where their variables say', async () => {
    const root = await home();
    const at = (path: string) => join(root, path);
    const ids = async (variables: Record<string, string>) =>
      (await listIn(temporaryFolder(), variables)).map(({ id }) => id);
    expect(await ids({ OLLAMA_MODELS: at('.ollama/models') })).toContain('ollama:qwen3:0.6b');
    expect(await ids({ HF_HOME: at('.cache/huggingface') })).toEqual(['hub-cache:Qwen/Qwen3-Tiny']);
    expect(await ids({ HF_HUB_CACHE: at('.cache/huggingface/hub') })).toEqual(['hub-cache:Qwen/Qwen3-Tiny']);
    expect(await ids({ XDG_CACHE_HOME: at('.cache') })).toEqual(['hub-cache:Qwen/Qwen3-Tiny']);
  });

  it('are listed, resolved and used in place, and never removed', async () => {
    const root = await home();
    const store = storeOn(await serve({}), { foreign: await listIn(root) });
    const listed = (await store.list()).filter(({ owner }) => owner !== undefined).map(toModelEntry);
    for (const entry of listed) modelEntry.strict().parse(entry);
    expect(listed.map(({ id, owner, fit }) => [id, owner, fit.verdict])).toEqual([
      ['hub-cache:Qwen/Qwen3-Tiny', "the Hugging Face hub's cache", 'good'],
      ['lm-studio:maker/Tiny-GGUF/Tiny Q8_0.gguf', 'LM Studio', 'good'],
      ['lm-studio:old/Mamba/mamba.gguf', 'LM Studio', 'no'],
      ['ollama:hf.co/maker/Tiny-GGUF:Q4_K_M', 'Ollama', 'good'],
      ['ollama:qwen3:0.6b', 'Ollama', 'good'],
    ]);
    expect(listed[2]?.fit.reason).toMatch(/mamba is not one of/);
    const blob = join(root, '.ollama/models/blobs', `sha256-${sha256(qwen3)}`);
    expect(await store.locate('ollama:qwen3:0.6b')).toMatchObject({ path: blob, name: 'qwen3:0.6b' });
    expect((await failure(store.remove('ollama:qwen3:0.6b'))).message).toContain('belongs to Ollama');
    expect(await readFile(blob)).toEqual(qwen3);
    expect((await failure(store.resolve('ollama:absent'))).message).toContain('not found');
  });
});
