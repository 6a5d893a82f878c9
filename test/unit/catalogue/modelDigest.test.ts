import { createHash } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { ModelDigest, storedDigest } from '../../../engine/catalogue/manifest.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let root: string;
let directory: string;
let path: string;

beforeEach(async () => {
  root = temporaryFolder();
  directory = join(root, 'digests');
  path = join(root, 'own.gguf');
});

const go = new AbortController().signal;
const sha256 = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const digestOf = async () => (await ModelDigest.of(path, root)).compute(go);
const known = async () => (await ModelDigest.of(path, root)).known;

/** A signal that is aborted after `aborted` was read this many times. */
function abortedAfter(looks: number): AbortSignal {
  let left = looks;
  return Object.defineProperty(new AbortController().signal, 'aborted', { get: () => left-- <= 0 });
}

describe("the digest of a user's own model", () => {
  it("is its file's SHA-256, and is cached for the next start", async () => {
    await writeFile(path, 'abc');
    expect(await known()).toBeUndefined();
    // FIPS 180-2, appendix B.1.
    const expected = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
    expect(await digestOf()).toBe(expected);
    expect(await known()).toBe(expected);
    await digestOf();
    expect(await readdir(directory)).toHaveLength(1);
  });

  it('continues where it was interrupted', async () => {
    const bytes = new Uint8Array(3_500_000).map((_, i) => i % 251);
    await writeFile(path, bytes);
    const digest = await ModelDigest.of(path, root);
    let stops = 0;
    while ((await digest.compute(abortedAfter(2))) === undefined) stops++;
    expect(stops).toBeGreaterThan(2);
    expect(digest.known).toBe(sha256(bytes));
  });

  it('is correct if two callers compute it at once', async () => {
    const bytes = new Uint8Array(2_500_000).fill(7);
    await writeFile(path, bytes);
    const digest = await ModelDigest.of(path, root);
    expect(await Promise.all([digest.compute(go), digest.compute(go)])).toEqual([sha256(bytes), sha256(bytes)]);
  });

  it.each(['length', 'date', 'inode'])('is computed again if the file changed its %s', async (what) => {
    await writeFile(path, 'first');
    const [first, { mtime }] = [await digestOf(), await stat(path)];
    if (what === 'inode') {
      await writeFile(`${path}.new`, 'other');
      await rename(`${path}.new`, path);
    } else {
      await writeFile(path, what === 'length' ? 'longer' : 'other');
    }
    await utimes(path, mtime, what === 'date' ? new Date(mtime.getTime() + 1000) : mtime);
    expect(await known()).toBeUndefined();
    expect(await digestOf()).not.toBe(first);
  });

  it('stays unknown if the file changed after it was loaded', async () => {
    await writeFile(path, 'first');
    const digest = await ModelDigest.of(path, root);
    await writeFile(path, 'other');
    await utimes(path, 1, 1);
    expect(await digest.compute(go)).toBeUndefined();
    expect(await digest.compute(go)).toBeUndefined();
    expect(await readdir(directory).catch(() => [])).toEqual([]);
  });

  it('stays unknown if the file was deleted', async () => {
    expect(await digestOf()).toBeUndefined();
    await writeFile(path, 'there');
    const digest = await ModelDigest.of(path, root);
    await rm(path);
    expect(await digest.compute(go)).toBeUndefined();
  });

  it('of a folder covers all shards, index and configuration', async () => {
    path = join(root, 'own');
    await mkdir(path);
    const files = { 'config.json': '{}', 'model-1.safetensors': 'one', 'model-2.safetensors': 'two' };
    for (const [name, content] of Object.entries({ ...files, 'README.md': 'text' })) {
      await writeFile(join(path, name), content);
    }
    // The output of `sha256sum * | sort | sha256sum`.
    const lines = Object.entries(files).map(([name, content]) => `${sha256(content)}  ${name}\n`);
    expect(await digestOf()).toBe(sha256(lines.sort().join('')));
    await writeFile(join(path, 'model-2.safetensors'), 'three');
    expect(await known()).toBeUndefined();
  });

  it('is computed again if the cache cannot be written or read', async () => {
    await writeFile(path, 'abc');
    await writeFile(directory, 'a file where the folder should be');
    expect(await digestOf()).toBe(sha256('abc'));
    expect(await known()).toBeUndefined();
    await rm(directory);
    await digestOf();
    const [name = ''] = await readdir(directory);
    await writeFile(join(directory, name), '{');
    expect(await known()).toBeUndefined();
  });

  it('distinguishes files before it is computed', async () => {
    await writeFile(path, 'abc');
    const { label } = await ModelDigest.of(path, root);
    await writeFile(path, 'abcd');
    expect((await ModelDigest.of(path, root)).label).not.toBe(label);
    const digest = await digestOf();
    expect((await ModelDigest.of(path, root)).label).toBe(digest);
  });
});

describe('the digest of a model in the store', () => {
  const digest = 'c'.repeat(64);

  it('is part of its path', async () => {
    path = join(root, 'models', `sha256-${digest}`, 'model.gguf');
    expect(storedDigest(path, root)).toBe(digest);
    expect(await known()).toBe(digest);
    expect(storedDigest(join(root, 'models', `sha256-${digest}`), root)).toBe(digest);
  });

  it.each([
    'a folder of a user',
    'a folder that looks like a store',
    'another folder of the store',
    'a folder within a model',
    'a path that leaves the store',
  ])('is not taken from the name of %s', async (where) => {
    const named = `sha256-${digest}`;
    const folders: Record<string, string[]> = {
      'a folder of a user': ['..', 'own', named],
      'a folder that looks like a store': ['own', 'models', named],
      'another folder of the store': ['downloads', named],
      'a folder within a model': ['models', `sha256-${'d'.repeat(63)}`, named],
      'a path that leaves the store': ['models', named, '..', '..', '..', 'own'],
    };
    const folder = join(root, ...(folders[where] ?? []));
    await mkdir(folder, { recursive: true });
    path = join(folder, 'model.gguf');
    await writeFile(path, 'abc');
    expect(storedDigest(path, root)).toBeUndefined();
    expect(await digestOf()).toBe(sha256('abc'));
  });
});
