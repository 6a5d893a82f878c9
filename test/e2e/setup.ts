/** Global setup: VS Code, a browser, the packaged extension, and the default model. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { ensureBrowser } from '../../scripts/browser.ts';
import { ensureCodeServer } from '../../scripts/code-server.ts';
import { defaultPackagePath, isTarget, packageExtension } from '../../scripts/package.ts';
import { hostTarget, projectRoot } from '../../scripts/shared/paths.ts';
import { run } from '../../scripts/shared/process.ts';
import { installExtension } from '../../scripts/shared/vscodeServer.ts';

export interface Prepared {
  vsix: string;
  /** Why no editor can run here; its tests are then skipped. */
  unavailable: string | undefined;
  codeServer: string;
  browser: string;
  extensionsDir: string;
}

declare module 'vitest' {
  export interface ProvidedContext {
    prepared: Prepared;
  }
}

export default async function setup(project: TestProject): Promise<() => void> {
  const scratch = mkdtempSync(join(tmpdir(), 'hearth-e2e-'));
  const results = join(projectRoot, 'test', 'e2e', 'results');
  rmSync(results, { recursive: true, force: true });
  mkdirSync(results, { recursive: true });
  project.provide('prepared', await prepare(scratch, log));
  return () => rmSync(scratch, { recursive: true, force: true });
}

async function prepare(scratch: string, log: (line: string) => void): Promise<Prepared> {
  if (!isTarget(hostTarget)) throw new Error(`Hearth is not built for ${hostTarget}.`);
  log('Packaging the extension.');
  const vsix = await packageExtension(hostTarget, defaultPackagePath(hostTarget));
  const nothing = { vsix, codeServer: '', browser: '', extensionsDir: '' };
  if (process.platform === 'win32') return { ...nothing, unavailable: 'code-server does not run on Windows' };
  const browser = await ensureBrowser(log);
  if (browser === undefined) return { ...nothing, unavailable: 'no Chromium, Chrome or Edge is installed' };
  const codeServer = await ensureCodeServer(log);
  log('Fetching the default model, unless it is here.');
  await run(process.execPath, ['dist/cli.mjs', 'models', 'pull'], { cwd: projectRoot });
  const extensionsDir = join(scratch, 'extensions');
  const userDataDir = join(scratch, 'install');
  await installExtension({ entry: codeServer, userDataDir, extensionsDir }, vsix);
  return { vsix, unavailable: undefined, codeServer, browser, extensionsDir };
}

function log(line: string): void {
  console.log(line);
}
