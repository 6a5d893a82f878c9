import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { platform } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openSafetensors, parseSafetensorsHeader } from '../../../engine/formats/safetensors.ts';
import { limits } from '../../../engine/limits.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { memorySource, safetensors, soundSafetensors, zeros } from './builders.ts';

let directory = '';
let count = 0;
beforeAll(() => {
  directory = temporaryFolder();
});

/** A new directory with these files. */
function checkpoint(files: Readonly<Record<string, Uint8Array | string>>): string {
  const path = join(directory, String(count++));
  mkdirSync(path);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content);
  return path;
}

const code = (expected: string) => expect.objectContaining({ code: expected }) as Error;

/** What this process has open (Linux). */
const openFiles = (): string[] =>
  readdirSync('/proc/self/fd').flatMap((descriptor) => {
    try {
      return [readlinkSync(`/proc/self/fd/${descriptor}`)];
    } catch {
      // Closed since it was listed.
      return [];
    }
  });

/** One tensor of four bytes, all of them `value`. */
const oneTensor = (name: string, value: number): Uint8Array =>
  safetensors(
    JSON.stringify({ [name]: { dtype: 'U8', shape: [4], data_offsets: [0, 4] } }),
    new Uint8Array(4).fill(value),
  );

const indexOf = (weightMap: unknown, rest: object = {}): string => JSON.stringify({ ...rest, weight_map: weightMap });

describe('a sound safetensors file', () => {
  it('opens from its path, and from the directory that holds it', async () => {
    const path = checkpoint({ 'model.safetensors': soundSafetensors() });
    for (const from of [path, join(path, 'model.safetensors')]) {
      const file = await openSafetensors(from);
      expect([...file.tensors.keys()]).toEqual(['a', 'b']);
      expect(file.tensors.get('a')).toMatchObject({ type: 'F16', shape: [2, 2], byteLength: 8 });
      expect([...(await file.read('b'))]).toEqual([8, 9, 10]);
      expect([...(await file.read('a', 2, 3))]).toEqual([2, 3, 4]);
      await file.close();
    }
  });

  const opens = (header: string, data: Uint8Array = zeros(0)) =>
    parseSafetensorsHeader(memorySource(safetensors(header, data)));

  it('may be empty', () => {
    expect(opens('{}').size).toBe(0);
  });

  it('may list tensors in another order than their data', () => {
    const header = {
      b: { dtype: 'U8', shape: [2], data_offsets: [4, 6] },
      a: { dtype: 'F32', shape: [], data_offsets: [0, 4] },
    };
    expect([...opens(JSON.stringify(header), zeros(6)).keys()]).toEqual(['b', 'a']);
  });

  it('may contain tensors without elements, anywhere', () => {
    const header = {
      a: { dtype: 'U8', shape: [4], data_offsets: [0, 4] },
      none: { dtype: 'F32', shape: [0, 7], data_offsets: [4, 4] },
      b: { dtype: 'U8', shape: [1], data_offsets: [4, 5] },
      end: { dtype: 'F64', shape: [0], data_offsets: [5, 5] },
    };
    expect(opens(JSON.stringify(header), zeros(5)).get('none')).toMatchObject({ shape: [0, 7], byteLength: 0 });
  });

  it('may be padded with blanks, and hold white space between its parts', () => {
    expect(opens('{ "a" :\n{\t"dtype":"U8" , "shape": [ 1 , 2 ] ,"data_offsets":[0,2]} }     ', zeros(2)).size).toBe(1);
  });

  it('may name its tensors in any script, escaped or not', () => {
    const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
    const names = [...opens(`{"日本":${entry},"\\u00e9\\n\\"":${entry},"\\ud83d\\ude00x":${entry}}`).keys()];
    expect(names).toEqual(['日本', 'é\n"', '😀x']);
  });

  it('may have a tensor named like a member of every object', () => {
    const entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
    expect([...opens(`{"__proto__":${entry},"constructor":${entry}}`).keys()]).toEqual(['__proto__', 'constructor']);
  });

  it('reads a header longer than the read buffer', () => {
    const tensors = Array.from({ length: 9000 }, (_, i) => [`model.layers.${i}.weight`, i] as const);
    const header = Object.fromEntries(
      tensors.map(([name, i]) => [name, { dtype: 'U16', shape: [1], data_offsets: [2 * i, 2 * i + 2] }]),
    );
    const json = JSON.stringify(header);
    expect(json.length).toBeGreaterThan(2 * limits.formats.headerChunkBytes);
    const read = opens(json, zeros(18_000));
    expect([...read.keys()]).toEqual(tensors.map(([name]) => name));
    expect(read.get('model.layers.8999.weight')?.fileOffset).toBe(8 + json.length + 17_998);
  });

  it('reads a text that straddles the read buffer at any byte', () => {
    const chunk = limits.formats.headerChunkBytes;
    const tail = 'é\\n日"';
    for (let shift = 0; shift < 16; shift++) {
      const filler = ' '.repeat(chunk - 8 - 2 - shift);
      const json = `{${filler}"${tail.slice(0, -1)}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`;
      expect([...opens(json).keys()]).toEqual(['é\n日']);
    }
  });
});

