/**
 * Copies a GGUF with a larger context length in its metadata, to measure speed in long contexts with a small model. Its output
 * beyond the trained length is meaningless, but the work is the same.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { openGguf } from '../../engine/formats/gguf.ts';
import { metadataNumber, metadataString } from '../../engine/formats/ggufMetadata.ts';
import type { Report } from './report.ts';
import { count } from './settings.ts';

/** ggml.h `enum gguf_type`. */
const uint32Type = 4;

/**
 * @returns `path` if its context is long enough, otherwise a copy whose context is the next power of two. The copy's folder is
 * named by its SHA-256, as in the model store, because derived files are keyed by that digest.
 */
export async function withLongContext(path: string, neededTokens: number, report: Report): Promise<string> {
  const { key, tokens } = await contextOf(path);
  if (tokens >= neededTokens) return path;
  const longTokens = 2 ** Math.ceil(Math.log2(neededTokens));
  const copy = patched(readFileSync(path), key, longTokens);
  const directory = join(process.cwd(), '.cache/bench', `sha256-${createHash('sha256').update(copy).digest('hex')}`);
  const copyPath = join(directory, `${basename(path, '.gguf')}-context-${longTokens}.gguf`);
  if (!existsSync(copyPath)) {
    mkdirSync(directory, { recursive: true });
    writeFileSync(`${copyPath}.partial`, copy);
    renameSync(`${copyPath}.partial`, copyPath);
  }
  const read = (await contextOf(copyPath)).tokens;
  if (read !== longTokens) throw new Error(`${copyPath} says ${read} tokens.`);
  report.remarks.add(
    `${basename(copyPath)} is a copy of ${basename(path)} that differs in its ${key} alone (${count(longTokens)}, not ` +
      `${count(tokens)}), for both engines. What it writes beyond that means nothing; its speed is that of the model.`,
  );
  return copyPath;
}

async function contextOf(path: string): Promise<{ readonly key: string; readonly tokens: number }> {
  const file = await openGguf(path);
  const key = `${metadataString(file, 'general.architecture')}.context_length`;
  const tokens = metadataNumber(file, key);
  await file.close();
  return { key, tokens };
}

/** A metadata entry: u64 key length, key, type, value (ggml docs/gguf.md). */
function patched(file: Buffer, key: string, tokens: number): Buffer {
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(key.length));
  const type = Buffer.alloc(4);
  type.writeUInt32LE(uint32Type);
  const entry = Buffer.concat([head, Buffer.from(key), type]);
  const at = file.indexOf(entry);
  if (at < 0) throw new Error(`${key} is not a 32-bit number.`);
  file.writeUInt32LE(tokens, at + entry.length);
  return file;
}
