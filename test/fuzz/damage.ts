/** Ways in which the fuzzers damage files and folders. */
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { seededRandom } from './mutants.ts';

export interface ChangeFigures {
  readonly changes: number;
  readonly same: number;
  readonly refused: number;
  readonly problems: readonly string[];
}

export type Change = (path: string) => void;

const writable = (path: string): void => {
  if (statSync(path).isFile()) chmodSync(path, 0o600);
};
const noise =
  (share: number): Change =>
  (path) => {
    writable(path);
    const random = seededRandom(9);
    const bytes = Uint8Array.from(readFileSync(path));
    for (let at = 0; at < bytes.length; at++) if (random() < share) bytes[at] = Math.floor(random() * 256);
    writeFileSync(path, bytes);
  };
export const changes: Readonly<Record<string, Change>> = {
  'one byte in a thousand changed': noise(0.001),
  noise: noise(1),
  'cut in half': (path) => {
    writable(path);
    writeFileSync(`${path}.half`, readFileSync(path).subarray(0, statSync(path).size / 2));
    rmSync(path);
    cpSync(`${path}.half`, path);
    rmSync(`${path}.half`);
  },
  emptied: (path) => {
    rmSync(path);
    writeFileSync(path, '');
  },
  removed: (path) => rmSync(path),
  'replaced by a folder': (path) => {
    rmSync(path);
    mkdirSync(path);
  },
  'not readable': (path) => chmodSync(path, 0),
};

/** Of a folder that Hearth made. */
export const folderChanges: Readonly<Record<string, Change>> = {
  vanished: (path) => rmSync(path, { recursive: true }),
  'not writable': (path) => chmodSync(path, 0o500),
};

export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((item) => item.isFile())
    .map((item) => join(item.parentPath, item.name))
    .sort();
}

export function foldersBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((item) => item.isDirectory())
    .map((item) => join(item.parentPath, item.name))
    .sort();
}

/** `nobody`, as most systems number it. */
export const ordinaryUser = 65_534;

/** File modes do not restrict root, so those changes would test nothing. Stays root if other users can't read the project. */
export async function asOrdinaryUser<Result>(task: () => Promise<Result>): Promise<Result> {
  if (process.geteuid?.() !== 0) return task();
  process.setegid?.(ordinaryUser);
  process.seteuid?.(ordinaryUser);
  if (!mayRead(import.meta.filename)) process.seteuid?.(0);
  try {
    return await task();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
}

function mayRead(path: string): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Removes the folder, whatever modes are in it. */
export function clear(folder: string): void {
  if (!existsSync(folder)) return;
  for (const path of [folder, ...foldersBelow(folder)]) chmodSync(path, 0o700);
  rmSync(folder, { recursive: true });
}

export interface Damage {
  readonly path: string;
  readonly name: string;
  readonly change: Change;
}

export const damageOf = (path: string, of: Readonly<Record<string, Change>>): Damage[] =>
  Object.entries(of).map(([name, change]) => ({ path, name, change }));

/** Every change of every file below `sound`, in its copy `used`, and those of that folder itself. */
export function damageBelow(sound: string, used: string): Damage[] {
  const files = filesBelow(sound).flatMap((path) => damageOf(join(used, relative(sound, path)), changes));
  return [...files, ...damageOf(used, folderChanges)];
}

/** Runs the parts of a script one after another and prints their figures; the script fails if one found a problem. */
export async function runParts(
  parts: Readonly<Record<string, () => Promise<{ readonly problems: readonly string[] }>>>,
): Promise<void> {
  for (const [name, part] of Object.entries(parts)) {
    const figures = await part();
    console.log(`${name}: ${JSON.stringify(figures, null, 2)}`);
    if (figures.problems.length > 0) process.exitCode = 1;
  }
}