describe('a sharded checkpoint', () => {
  it('reads each tensor from the shard that the index names', async () => {
    const path = checkpoint({
      'model.safetensors.index.json': indexOf(
        { x: 'model-00001-of-00002.safetensors', y: 'model-00002-of-00002.safetensors' },
        { metadata: { total_size: 8, note: 'a "quoted" text', list: [1.5e3, -2, true, null, { deep: [] }] } },
      ),
      'model-00001-of-00002.safetensors': oneTensor('x', 1),
      'model-00002-of-00002.safetensors': oneTensor('y', 2),
    });
    const file = await openSafetensors(path);
    expect([...file.tensors.keys()]).toEqual(['x', 'y']);
    expect([...(await file.read('x')), ...(await file.read('y'))]).toEqual([1, 1, 1, 1, 2, 2, 2, 2]);
    await file.close();
  });

  it('reads a tensor that is in two shards from the one that the index names', async () => {
    const path = checkpoint({
      'model.safetensors.index.json': indexOf({ x: 'b.safetensors', y: 'a.safetensors' }),
      'a.safetensors': safetensors(
        JSON.stringify({
          x: { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
          y: { dtype: 'U8', shape: [1], data_offsets: [1, 2] },
        }),
        Uint8Array.of(7, 8),
      ),
      'b.safetensors': oneTensor('x', 9),
    });
    const file = await openSafetensors(path);
    expect([...(await file.read('x')), ...(await file.read('y'))]).toEqual([9, 9, 9, 9, 8]);
    await file.close();
  });

  it('prefers the single file where there are both, as transformers does', async () => {
    const path = checkpoint({
      'model.safetensors': oneTensor('single', 1),
      'model.safetensors.index.json': indexOf({ x: 'a.safetensors' }),
    });
    const file = await openSafetensors(path);
    expect([...file.tensors.keys()]).toEqual(['single']);
    await file.close();
  });

  it('keeps a bounded number of shards open, however they are read', async (context) => {
    if (platform() !== 'linux') context.skip('it looks into /proc, which Linux has');
    const shards = 3 * limits.formats.openFiles;
    const name = (shard: number) => `shard-${shard}.safetensors`;
    const numbers = [...Array(shards).keys()];
    const path = checkpoint({
      'model.safetensors.index.json': indexOf(Object.fromEntries(numbers.map((shard) => [`t${shard}`, name(shard)]))),
      ...Object.fromEntries(numbers.map((shard) => [name(shard), oneTensor(`t${shard}`, shard)])),
    });
    const openInDirectory = () => openFiles().filter((target) => target.startsWith(path)).length;
    let mostOpen = 0;
    const sampler = setInterval(() => {
      mostOpen = Math.max(mostOpen, openInDirectory());
    });
    const file = await openSafetensors(path);
    expect(openInDirectory()).toBe(0);
    const read = await Promise.all([...numbers, ...numbers].map((shard) => file.read(`t${shard}`)));
    expect(read.map((bytes) => bytes[0])).toEqual([...numbers, ...numbers]);
    for (let round = 0; round < 20; round++) await Promise.all(numbers.map((shard) => file.read(`t${shard}`)));
    clearInterval(sampler);
    expect(mostOpen).toBeGreaterThan(limits.formats.openFiles / 2);
    expect(mostOpen).toBeLessThanOrEqual(limits.formats.openFiles);
    await file.close();
    expect(openInDirectory()).toBe(0);
  });

  const shard = { 'a.safetensors': oneTensor('x', 1) };

  it.each([
    ['a parent directory', '../a.safetensors'],
    ['an absolute path', '/etc/a.safetensors'],
    ['a subdirectory', 'sub/a.safetensors'],
    ['a Windows path', '..\\a.safetensors'],
    ['a drive', 'C:a.safetensors'],
    ['a NUL byte', 'a.safetensors\u0000.safetensors'],
    ['the directory itself', '.'],
    ['a hidden file', '.safetensors'],
    ['a file of another kind', 'config.json'],
    ['a name that is longer than file systems allow', `${'a'.repeat(300)}.safetensors`],
    ['an empty name', ''],
    ['a right-to-left override', 'a\u202e.safetensors'],
  ])('refuses an index that names %s', async (_, name) => {
    const path = checkpoint({ 'model.safetensors.index.json': indexOf({ x: name }), ...shard });
    await expect(openSafetensors(path)).rejects.toThrow(code('invalid-input'));
    await expect(openSafetensors(path)).rejects.toThrow('"x"');
  });

  it.each([
    ['no weight_map', '{"metadata":{}}', 'weight_map'],
    ['an empty weight_map', '{"weight_map":{}}', 'weight_map'],
    ['two weight_maps', '{"weight_map":{"x":"a.safetensors"},"weight_map":{"x":"a.safetensors"}}', 'weight_map'],
    ['a weight_map that is a list', '{"weight_map":["a.safetensors"]}', 'weight_map'],
    ['a file that is a number', '{"weight_map":{"x":1}}', '"x"'],
    ['a tensor twice', '{"weight_map":{"x":"a.safetensors","x":"a.safetensors"}}', '"x"'],
    ['a tensor that its shard lacks', '{"weight_map":{"z":"a.safetensors"}}', '"z"'],
    ['no JSON', 'hello', 'header'],
    ['nothing', '', 'header'],
    ['a list', '[]', 'header'],
    ['an end in the middle', '{"weight_map":{"x":"a.safe', '"x"'],
    ['something behind its end', '{"weight_map":{"x":"a.safetensors"}} {}', 'follows'],
    ['metadata nested very deep', `{"metadata":${'['.repeat(100_000)}`, 'deep'],
    ['metadata that is no JSON', '{"metadata":{"x":tru},"weight_map":{"x":"a.safetensors"}}', '"metadata"'],
    ['metadata that is one endless word', `{"metadata":${'a'.repeat(100_000)}`, '"metadata"'],
    [
      'metadata with brackets that do not match',
      '{"metadata":{"x":[}],"weight_map":{"x":"a.safetensors"}}',
      '"metadata"',
    ],
  ])('refuses an index with %s', async (_, index, named) => {
    const path = checkpoint({ 'model.safetensors.index.json': index, ...shard });
    await expect(openSafetensors(path)).rejects.toThrow(code('invalid-input'));
    await expect(openSafetensors(path)).rejects.toThrow(named);
  });

  it('refuses an index that names more files than allowed', async () => {
    const names = Array.from({ length: limits.formats.shards + 1 }, (_, i) => [`t${i}`, `s${i}.safetensors`]);
    const path = checkpoint({ 'model.safetensors.index.json': indexOf(Object.fromEntries(names)) });
    await expect(openSafetensors(path)).rejects.toThrow(code('invalid-input'));
  });

  it('does not find a shard that is not there', async () => {
    const path = checkpoint({ 'model.safetensors.index.json': indexOf({ x: 'absent.safetensors' }) });
    await expect(openSafetensors(path)).rejects.toThrow(code('not-found'));
  });
});

describe('a shard that comes back', () => {
  it('is read again after it could not be opened once', async () => {
    const path = checkpoint({ 'model.safetensors': oneTensor('x', 5) });
    const file = await openSafetensors(path);
    rmSync(join(path, 'model.safetensors'));
    await expect(file.read('x')).rejects.toThrow(code('unavailable'));
    writeFileSync(join(path, 'model.safetensors'), oneTensor('x', 6));
    expect([...(await file.read('x'))]).toEqual([6, 6, 6, 6]);
    await file.close();
  });
});

describe('paths', () => {
  it('does not find what is not there', async () => {
    await expect(openSafetensors(join(directory, 'absent'))).rejects.toThrow(code('not-found'));
    await expect(openSafetensors(checkpoint({}))).rejects.toThrow(code('not-found'));
  });

  it('follows links, as the hub cache lays its files out', async () => {
    const blobs = checkpoint({ digest: soundSafetensors() });
    const path = checkpoint({});
    symlinkSync(join(blobs, 'digest'), join(path, 'model.safetensors'));
    const file = await openSafetensors(path);
    expect(file.tensors.size).toBe(2);
    await file.close();
  });

  it('does not wait on a pipe', async (context) => {
    if (platform() === 'win32') context.skip('Windows has no mkfifo');
    const path = checkpoint({});
    execFileSync('mkfifo', [join(path, 'model.safetensors')]);
    await expect(openSafetensors(path)).rejects.toThrow(code('invalid-input'));
    expect(readdirSync(path)).toEqual(['model.safetensors']);
  });
});
