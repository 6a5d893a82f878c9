import { fork, spawn } from 'node:child_process';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startEngine } from '../../../scripts/shared/engineProcess.ts';
import { bundle } from '../runtime/bundle.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
let cli: Awaited<ReturnType<typeof bundle>>;
let main: Awaited<ReturnType<typeof bundle>>;
let folder: string;
/** Long enough for a server token. */
const secret = 's3cret'.repeat(8);

beforeAll(async () => {
  [tiny, cli] = await Promise.all([makeTinyModel(), bundle('engine/cli.ts')]);
  main = await bundle('engine/main.ts');
  folder = temporaryFolder();
});
afterAll(async () => {
  await Promise.all([tiny.remove(), cli.remove(), main.remove()]);
});

async function hearth(...args: string[]): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const env = { ...process.env, HEARTH_HOME: join(folder, 'store') };
  const child = spawn(process.execPath, [cli.path, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { status, stdout, stderr };
}

describe('requests that an engine recorded', () => {
  it('give the same text when they are replayed', async () => {
    const file = join(folder, 'requests.jsonl');
    const engine = startEngine(main.path, { env: { HEARTH_RECORD: file, HEARTH_HOME: join(folder, 'store') } });
    await engine.requests.load({ model: tiny.path, backend: 'reference' });
    const sampling = { temperature: 0 };
    const messages = [{ role: 'user' as const, content: 'Say something.' }];
    const chat = await engine.requests.chat({ stream: 's', messages, maxTokens: 12, sampling });
    const completion = await engine.requests.complete({ prefix: 'let a = ', suffix: '', maxTokens: 6, sampling });
    await engine.requests.startServer({ port: 0, token: secret });
    await engine.stop();

    const { stdout, status } = await hearth('replay', file);
    expect(status).toBe(0);
    const [load = '', chatLine = '', completionLine = '', ...more] = stdout.trimEnd().split('\n');
    expect(load).toMatch(/^1 load \d+ ms /);
    expect(chatLine).toContain(`"text":${JSON.stringify(chat.text)}`);
    expect(completionLine).toContain(`"text":${JSON.stringify(completion.text)}`);
    expect(more).toEqual([]);

    const only = await hearth('replay', file, '--only', '3');
    expect(only.stdout.match(/^\d+ \w+/gm)).toEqual(['1 load', '3 complete']);

    // The recording contains the user's code: only the owner may read it, and it must not contain a server token.
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await readFile(file, 'utf8')).not.toContain(secret);
  });

  it('are rejected with the number of the invalid line', async () => {
    const file = join(folder, 'damaged.jsonl');
    await writeFile(file, '{"atMs":1,"method":"load","params":{"model":"x"}}\n{"method":"format"}\n');
    const { status, stderr } = await hearth('replay', file);
    expect(status).toBe(1);
    expect(stderr).toBe('hearth: Line 2 is not a recorded request.\n');
  });
});

describe('hearth doctor', () => {
  it('reports each part with its state, without paths of this machine', async () => {
    const { stdout } = await hearth('doctor');
    const parts = stdout
      .trimEnd()
      .split('\n')
      .map((line) => /^(ok|limited|broken)\s+([\w ]+):/.exec(line)?.[2]);
    expect(new Set(parts)).toEqual(
      new Set([
        'Hearth',
        'Machine',
        'CPU backend',
        'Devices',
        'Grammars',
        'Index',
        'Store',
        'Shared engine',
        'Network',
      ]),
    );
    expect(stdout).not.toContain(folder);
    expect(stdout).toMatch(/^ok +CPU backend: /m);
  });

  it('exits with 1 and names the broken part', async () => {
    // A file blocks the store's folder.
    await writeFile(join(folder, 'blocked'), '');
    const env = { ...process.env, HEARTH_HOME: join(folder, 'blocked') };
    const child = fork(cli.path, ['doctor'], { env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    let said = '';
    child.stdout?.on('data', (chunk) => {
      said += chunk;
    });
    const status = await new Promise((resolve) => child.once('close', resolve));
    expect(status).toBe(1);
    expect(said).toMatch(/^broken +Store: /m);
    expect(said).not.toContain(folder);
  });
});
