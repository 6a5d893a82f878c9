/**
 * Builds Hearth, downloads a model if there is none (on a terminal it asks which), and opens a folder with it in a real VS Code.
 *
 *     npm start [-- FOLDER] [--port N] [--no-open] [--browser]
 *
 * Uses the installed `code` if there is one and a display; otherwise, or with --browser, code-server on loopback. Other users
 * of this machine can also reach a loopback port, so the page asks for a random password. The password is created once and
 * stored in a file that only its owner can read.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';
import { catalogue, defaultModelId, requireEntry } from '../engine/catalogue/catalogue.ts';
import { choosePair } from '../engine/catalogue/choice.ts';
import { detectMachine } from '../engine/catalogue/fit.ts';
import { openStore } from '../engine/catalogue/store.ts';
import { ensureCodeServer } from './code-server.ts';
import { defaultPackagePath, isTarget, packageExtension } from './package.ts';
import { firstModels } from './shared/firstModels.ts';
import { devCache, hostTarget, projectRoot } from './shared/paths.ts';
import { findInPath, isExecutable, run } from './shared/process.ts';
import { installExtension, quietSettings, startServer } from './shared/vscodeServer.ts';

const usualPort = 8090;
/** Makes the extension show its chat and walkthrough once. */
const firstWindow = { HEARTH_FIRST_WINDOW: '1' };
const oldestVSCode = [1, 104] as const;

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    allowNegative: true,
    options: {
      port: { type: 'string' },
      open: { type: 'boolean', default: true },
      browser: { type: 'boolean', default: false },
    },
  });
  const port = values.port === undefined ? undefined : Number(values.port);
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65535)) {
    throw new Error(`--port ${values.port} is not a valid port number.`);
  }
  // npm starts scripts in the project folder; INIT_CWD is the user's folder.
  const folder = resolve(process.env['INIT_CWD'] ?? process.cwd(), positionals[0] ?? '.');
  if (!existsSync(folder) || !statSync(folder).isDirectory()) throw new Error(`${folder} is not a folder.`);
  return { port, folder, open: values.open, browser: values.browser };
}

/** Assumes that Windows and macOS always have a display. */
function hasDisplay(): boolean {
  if (process.platform !== 'linux') return true;
  return process.env['DISPLAY'] !== undefined || process.env['WAYLAND_DISPLAY'] !== undefined;
}

/** The `code` command of a recent enough desktop VS Code. */
function findCode(): string | undefined {
  const macApp = '/Applications/Visual Studio Code.app/Contents/Resources/app/bin/code';
  const names = process.platform === 'win32' ? ['code.cmd'] : ['code'];
  const code = findInPath(names) ?? (isExecutable(macApp) ? macApp : undefined);
  if (code === undefined) return undefined;
  // VS Code refuses to run as root on Linux.
  if (process.platform === 'linux' && process.getuid?.() === 0) return undefined;
  const version = execFileSync(code, ['--version'], { encoding: 'utf8', shell: code.endsWith('.cmd') });
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > oldestVSCode[0] || (major === oldestVSCode[0] && minor >= oldestVSCode[1])) return code;
  console.log(`${code} is version ${major}.${minor}; Hearth needs ${oldestVSCode.join('.')}. Using code-server.`);
  return undefined;
}

/** Created once, so that a signed-in browser stays signed in. */
function readPassword(): string {
  const path = join(devCache, 'code-server-password');
  if (!existsSync(path)) {
    mkdirSync(devCache, { recursive: true });
    writeFileSync(path, randomBytes(18).toString('base64url'), { mode: 0o600 });
  }
  return readFileSync(path, 'utf8');
}

/** The default port if it is free, otherwise 0 for a port chosen by the system. */
async function choosePort(): Promise<number> {
  const probe = createServer();
  const taken = await new Promise<boolean>((resolve) => {
    probe.once('error', () => resolve(true));
    probe.listen(usualPort, '127.0.0.1', () => resolve(false));
  });
  if (taken) return 0;
  await new Promise((resolve) => probe.close(resolve));
  return usualPort;
}

async function startInBrowser(folder: string, port: number, openBrowser: boolean): Promise<void> {
  if (!isTarget(hostTarget)) throw new Error(`Hearth is not built for ${hostTarget}.`);
  const entry = await ensureCodeServer(console.log);
  console.log('Packaging the extension.');
  const vsix = await packageExtension(hostTarget, defaultPackagePath(hostTarget));
  const password = readPassword();
  const userDataDir = join(devCache, 'start', 'user-data');
  const extensionsDir = join(devCache, 'start', 'extensions');
  const options = { entry, userDataDir, extensionsDir, port, password, workspaceTrust: true, openBrowser };
  await installExtension({ entry, userDataDir, extensionsDir }, vsix);
  const onOutput = (line: string) => {
    // The missing native modules were already reported at installation.
    const isKnown = line.includes('Could not locate the bindings file');
    if (!isKnown && /error|EADDRINUSE/i.test(line)) console.error(line);
  };
  const server = await startServer({ ...options, environment: firstWindow, settings: quietSettings, onOutput }, folder);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void server.stop());
  console.log(`
Hearth is open on ${folder}

    ${server.url}/?folder=${encodeURIComponent(folder)}
    password: ${password}

Ctrl-C ends it.`);
  await server.exited;
}

function printCommandLine(): void {
  console.log(`
The same without an editor:

    npx hearth chat "What does this project do?" --workspace .
    npx hearth complete FILE:LINE:COLUMN
    npx hearth summarise FILE`);
}

const secondsToAnswer = 10;

/** Empty if there is a model already. */
async function modelsToDownload(): Promise<string[]> {
  const models = await openStore().list();
  if (models.some(({ state, entry }) => state === 'present' && entry.roles.includes('chat'))) return [];
  const pair = choosePair(catalogue, await detectMachine(), { fallbackId: defaultModelId });
  const ask = { ask: (question: string) => answerOnTerminal(question) };
  return firstModels({
    small: requireEntry(defaultModelId),
    pair,
    say: console.log,
    ...(process.stdin.isTTY && process.stdout.isTTY && ask),
  });
}

async function answerOnTerminal(question: string): Promise<string | undefined> {
  const lines = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return await lines.question(question, { signal: AbortSignal.timeout(secondsToAnswer * 1000) });
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
    console.log();
    return undefined;
  } finally {
    lines.close();
  }
}

async function main(): Promise<void> {
  const { port, folder, open, browser } = readArguments();
  const inProject = { cwd: projectRoot };
  await run(process.execPath, ['esbuild.mjs'], inProject);
  for (const id of await modelsToDownload())
    await run(process.execPath, ['dist/cli.mjs', 'models', 'pull', id], inProject);
  if (!hasDisplay()) printCommandLine();
  const code = hasDisplay() && !browser ? findCode() : undefined;
  if (code === undefined) {
    await startInBrowser(folder, port ?? (await choosePort()), open && hasDisplay());
    return;
  }
  if (!open) {
    console.log(`Built. Open it with: ${code} --extensionDevelopmentPath=${projectRoot} ${folder}`);
    return;
  }
  const env = { ...process.env, ...firstWindow };
  await run(code, [`--extensionDevelopmentPath=${projectRoot}`, '--new-window', folder], { env });
  console.log(`Hearth is open on ${folder} in an Extension Development Host window of VS Code.`);
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
