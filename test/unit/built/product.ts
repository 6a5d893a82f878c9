/** What ships, built by esbuild.mjs as scripts/package.ts builds it, in a folder from which the native modules are found. */
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { projectRoot } from '../../../scripts/shared/paths.ts';
import { run } from '../../../scripts/shared/process.ts';

export interface Product {
  readonly folder: string;
  readonly cli: string;
  readonly engine: string;
  readonly indexer: string;
  /** Modules that no process has loaded so far. */
  unloaded(): string[];
  remove(): Promise<void>;
}

export async function buildProduct(): Promise<Product> {
  const folder = join(projectRoot, 'node_modules', '.cache', 'hearth-built', String(process.pid));
  await mkdir(folder, { recursive: true });
  await run(process.execPath, ['esbuild.mjs', '--production', '--outdir', folder], {
    cwd: projectRoot,
    output: 'quiet',
  });
  const modules = readdirSync(folder).filter((name) => name.endsWith('.mjs'));
  const loaded = join(folder, 'loaded.txt');
  for (const name of modules) tellWhenLoaded(join(folder, name), loaded, name);
  return {
    folder,
    cli: join(folder, 'cli.mjs'),
    engine: join(folder, 'engine.mjs'),
    indexer: join(folder, 'indexer.mjs'),
    unloaded: () => {
      const seen = new Set(existsSync(loaded) ? readFileSync(loaded, 'utf8').split('\n') : []);
      return modules.filter((name) => !seen.has(name));
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** A last line, so that processes that are killed and threads that are terminated are counted too. `require` is in esbuild's banner. */
function tellWhenLoaded(file: string, loaded: string, name: string): void {
  appendFileSync(
    file,
    `\nrequire('node:fs').appendFileSync(${JSON.stringify(loaded)}, ${JSON.stringify(`${name}\n`)});\n`,
  );
}

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Launch {
  /** The Node that runs it. Default: the tests'. */
  readonly node?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Runs a program to its end. */
export function runNode(args: readonly string[], { node = process.execPath, env, cwd }: Launch = {}): Promise<Ended> {
  const child = spawn(node, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  return new Promise((done, failed) => {
    child.once('error', failed);
    child.once('close', (status) =>
      done({ status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }),
    );
  });
}
