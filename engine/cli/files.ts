/** Reading a user's source files. */
import { readFile, stat } from 'node:fs/promises';
import { HearthError, invalidInput, notFound } from '../errors.ts';
import { limits } from '../limits.ts';

/** Text of a file. @throws HearthError `not-found`, or `invalid-input` for a folder, a binary or a huge file. */
export async function readSource(path: string): Promise<string> {
  const bytes = await readBytes(path);
  // Git calls a file binary by the same sign.
  if (bytes.subarray(0, 8000).includes(0)) throw invalidInput(`${path} is a binary file.`);
  return bytes.toString('utf8').replace(/^\ufeff/, '');
}

async function readBytes(path: string): Promise<Buffer> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw notFound(`There is no file ${path}.`);
  if (!found.isFile()) throw invalidInput(`${path} is not a file.`);
  if (found.size > limits.cli.sourceBytes) {
    throw invalidInput(`${path} has ${found.size} bytes; at most ${limits.cli.sourceBytes} are read.`);
  }
  try {
    return await readFile(path);
  } catch (error) {
    throw new HearthError('unavailable', `${path} cannot be read.`, { cause: error });
  }
}

/** VS Code's language identifiers, where they differ from the file's extension. */
const languages: Readonly<Record<string, string>> = {
  cc: 'cpp',
  cjs: 'javascript',
  cs: 'csharp',
  h: 'c',
  hpp: 'cpp',
  hs: 'haskell',
  js: 'javascript',
  jsx: 'javascriptreact',
  kt: 'kotlin',
  md: 'markdown',
  mjs: 'javascript',
  ml: 'ocaml',
  pl: 'perl',
  ps1: 'powershell',
  py: 'python',
  rb: 'ruby',
  rs: 'rust',
  sh: 'shellscript',
  ts: 'typescript',
  tsx: 'typescriptreact',
  yml: 'yaml',
};

/** @param extension with its dot, as `extname` gives it. */
export function languageOf(extension: string): string {
  const name = extension.slice(1).toLowerCase();
  return languages[name] ?? name;
}
