/** The secret of a server: random, and where it is kept, readable to its owner alone. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';

/** 256 bits: 43 characters of base64url. */
export const newToken = (): string => randomBytes(32).toString('base64url');

/** The token in `path`; a file that is absent is made with a new one. */
export async function tokenInFile(path: string): Promise<string> {
  try {
    const token = newToken();
    await writeFile(path, `${token}\n`, { mode: 0o600, flag: 'wx' });
    return token;
  } catch (error) {
    if (!(error instanceof Error && Reflect.get(error, 'code') === 'EEXIST')) {
      throw invalidInput(`The token cannot be written to ${path}: ${error instanceof Error ? error.message : error}`);
    }
  }
  const token = (await readFile(path, 'utf8')).trim();
  if (token.length >= limits.server.tokenChars && !/\s/.test(token)) return token;
  const least = limits.server.tokenChars;
  throw invalidInput(`${path} holds no token: one word of at least ${least} characters. Remove the file to get one.`);
}
