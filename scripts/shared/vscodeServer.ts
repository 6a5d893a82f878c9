/** Runs code-server on loopback with its own user data, and ends it with all its children. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { run, stopGroup } from './process.ts';

export interface InstallOptions {
  /** Path returned by `ensureCodeServer`. */
  entry: string;
  userDataDir: string;
  extensionsDir: string;
}

export interface ServerOptions extends InstallOptions {
  /** 0 chooses a free port. */
  port: number;
  /** Password for the page. Undefined: no authentication. */
  password: string | undefined;
  /** If false, every workspace is trusted. */
  workspaceTrust: boolean;
  openBrowser: boolean;
  /** Written to the user's settings.json if it doesn't exist. */
  settings: Readonly<Record<string, unknown>>;
  /** The same for machine-scoped settings, which are read only from the server's own file. */
  machineSettings?: Readonly<Record<string, unknown>>;
  /** Display language; `languagepacks.json` in the user data names its pack. */
  language?: string | undefined;
  /** Added to our environment; undefined removes a variable. */
  environment?: Readonly<Record<string, string | undefined>>;
  onOutput: (line: string) => void;
}

export interface RunningServer {
  /** `http://127.0.0.1:PORT` */
  url: string;
  pid: number;
  exited: Promise<void>;
  stop: () => Promise<void>;
}

export const quietSettings = {
  'telemetry.telemetryLevel': 'off',
  'update.mode': 'none',
  'extensions.autoCheckUpdates': false,
  'extensions.autoUpdate': false,
} as const;

export async function startServer(options: ServerOptions, folder?: string): Promise<RunningServer> {
  writeSettings(options.userDataDir, 'User', options.settings);
  writeSettings(options.userDataDir, 'Machine', options.machineSettings ?? {});
  const args = [options.entry, ...serverArguments(options), ...(folder === undefined ? [] : [folder])];
  // A separate process group, so that pty hosts, extension hosts and engines end with it.
  const child = spawn(process.execPath, args, {
    env: { ...serverEnvironment(options.password), ...options.environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const watchdog = child.pid === undefined ? undefined : endWithUs(child.pid);
  const exited = once(child, 'exit').then(() => void watchdog?.kill());
  const stop = () => stopGroup(child);
  const url = new Promise<string>((resolve, reject) => {
    const onLine = (line: string) => {
      options.onOutput(line);
      const address = /server listening on (http:\/\/\S+?)\/?$/i.exec(line)?.[1];
      if (address !== undefined) resolve(address);
    };
    createInterface(child.stdout).on('line', onLine);
    createInterface(child.stderr).on('line', onLine);
    child.once('error', reject);
    exited.then(() => reject(new Error('code-server ended before it was ready. See its output above.')), reject);
  });
  return { url: await url, pid: child.pid ?? 0, exited, stop };
}

/** A detached group outlives a killed parent. The watchdog process ends the group when its pipe to us closes. */
function endWithUs(group: number): ChildProcess {
  const code = `process.stdin.resume().on('end', () => { try { process.kill(-${group}, 'SIGKILL'); } catch {} });`;
  const watchdog = spawn(process.execPath, ['-e', code], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  watchdog.unref();
  if (watchdog.stdin instanceof Socket) watchdog.stdin.unref();
  return watchdog;
}

export async function installExtension(options: InstallOptions, vsix: string): Promise<void> {
  const folders = ['--user-data-dir', options.userDataDir, '--extensions-dir', options.extensionsDir];
  const config = ['--config', join(options.userDataDir, 'code-server.yaml')];
  const args = [options.entry, ...folders, ...config, '--install-extension', vsix, '--force'];
  await run(process.execPath, args, { env: serverEnvironment(undefined), output: 'quiet' });
}

function serverArguments(options: ServerOptions): string[] {
  const args = ['--auth', options.password === undefined ? 'none' : 'password'];
  args.push('--bind-addr', `127.0.0.1:${options.port}`, '--disable-proxy');
  args.push('--user-data-dir', options.userDataDir, '--extensions-dir', options.extensionsDir);
  // Prevents code-server from reading or creating the user's ~/.config/code-server/config.yaml.
  args.push('--config', join(options.userDataDir, 'code-server.yaml'));
  args.push('--disable-telemetry', '--disable-update-check', '--disable-getting-started-override');
  if (!options.workspaceTrust) args.push('--disable-workspace-trust');
  if (options.openBrowser) args.push('--open');
  if (options.language !== undefined) args.push('--locale', options.language);
  return args;
}

/** Removes variables that change its address, or that open the folder in the VS Code whose terminal started us. */
function serverEnvironment(password: string | undefined): NodeJS.ProcessEnv {
  const misleading = /^(PORT|PASSWORD|HASHED_PASSWORD|CODE_SERVER_\w+|VSCODE_\w+|NODE_OPTIONS)$/;
  const kept = Object.entries(process.env).filter(([name]) => !misleading.test(name));
  return { ...Object.fromEntries(kept), ...(password === undefined ? {} : { PASSWORD: password }) };
}

function writeSettings(
  userDataDir: string,
  kind: 'User' | 'Machine',
  settings: Readonly<Record<string, unknown>>,
): void {
  const path = join(userDataDir, kind, 'settings.json');
  if (existsSync(path)) return;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(settings, null, 2)}\n`);
}
