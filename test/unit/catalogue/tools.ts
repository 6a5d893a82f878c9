/** Test content, zip archives and folders for the store's tests. */
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';
import { type CatalogueEntry, type CatalogueEntryInput, parseCatalogue } from '../../../engine/catalogue/catalogue.ts';

export const sha256 = (content: Buffer | string): string => createHash('sha256').update(content).digest('hex');

/** Mulberry32: the same numbers in every run. */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function randomBytes(bytes: number, seed = 1): Buffer {
  const random = randomNumbers(seed);
  return Buffer.from(Array.from({ length: bytes }, () => Math.floor(random() * 256)));
}

const folders: string[] = [];

export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'hearth-store-'));
  folders.push(folder);
  return folder;
}

export async function removeTemporaryFolders(): Promise<void> {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
}

/** Every file below `folder`, sorted, with forward slashes. */
export async function filesBelow(folder: string): Promise<string[]> {
  const items = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = items.filter((item) => !item.isDirectory());
  return files
    .map((item) =>
      join(item.parentPath, item.name)
        .slice(folder.length + 1)
        .replaceAll('\\', '/'),
    )
    .sort();
}

/** A catalogue entry with one small file on the hub. */
export function testEntry(content: Buffer, changes: Partial<CatalogueEntryInput> = {}): CatalogueEntry {
  const [entry] = parseCatalogue([
    {
      id: 'tiny',
      name: 'Tiny',
      family: 'llama',
      description: 'For tests.',
      licence: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0', open: true },
      parameters: 1000,
      activeParameters: 1000,
      quantisation: 'F32',
      downloadBytes: content.length,
      bytesPerToken: content.length,
      cacheBytesPerToken: 64,
      contextTokens: 128,
      roles: ['completion', 'chat'],
      rank: 1,
      files: [{ name: 'tiny.gguf', bytes: content.length, sha256: sha256(content) }],
      sources: [{ kind: 'hub', repository: 'owner/tiny', revision: 'main' }],
      ...changes,
    },
  ]);
  if (!entry) throw new Error('No entry was parsed.');
  return entry;
}

export interface ZipEntry {
  readonly name: string;
  readonly content: Buffer;
  readonly stored?: boolean;
  /** False values for the zip directory. */
  readonly claimedBytes?: number;
}

/** Builds a zip archive after PKWARE's APPNOTE 6.3.10: local headers with content, central directory, end record. */
export function makeZip(entries: readonly ZipEntry[]): Buffer {
  const locals: Buffer[] = [];
  const centrals: Buffer[] = [];
  let offset = 0;
  for (const { name, content, stored, claimedBytes } of entries) {
    const packed = stored ? content : deflateRawSync(content);
    const nameBytes = Buffer.from(name);
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(0x800, 2);
    fields.writeUInt16LE(stored ? 0 : 8, 4);
    fields.writeUInt32LE(crc32(content), 10);
    fields.writeUInt32LE(packed.length, 14);
    fields.writeUInt32LE(claimedBytes ?? content.length, 18);
    fields.writeUInt16LE(nameBytes.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), fields, nameBytes, packed]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(offset, 10);
    centrals.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\x00', 'latin1'), fields, tail, nameBytes]));
    locals.push(local);
    offset += local.length;
  }
  const directory = Buffer.concat(centrals);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(entries.length, 4);
  end.writeUInt16LE(entries.length, 6);
  end.writeUInt32LE(directory.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...locals, directory, Buffer.from('PK\x05\x06', 'latin1'), end]);
}
