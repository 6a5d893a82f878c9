/** The text of a file, as far as it is worth indexing. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { limits } from '../limits.ts';
import type { Skipped } from './writer.ts';

export type Content =
  | { readonly kind: 'text'; readonly text: string; readonly digest: string }
  | { readonly kind: 'skipped'; readonly why: Skipped };

const skipped = (why: Skipped): Content => ({ kind: 'skipped', why });

export function contentOf(path: string, bytes: number): Content {
  if (bytes > limits.repository.fileBytes) return skipped('too-large');
  const content = bytesOf(path);
  if (content === undefined) return skipped('unreadable');
  // Git calls a file binary by the same sign.
  if (content.subarray(0, 8000).includes(0)) return skipped('binary');
  const text = textOf(content);
  if (isGenerated(text)) return skipped('generated');
  return { kind: 'text', text, digest: createHash('sha1').update(content).digest('hex') };
}

function bytesOf(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    // Gone meanwhile, or not ours to read: the state counts it.
    return undefined;
  }
}

/** Minified code and data have lines that nobody wrote or reads. */
function isGenerated(text: string): boolean {
  let lines = 1;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines++;
  return text.length > limits.repository.generatedChars && text.length / lines > limits.repository.meanLineChars;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });
const latin1 = new TextDecoder('windows-1252');

/** As UTF-8, without a byte-order mark; what is none, as the encoding that old sources of the west are in. */
export function textOf(content: Uint8Array): string {
  try {
    return utf8.decode(content);
  } catch {
    return latin1.decode(content);
  }
}
