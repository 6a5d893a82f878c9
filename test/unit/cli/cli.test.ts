import { spawn } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { printable } from '../../../engine/cli/command.ts';
import { openSafetensors } from '../../../engine/formats/safetensors.ts';
import { writeSnapshot } from '../../../engine/kv/snapshotFile.ts';
import { openModel } from '../../../engine/model/open.ts';
import { cacheValuesPerToken } from '../../../engine/model/spec/spec.ts';
import { startModelServer } from '../../loopback/modelServer.ts';
import { makeEmbeddingModel } from '../embeddingModel.ts';
import * as builders from '../formats/builders.ts';
import { bundle } from '../runtime/bundle.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

const golden = resolve(import.meta.dirname, '../../fixtures/goldens/llama');
let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
let cli: Awaited<ReturnType<typeof bundle>>;
let folder: string;

beforeAll(async () => {
  [tiny, cli] = await Promise.all([makeTinyModel(), bundle('engine/cli.ts')]);
  folder = temporaryFolder();
});
afterAll(async () => {
  await Promise.all([tiny.remove(), cli.remove()]);
});

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `hearth` in the test's folder, with a store of its own. */
function hearth(args: readonly string[], onOutput?: (stop: (signal: NodeJS.Signals) => void) => void): Promise<Ended> {
  const child = spawn(process.execPath, [cli.path, ...args], {
    cwd: folder,
    env: { ...process.env, HEARTH_HOME: join(folder, 'store') },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => {
    out.push(chunk);
    onOutput?.((signal) => child.kill(signal));
  });
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  return new Promise((done) =>
    child.on('close', (status) =>
      done({ status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }),
    ),
  );
}

const model = (): string[] => ['--model', tiny.path, '--backend', 'reference'];
const greedy = ['--temperature', '0', '--max-tokens', '12'];

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(folder, name), text);
  return name;
}

describe('an argument with a very long line', () => {
  it('reaches the model unchanged', async () => {
    const prompt = 'ab '.repeat(6000);
    const ended = await hearth(['generate', '--prompt', prompt, '--model', tiny.path, '--backend', 'onnx']);
    expect(ended).toMatchObject({ status: 1, stdout: '' });
    expect(ended.stderr).toMatch(/^hearth: .*context.*$/m);
  });
});

