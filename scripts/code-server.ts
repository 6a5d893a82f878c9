/**
 * Installs a real VS Code that needs no desktop: the npm package code-server, once, in the user's cache.
 *
 * Its install script compiles six native modules, which takes about three minutes on two cores and needs Kerberos headers. The
 * editor needs only two of them: spdlog (log files) and native-watchdog (ends the extension host with the server). node-pty, the
 * file watcher and ripgrep are prebuilt. So install scripts are disabled, and only these two are built, if there is a compiler.
 */
import { appendFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withLock } from './shared/lock.ts';
import { devCache } from './shared/paths.ts';
import { npm } from './shared/process.ts';

export const codeServerVersion = '4.139.1';
const builtModules = ['@vscode/spdlog', '@vscode/native-watchdog', 'node-pty'];

/** Returns the path of code-server's entry script, after installing it if needed. */
export async function ensureCodeServer(log: (line: string) => void): Promise<string> {
  const folder = join(devCache, `code-server-${codeServerVersion}`);
  const entry = join(folder, 'node_modules', 'code-server', 'out', 'node', 'entry.js');
  if (process.platform === 'win32') {
    throw new Error('code-server does not run on Windows. Install VS Code with its `code` command instead.');
  }
  // The folder is renamed to its final name after the last step, so it is complete if it exists.
  if (existsSync(entry)) return entry;
  const waiting = () => log('Waiting for another process that is installing code-server.');
  await withLock(`${folder}.lock`, waiting, async () => {
    if (existsSync(entry)) return;
    const partial = `${folder}.partial`;
    rmSync(partial, { recursive: true, force: true });
    rmSync(folder, { recursive: true, force: true });
    await install(partial, log);
    renameSync(partial, folder);
  });
  return entry;
}

async function install(folder: string, log: (line: string) => void): Promise<void> {
  const startMs = Date.now();
  log(`Installing code-server ${codeServerVersion} (VS Code in the browser) once, about a minute.`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const quiet = { output: 'quiet', env: nestedEnvironment() } as const;
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund'];
  await npm(['install', `code-server@${codeServerVersion}`, ...flags], { cwd: folder, ...quiet });
  const vscode = join(folder, 'node_modules', 'code-server', 'lib', 'vscode');
  await npm(['install', '--omit=dev', ...flags], { cwd: vscode, ...quiet });
  await npm(['install', '--omit=dev', ...flags], { cwd: join(vscode, 'extensions'), ...quiet });
  await buildNatives(folder, (module) => npm(['rebuild', module], { cwd: vscode, ...quiet }), log);
  log(`code-server is installed (${Math.round((Date.now() - startMs) / 1000)} s).`);
}

/** Logs build failures in one line and a file. Without a compiler they are expected, and the editor still works. */
async function buildNatives(
  folder: string,
  build: (module: string) => Promise<unknown>,
  log: (line: string) => void,
): Promise<void> {
  const missing: string[] = [];
  const reasons = join(folder, 'not-built.log');
  for (const module of builtModules) {
    await build(module).catch((error: unknown) => {
      missing.push(module);
      appendFileSync(reasons, `${module}: ${error instanceof Error ? error.message : String(error)}\n\n`);
    });
  }
  if (missing.length > 0) log(`code-server runs without ${missing.join(', ')}, which need a compiler and python3.`);
}

/** Removes the variables of an outer `npm run`, which would redirect the install to its project. */
function nestedEnvironment(): NodeJS.ProcessEnv {
  const outer = /^npm_(package_|lifecycle_|config_local_prefix$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !outer.test(name)));
}

if (import.meta.main) console.log(await ensureCodeServer((line) => console.error(line)));
