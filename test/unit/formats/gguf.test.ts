import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openGguf, parseGgufHeader } from '../../../engine/formats/gguf.ts';
import {
  metadataBoolean,
  metadataNumber,
  metadataNumberArray,
  metadataString,
  metadataStringArray,
  metadataStrings,
  optionalMetadata,
} from '../../../engine/formats/ggufMetadata.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import {
  arrayKey,
  ascii,
  concat,
  f32,
  f64,
  ggmlType,
  gguf,
  ggufType,
  key,
  memorySource,
  soundGguf,
  stringKey,
  stringsKey,
  tensorRow,
  u8,
  u32,
  u32Key,
  u64,
  zeros,
} from './builders.ts';

let directory = '';
beforeAll(() => {
  directory = temporaryFolder();
});

function write(name: string, bytes: Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

const code = (expected: string) => expect.objectContaining({ code: expected }) as Error;

describe('a sound GGUF', () => {
  it('gives metadata, and tensors with the outermost dimension first', async () => {
    const file = await openGguf(write('sound.gguf', soundGguf()));
    expect(file.version).toBe(3);
    expect(metadataString(file, 'general.architecture')).toBe('llama');
    expect(metadataNumber(file, 'llama.block_count')).toBe(2);
    expect(file.tensors.get('a')).toMatchObject({ type: 'F32', shape: [2, 4], byteLength: 32 });
    expect(file.tensors.get('b')).toMatchObject({ type: 'Q4_0', shape: [32], byteLength: 18 });
    await file.close();
  });

  it('reads whole tensors and ranges of them', async () => {
    const file = await openGguf(write('ranges.gguf', soundGguf()));
    expect([...new Float32Array((await file.read('a')).buffer)]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect([...(await file.read('b'))]).toEqual([...Array(18).keys()]);
    expect([...(await file.read('b', 16))]).toEqual([16, 17]);
    expect([...(await file.read('b', 3, 2))]).toEqual([3, 4]);
    expect(await file.read('b', 18)).toHaveLength(0);
    await file.close();
  });

  it('opens the same in version 2', () => {
    const bytes = soundGguf();
    bytes.set(u32(2), 4);
    expect(parseGgufHeader(memorySource(bytes)).version).toBe(2);
  });

  it('may lack tensors, and the padding behind its header', () => {
    const bytes = gguf({ keys: [stringKey('general.architecture', 'llama')] });
    const { metadata, tensors } = parseGgufHeader(memorySource(bytes.subarray(0, 24 + 8 + 20 + 4 + 8 + 5)));
    expect([metadata.size, tensors.size]).toEqual([1, 0]);
  });

  it('keeps tensors at a custom alignment', () => {
    const bytes = gguf({
      alignment: 64,
      keys: [u32Key('general.alignment', 64)],
      tensors: [tensorRow('a', [1], ggmlType.f32, 0), tensorRow('b', [1], ggmlType.f32, 64)],
      data: zeros(68),
    });
    const { tensors } = parseGgufHeader(memorySource(bytes));
    expect(tensors.get('b')?.fileOffset).toBe(bytes.byteLength - 4);
  });

  it('reads a scalar tensor', () => {
    const bytes = gguf({ tensors: [tensorRow('a', [], ggmlType.f32, 0)], data: f32(1) });
    expect(parseGgufHeader(memorySource(bytes)).tensors.get('a')).toMatchObject({ shape: [], byteLength: 4 });
  });
});

describe('metadata', () => {
  const parsed = (...keys: Uint8Array[]) => parseGgufHeader(memorySource(gguf({ keys })));

  it.each([
    ['u8', ggufType.u8, u8(200), 200],
    ['i8', ggufType.i8, u8(200), -56],
    ['u16', ggufType.u16, Uint8Array.of(1, 255), 0xff01],
    ['i16', ggufType.i16, Uint8Array.of(1, 255), -255],
    ['u32', ggufType.u32, u32(4_000_000_000), 4_000_000_000],
    ['i32', ggufType.i32, u32(0xffffffff), -1],
    ['f32', ggufType.f32, f32(0.5), 0.5],
    ['f64', ggufType.f64, f64(0.1), 0.1],
    ['false', ggufType.boolean, u8(0), false],
    ['true', ggufType.boolean, u8(1), true],
    ['string', ggufType.string, concat(u64(2), ascii('é')), 'é'],
    ['u64 that a number holds', ggufType.u64, u64(2 ** 53 - 1), 2 ** 53 - 1],
    ['u64 that no number holds', ggufType.u64, u64(2n ** 53n + 1n), 2n ** 53n + 1n],
    ['i64', ggufType.i64, u64(2n ** 64n - 5n), -5],
    ['i64 that no number holds', ggufType.i64, u64(2n ** 63n), -(2n ** 63n)],
  ])('holds a %s', (_, type, bytes, value) => {
    expect(parsed(key('k', type, bytes)).metadata.get('k')).toEqual(value);
  });

  it.each([
    ['u8', ggufType.u8, u8(9), Uint8Array.of(9)],
    ['i8', ggufType.i8, u8(255), Int8Array.of(-1)],
    ['u16', ggufType.u16, Uint8Array.of(0, 1), Uint16Array.of(256)],
    ['i16', ggufType.i16, Uint8Array.of(255, 255), Int16Array.of(-1)],
    ['u32', ggufType.u32, u32(7), Uint32Array.of(7)],
    ['i32', ggufType.i32, u32(0xfffffffe), Int32Array.of(-2)],
    ['f32', ggufType.f32, f32(2.5), Float32Array.of(2.5)],
    ['f64', ggufType.f64, f64(2.5), Float64Array.of(2.5)],
    ['boolean', ggufType.boolean, u8(1), Uint8Array.of(1)],
    ['u64', ggufType.u64, u64(2n ** 60n), BigUint64Array.of(2n ** 60n)],
    ['i64', ggufType.i64, u64(2n ** 64n - 1n), BigInt64Array.of(-1n)],
  ])('holds an array of %s as a typed array', (_, type, bytes, value) => {
    expect(parsed(arrayKey('k', type, 1, bytes)).metadata.get('k')).toEqual(value);
  });

  it('holds empty arrays', () => {
    const file = parsed(arrayKey('numbers', ggufType.f32, 0, zeros(0)), stringsKey('texts', []));
    expect(metadataNumberArray(file, 'numbers')).toHaveLength(0);
    expect(metadataStringArray(file, 'texts')).toEqual([]);
  });

  it('gives the strings of a list one by one, as bytes, and all together', () => {
    const file = parsed(stringsKey('k', ['a', '', '日本', 'z']));
    const texts = metadataStrings(file, 'k');
    expect(texts).toHaveLength(4);
    expect([texts.at(0), texts.at(1), texts.at(2), texts.at(3), texts.at(4), texts.at(-1)]).toEqual([
      'a',
      '',
      '日本',
      'z',
      undefined,
      undefined,
    ]);
    expect([...(texts.bytesAt(2) ?? [])]).toEqual([...Buffer.from('日本')]);
    expect(texts.bytesAt(4)).toBeUndefined();
    expect(metadataStringArray(file, 'k')).toEqual(['a', '', '日本', 'z']);
  });

  it('keeps a list longer than the read buffer in order', () => {
    const words = Array.from({ length: 60_000 }, (_, i) => `token-${i}`);
    expect(metadataStringArray(parsed(stringsKey('k', words), stringKey('after', 'x')), 'k')).toEqual(words);
  });

  it('turns text that is not UTF-8 into U+FFFD and keeps its bytes', () => {
    const file = parsed(arrayKey('k', ggufType.string, 1, concat(u64(2), Uint8Array.of(0xff, 0x41))));
    expect(metadataStrings(file, 'k').at(0)).toBe('\ufffdA');
    expect([...(metadataStrings(file, 'k').bytesAt(0) ?? [])]).toEqual([0xff, 0x41]);
  });

  it('names the key when it is missing or of another type', () => {
    const file = parsed(
      stringKey('text', 'x'),
      key('big', ggufType.u64, u64(2n ** 60n)),
      arrayKey('bigs', ggufType.u64, 1, u64(1)),
    );
    const wrong = [
      () => metadataNumber(file, 'text'),
      () => metadataNumber(file, 'big'),
      () => metadataBoolean(file, 'text'),
      () => metadataString(file, 'big'),
      () => metadataNumberArray(file, 'text'),
      () => metadataNumberArray(file, 'bigs'),
      () => metadataStringArray(file, 'bigs'),
      () => metadataNumber(file, 'absent'),
    ];
    for (const access of wrong) expect(access).toThrow(code('invalid-input'));
    expect(() => metadataNumber(file, 'text')).toThrow('"text"');
    expect(() => metadataString(file, 'absent')).toThrow('"absent" is missing');
    expect(optionalMetadata(file, 'absent', metadataString)).toBeUndefined();
    expect(optionalMetadata(file, 'text', metadataString)).toBe('x');
  });
});

describe('reading tensors', () => {
  it.each([
    [-1, undefined],
    [19, undefined],
    [0, 19],
    [10, 9],
    [0, -1],
    [0.5, 1],
    [Number.NaN, 1],
    [0, Number.POSITIVE_INFINITY],
  ])('refuses offset %s and length %s in an 18-byte tensor', async (offset, length) => {
    const file = await openGguf(write('range.gguf', soundGguf()));
    await expect(file.read('b', offset, length)).rejects.toThrow(code('invalid-input'));
    await file.close();
  });

  it('does not know a tensor that is not there', async () => {
    const file = await openGguf(write('unknown.gguf', soundGguf()));
    await expect(file.read('c')).rejects.toThrow(code('not-found'));
    await file.close();
  });

  it('says so when the file was cut after it was opened', async () => {
    const path = write('cut.gguf', soundGguf());
    const file = await openGguf(path);
    truncateSync(path, soundGguf().byteLength - 4);
    await expect(file.read('b')).rejects.toThrow(code('unavailable'));
    await file.close();
  });

  it('says so when the file was removed after it was opened', async () => {
    const path = write('gone.gguf', soundGguf());
    const file = await openGguf(path);
    rmSync(path);
    await expect(file.read('b')).rejects.toThrow(code('unavailable'));
    await file.close();
  });

  it('ends reads in progress and opens nothing more when it is closed', async () => {
    const file = await openGguf(write('closing.gguf', soundGguf()));
    const reads = Array.from({ length: 50 }, () => file.read('b').then((bytes) => bytes.length, String));
    await file.close();
    for (const outcome of await Promise.all(reads)) expect(String(outcome)).toMatch(/^18$|cannot be read/);
  });

  it('refuses to read after closing', async () => {
    const file = await openGguf(write('closed.gguf', soundGguf()));
    await file.close();
    await expect(file.read('b')).rejects.toThrow(code('unavailable'));
  });
});

describe('paths', () => {
  it('does not find what is not there', async () => {
    await expect(openGguf(join(directory, 'absent.gguf'))).rejects.toThrow(code('not-found'));
  });

  it('refuses a directory', async () => {
    await expect(openGguf(directory)).rejects.toThrow(code('invalid-input'));
  });
});

describe('a split GGUF', () => {
  const part = (index: number, count: number, tensor: string, extra: readonly Uint8Array[] = []) =>
    gguf({
      keys: [u32Key('split.no', index), u32Key('split.count', count), ...extra],
      tensors: [tensorRow(tensor, [1], ggmlType.f32, 0)],
      data: f32(index + 1),
    });
  const name = (stem: string, index: number, count: number) => `${stem}-0000${index + 1}-of-0000${count}.gguf`;

  function writeParts(stem: string, parts: readonly Uint8Array[]): string[] {
    return parts.map((bytes, index) => write(name(stem, index, parts.length), bytes));
  }

  it.each([0, 1, 2])('opens as a whole from part %i', async (from) => {
    const architecture = stringKey('general.architecture', 'llama');
    const total = u32Key('split.tensors.count', 3);
    const paths = writeParts('whole', [part(0, 3, 'a', [architecture, total]), part(1, 3, 'b'), part(2, 3, 'c')]);
    const file = await openGguf(paths[from] ?? '');
    expect([...file.tensors.keys()]).toEqual(['a', 'b', 'c']);
    expect(metadataString(file, 'general.architecture')).toBe('llama');
    for (const [index, tensor] of ['a', 'b', 'c'].entries()) {
      expect([...new Float32Array((await file.read(tensor)).buffer)]).toEqual([index + 1]);
    }
    await file.close();
  });

  it.each([
    ['a missing part', 'not-found', () => writeParts('missing', [part(0, 2, 'a'), part(1, 2, 'b')]).slice(0, 1), true],
    ['a tensor in two parts', 'invalid-input', () => writeParts('twice', [part(0, 2, 'a'), part(1, 2, 'a')]), false],
    ['parts in the wrong order', 'invalid-input', () => writeParts('order', [part(1, 2, 'a'), part(0, 2, 'b')]), false],
    [
      'parts of different splits',
      'invalid-input',
      () => writeParts('count', [part(0, 2, 'a'), part(1, 3, 'b')]),
      false,
    ],
    [
      'a tensor count that differs',
      'invalid-input',
      () => writeParts('total', [part(0, 2, 'a', [u32Key('split.tensors.count', 5)]), part(1, 2, 'b')]),
      false,
    ],
    ['a name that does not say which part it is', 'invalid-input', () => [write('odd.gguf', part(0, 2, 'a'))], false],
    [
      'more parts than allowed',
      'invalid-input',
      () => [write('many-00001-of-99999.gguf', part(0, 99_999, 'a'))],
      false,
    ],
  ] as const)('refuses %s', async (_, expected, make, removeSecond) => {
    const [first = ''] = make();
    if (removeSecond) rmSync(join(directory, name('missing', 1, 2)));
    await expect(openGguf(first)).rejects.toThrow(code(expected));
  });
});