describe('control characters', () => {
  // ECMA-48: clear the screen, set the window's title, CSI as one byte; return and overwrite; erase.
  const hostile = 'a\u001b[2Jb\u001b]0;owned\u0007c\u009b2Jd\rHearth\u007fe';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

  it('in names of files, of models and in arguments reach no terminal', async () => {
    await mkdir(join(folder, 'names'));
    await file(`names/${hostile}.txt`, 'alpha beta\n');
    const found = await hearth(['search', 'alpha', '--workspace', 'names']);
    expect(found.stdout).toContain('a\\u001b[2Jb');
    const failed = [
      ['generate', '--prompt', 'x', '--model', hostile],
      ['inspect', `./${hostile}`],
      [hostile],
      ['models', hostile],
    ];
    for (const ended of [found, ...(await Promise.all(failed.map((args) => hearth(args))))]) {
      expect(ended.stdout + ended.stderr).not.toMatch(controls);
      expect(ended.stderr + ended.stdout).toContain('u001b[2J');
    }
  });

  it('in the metadata of a model reach no terminal', async () => {
    const { ascii, gguf, stringKey } = builders;
    const architecture = stringKey('general.architecture', hostile);
    await writeFile(join(folder, 'hostile.gguf'), gguf({ keys: [architecture], tensors: [], data: ascii('') }));
    for (const command of [
      ['inspect', 'hostile.gguf'],
      ['generate', '--prompt', 'x', '--model', 'hostile.gguf'],
    ]) {
      const { stdout, stderr } = await hearth(command);
      expect(stdout + stderr).not.toMatch(controls);
      expect(stdout + stderr).toMatch(/u001b\[2J/);
    }
  });

  it('are the same for a program that reads the JSON', async () => {
    expect(JSON.parse(printable(JSON.stringify({ hostile })))).toEqual({ hostile });
    expect(printable('one\n\ttwo\r\nthree é\n')).toBe('one\n\ttwo\r\nthree é\n');
  });
});

describe('hearth index and search', () => {
  it('search by words, and by embeddings once an embedding model is chosen', async () => {
    const embedding = await makeEmbeddingModel();
    await mkdir(join(folder, 'tree'));
    await Promise.all([file('tree/a.txt', 'alpha beta\n'), file('tree/b.txt', 'gamma delta\n')]);
    const backend = ['--backend', 'reference'];
    const search = async () => {
      const { stdout, stderr } = await hearth(['search', 'omega', '--workspace', 'tree', '--json', ...backend]);
      return { found: JSON.parse(stdout) as unknown[], stderr };
    };
    const figures = async (...args: string[]) =>
      JSON.parse((await hearth(['index', 'tree', '--json', ...args])).stdout);
    expect(await figures()).toMatchObject({ files: 2, chunks: 2 });
    expect(await search()).toEqual({ found: [], stderr: '' });
    const absent = await hearth(['index', 'tree', '--embeddings', 'qwen3-embedding-0.6b']);
    expect([absent.status, absent.stderr]).toEqual([1, expect.stringContaining('models pull qwen3-embedding-0.6b')]);
    const vectors = { model: embedding.path, chunks: 2 };
    expect(await figures('--embeddings', embedding.path, ...backend)).toMatchObject({ vectors });
    // Both commands remember the embedding model.
    expect(await figures(...backend)).toMatchObject({ vectors });
    expect((await search()).found).toHaveLength(2);
    await embedding.remove();
    const without = await search();
    expect([without.found, without.stderr]).toEqual([[], expect.stringContaining('searched by words only')]);
    expect(await figures('--embeddings', 'off')).not.toHaveProperty('vectors');
    expect(await search()).toEqual({ found: [], stderr: '' });
  });
});

describe('hearth', () => {
  it('prints its help and its version', async () => {
    const { version } = JSON.parse(await readFile(resolve(import.meta.dirname, '../../../package.json'), 'utf8'));
    expect(await hearth(['--version'])).toMatchObject({ status: 0, stdout: `${version}\n` });
    const help = await hearth([]);
    expect(help.status).toBe(0);
    for (const command of ['chat', 'complete', 'summarise', 'generate', 'logits', 'bench', 'models']) {
      expect(help.stdout).toContain(`  ${command} `);
    }
    expect((await hearth(['generate', '--help'])).stdout).toContain('--raw');
  });

  it('reports a usage error in one line with exit status 1', async () => {
    const wrong: [string[], RegExp][] = [
      [['dance'], /Unknown command 'dance'/],
      [['generate'], /--prompt is missing/],
      [['generate', '--prompt', 'x', '--loud'], /Unknown option '--loud'/],
      [
        ['generate', '--prompt', 'x', '--max-tokens', '0'],
        /--max-tokens must be a whole number of at least 1, not '0'/,
      ],
      [['generate', '--prompt', 'x', '--temperature', 'hot'], /--temperature must be a number/],
      [['generate', '--prompt', 'x', '--backend', 'abacus'], /--backend must be one of auto/],
      [['generate', '--prompt', 'x', '--model', '/no/such/model'], /\/no\/such\/model/],
      [['chat'], /The question is missing/],
      [['chat', 'a', 'b'], /Unexpected argument 'b'/],
      [['complete', 'a.ts'], /FILE:LINE:COLUMN/],
      [['complete', 'absent.ts:1:1'], /absent\.ts: not found/],
      [['summarise', 'absent.ts'], /absent\.ts: not found/],
      [['models', 'dance'], /not 'dance'/],
      [['models', 'verify', 'no-such-model'], /no-such-model/],
    ];
    const results = await Promise.all(wrong.map(([args]) => hearth(args)));
    for (const [i, { status, stdout, stderr }] of results.entries()) {
      expect(stderr).toMatch(wrong[i]?.[1] ?? /never/);
      expect(stderr).toMatch(/^hearth: [^\n]+\n$/);
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    }
  });

  it('lists and clears saved KV caches, and names the valid actions', async () => {
    const sequences = join(folder, 'store', 'sequences');
    await mkdir(sequences, { recursive: true });
    const header = { identity: 'a'.repeat(64), model: 'Tiny', tokens: [1, 2], held: [[0, 2]], pieceBytes: [8] };
    async function* pieces(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(8);
    }
    await writeSnapshot(join(sequences, 'a.kv'), header, pieces(), new AbortController().signal);
    expect((await hearth(['cache', 'list'])).stdout).toMatch(
      /^Tiny, 2 tokens, \d+ bytes, last used .+\n {2}.+a\.kv\n1 prompts/,
    );
    expect(JSON.parse((await hearth(['cache', 'list', '--json'])).stdout)).toMatchObject([
      { model: 'Tiny', tokens: 2 },
    ]);
    expect((await hearth(['cache', 'clear'])).stdout).toMatch(/^Removed 1 prompts, \d+ bytes\.\n$/);
    expect((await hearth(['cache', 'list'])).stdout).toMatch(/^0 prompts, 0 bytes/);
    expect((await hearth(['cache', 'dance'])).stderr).toBe(
      "hearth: 'hearth cache' accepts list or clear, not 'dance'.\n",
    );
  });

  it('generates the same greedy text streamed and as JSON', async () => {
    const streamed = await hearth(['generate', '--prompt', 'tell me', ...greedy, ...model()]);
    const machine = await hearth(['generate', '--prompt', 'tell me', ...greedy, ...model(), '--json']);
    const answer = JSON.parse(machine.stdout);
    expect(streamed.status).toBe(0);
    expect(streamed.stdout).toBe(`${answer.text}\n`);
    expect(answer).toMatchObject({ backend: 'reference', finish: 'length', statistics: { generatedTokens: 12 } });
  });

  it('chats about a folder and says which files were included', async () => {
    const workspace = join(folder, 'workspace');
    await mkdir(workspace, { recursive: true });
    await writeFile(join(workspace, 'parser.ts'), 'export function parseNumber(text: string) {}\n');
    await writeFile(join(workspace, 'other.ts'), 'export const colour = 1;\n');
    const args = ['chat', 'Where is parseNumber?', '--workspace', workspace, ...greedy, ...model(), '--json'];
    const { status, stdout, stderr } = await hearth(args);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ files: ['parser.ts'], finish: 'length' });
    expect(stderr).toContain('parser.ts:1-');
    expect((await hearth(['chat', 'x', '--workspace', '/no/such', ...model()])).stderr).toContain(
      '/no/such: folder not found',
    );
  });

  it('completes at a position in a file, and rejects a position outside of it', async () => {
    const name = await file('code.ts', 'const a = 1;\nconst b = ;\n');
    const { status, stdout } = await hearth(['complete', `${name}:2:11`, ...model(), '--json', '--max-tokens', '6']);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toHaveProperty('text');
    expect((await hearth(['complete', `${name}:9:1`, ...model()])).stderr).toContain('no line 9');
    expect((await hearth(['complete', `${name}:1:99`, ...model()])).stderr).toContain('column 99');
  });

  it('summarises a long file with line numbers', async () => {
    const text = Array.from({ length: 60 }, (_, i) => `def f${i}(x):\n    return x + ${i}\n`).join('\n');
    const name = await file('long.py', text);
    const { status, stdout } = await hearth(['summarise', name, ...model(), '--context', '512', '--max-tokens', '8']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/- \*\*Lines 1–\d+ \(`f0`, /);
  });

  it('writes teacher-forced logits that match the golden ones', async () => {
    const reference = await openSafetensors(join(golden, 'golden.safetensors'));
    const ids = new BigInt64Array((await reference.read('input_ids')).buffer);
    const expected = new Float32Array((await reference.read('logits')).buffer);
    await reference.close();
    const idsFile = await file('ids.json', JSON.stringify([...ids].map(Number)));
    const args = [
      'logits',
      '--model',
      golden,
      '--ids',
      idsFile,
      '--backend',
      'reference',
      '--out',
      'out.f32',
      '--json',
    ];
    const { status, stdout } = await hearth(args);
    expect(status).toBe(0);
    expect(JSON.parse(stdout).shape).toEqual([ids.length, 512]);
    const bytes = await readFile(join(folder, 'out.f32'));
    const actual = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    expect(actual).toHaveLength(expected.length);
    const mean = expected.reduce((a, b) => a + b, 0) / expected.length;
    const deviation = Math.sqrt(expected.reduce((sum, value) => sum + (value - mean) ** 2, 0) / expected.length);
    const largest = actual.reduce((most, value, i) => Math.max(most, Math.abs(value - (expected[i] ?? 0))), 0);
    expect(largest / deviation).toBeLessThan(1e-4);
  });

  it('writes no file if the ids are invalid', async () => {
    const idsFile = await file('bad.json', '[1, 2, 999999]');
    const args = ['logits', '--model', golden, '--ids', idsFile, '--backend', 'reference', '--out', 'bad.f32'];
    expect(await hearth(args)).toMatchObject({ status: 1, stdout: '' });
    for (const name of ['bad.f32', 'bad.f32.part']) await expect(readFile(join(folder, name))).rejects.toThrow();
    const text = await file('text.json', '"ids"');
    expect((await hearth(['logits', '--model', golden, '--ids', text, '--out', 'x'])).stderr).toContain('text.json');
  });

  it('prints benchmark figures as JSON and as text', async () => {
    const args = ['bench', '--model', golden, '--backend', 'reference', '--prompt-tokens', '8', '--tokens', '4'];
    const { stdout } = await hearth([...args, '--depth', '3', '--json']);
    const figures = JSON.parse(stdout);
    expect(figures).toMatchObject({ backend: 'reference', promptTokens: 8, tokens: 4, depthTokens: 3 });
    for (const key of ['prefillTokensPerSecond', 'decodeTokensPerSecond', 'loadMs', 'fileBytes']) {
      expect(figures[key]).toBeGreaterThan(0);
    }
    const { spec, file: weights } = await openModel(golden);
    await weights.close();
    // 3 + 8 tokens and half of the 4 answer tokens, in the reference backend's f32.
    const values = spec.layers.reduce((sum, { attention }) => sum + cacheValuesPerToken(attention), 0);
    expect(figures.cacheBytesPerToken).toBe(4 * values * 13);
    expect(figures.weightBytesPerToken).toBeLessThanOrEqual(figures.fileBytes);
    expect((await hearth(args)).stdout).toMatch(/^a token: [\d.]+ MB of weights and [\d.]+ MB of KV cache$/m);
  });

  it('lists models as text and as JSON', async () => {
    const list = JSON.parse((await hearth(['models', 'list', '--json'])).stdout);
    expect(list).toContainEqual(expect.objectContaining({ id: 'smollm2-135m-instruct', state: 'absent' }));
    expect((await hearth(['models', 'list'])).stdout).toContain('smollm2-135m-instruct');
    expect(JSON.parse((await hearth(['models', 'recommend', '--json'])).stdout)).toHaveProperty('fit');
  });

  it('lists, downloads and runs a model of any repository on the hub, and refuses what it does not run', async () => {
    const content = await readFile(resolve(import.meta.dirname, '../../fixtures/goldens/gguf/qwen3-bf16.gguf'));
    const hubFile = { repository: 'maker/Tiny-GGUF', revision: 'main', name: 'tiny-Q8_0.gguf', content, large: true };
    const hub = await startModelServer({ hubFiles: [hubFile] });
    for (const [name, value] of Object.entries(hub.environment)) vi.stubEnv(name, value);
    try {
      expect((await hearth(['models', 'files', 'maker/Tiny-GGUF'])).stdout).toMatch(
        /^maker\/Tiny-GGUF:Q8_0\n {2}1\.79 MB\n/,
      );
      const pulled = await hearth(['models', 'pull', 'maker/Tiny-GGUF:Q8_0', '--json']);
      expect(JSON.parse(pulled.stdout)).toMatchObject({
        id: 'maker/Tiny-GGUF:Q8_0',
        state: 'present',
        family: 'qwen3',
      });
      const options = ['--model', 'maker/Tiny-GGUF:Q8_0', '--backend', 'reference', '--raw', '--max-tokens', '2'];
      expect(await hearth(['generate', '--prompt', 'abc', ...options])).toMatchObject({ status: 0 });
      const absent = await hearth(['models', 'pull', 'maker/Nothing']);
      expect([absent.status, absent.stderr]).toEqual([
        1,
        expect.stringContaining('no public repository maker/Nothing'),
      ]);
    } finally {
      vi.unstubAllEnvs();
      await hub.close();
    }
  });

  it('says what a file is that is not a model, also for models add', async () => {
    const page = await file('page.gguf', '<!doctype html><title>Sign in</title>');
    for (const command of [
      ['models', 'add', page],
      ['generate', '--prompt', 'x', '--model', page],
    ]) {
      const { status, stderr } = await hearth(command);
      expect([status, stderr]).toEqual([1, expect.stringContaining('page.gguf is a web page')]);
    }
  });

  it('ends immediately on Ctrl-C with exit status 130', async () => {
    const args = ['generate', '--prompt', 'tell me', '--temperature', '0', '--max-tokens', '2000', ...model()];
    let stopped = false;
    const { status, stderr } = await hearth(args, (stop) => {
      if (!stopped) stop('SIGINT');
      stopped = true;
    });
    expect(status).toBe(130);
    expect(stderr).toContain('Cancelled.');
  });
});
