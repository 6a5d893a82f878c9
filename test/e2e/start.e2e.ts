/** `npm start` on a machine without a desktop. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { projectRoot } from '../../scripts/shared/paths.ts';

const { unavailable } = inject('prepared');
const skipped = unavailable === undefined ? '' : ` (skipped: ${unavailable})`;

describe.skipIf(unavailable !== undefined)(`npm start${skipped}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'hearth-start-'));
  let child: ChildProcess;
  let output = '';
  beforeAll(async () => {
    const args = ['scripts/start.ts', folder, '--browser', '--no-open', '--port', '0'];
    child = spawn(process.execPath, args, { cwd: projectRoot, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout?.on('data', (chunk) => (output += chunk));
    child.stderr?.on('data', (chunk) => (output += chunk));
    // It packages the extension, which takes two minutes on a busy machine.
    await vi.waitFor(() => expect(output).toContain('Ctrl-C ends it'), { timeout: 280_000 });
  }, 300_000);
  afterAll(() => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  test('opens VS Code on the folder, only with the password', async () => {
    const url = /http:\/\/127\.0\.0\.1:\S+/.exec(output)?.[0] ?? '';
    const password = /password: (\S+)/.exec(output)?.[1] ?? '';
    const stranger = await fetch(url, { redirect: 'manual' });
    expect([stranger.status, stranger.headers.get('location')]).toEqual([302, expect.stringContaining('/login')]);
    const login = new URL('/login', url);
    const form = { method: 'POST', redirect: 'manual' } as const;
    const refused = await fetch(login, { ...form, body: new URLSearchParams({ password: 'wrong' }) });
    expect(refused.headers.get('set-cookie')).toBeNull();
    const accepted = await fetch(login, { ...form, body: new URLSearchParams({ password }) });
    const cookie = accepted.headers.get('set-cookie')?.split(';')[0] ?? '';
    const page = await fetch(url, { headers: { cookie } });
    expect(page.status).toBe(200);
    expect(await page.text()).toContain('vscode-workbench-web-configuration');
  });

  test('ends with Ctrl-C and leaves no process behind', async () => {
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(output)?.[0] ?? '';
    const exited = once(child, 'exit');
    child.kill('SIGINT');
    await exited;
    await expect(fetch(url)).rejects.toThrow('fetch failed');
  });
});
