/** Reads the JSON and text files beside a tokenizer, up to a maximum size. */
import { readFile, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { HearthError, invalidInput } from '../errors.ts';

/** The file's text; undefined if there is no file. */
export async function readOptionalText(path: string, maxBytes: number): Promise<string | undefined> {
  try {
    const { size } = await stat(path);
    if (size > maxBytes) {
      throw invalidInput(`${basename(path)} has ${size} bytes; at most ${maxBytes} are read.`);
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof HearthError) throw error;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new HearthError('unavailable', `${basename(path)}: can't be read.`, { cause: error });
  }
}

export async function readOptionalJson(path: string, maxBytes: number): Promise<unknown> {
  const text = await readOptionalText(path, maxBytes);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalidInput(`${basename(path)} isn't JSON: ${(error as Error).message}`);
  }
}
