import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openGguf, parseGgufHeader } from '../../../engine/formats/gguf.ts';
import { limits } from '../../../engine/limits.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import {
  arrayKey,
  ascii,
  concat,
  f32,
  ggmlType,
  gguf,
  ggufType,
  key,
  memorySource,
  soundGguf,
  stringKey,
  tensorRow,
  text,
  u8,
  u32,
  u32Key,
  u64,
  zeros,
} from './builders.ts';

const everyBit = 2n ** 64n - 1n;
const withKey = (bytes: Uint8Array) => gguf({ keys: [bytes] });
const withTensor = (row: Uint8Array, data: Uint8Array = zeros(64)) => gguf({ tensors: [row], data });

/** The kinds of llama.cpp's test-gguf.cpp, those of published advisories, and our own. [attack, field named, file] */
const invalid: readonly (readonly [attack: string, field: RegExp, file: Uint8Array])[] = [
  ['an empty file', /magic/, zeros(0)],
  ['a file of three bytes', /magic/, ascii('GGU')],
  ['another magic', /magic/, gguf({ magic: 'FUGG' })],
  ['a file that ends behind the magic', /version/, ascii('GGUF')],
  ['version 0', /version/, gguf({ version: 0 })],
  ['every bit set in the number of tensors', /number of tensors/, gguf({ tensorCount: everyBit })],
  ['more tensors than the file has', /tensor 1/, gguf({ tensors: [tensorRow('a', [1], 0, 0)], tensorCount: 2 })],
  ['2^63 metadata keys', /number of metadata keys/, gguf({ keyCount: 2n ** 63n })],
  ['more metadata keys than the file has', /metadata key 0/, gguf({ keyCount: 1 })],
  ['a key length with every bit set', /metadata key 0/, withKey(u64(everyBit))],
  ['a key that reaches behind the file', /metadata key 0/, withKey(concat(u64(60_000), ascii('k')))],
  ['a key longer than the format allows', /metadata key 0/, withKey(stringKey('k'.repeat(65_536), 'x'))],
  ['an empty key', /metadata key 0/, withKey(stringKey('', 'x'))],
  ['a key that is not UTF-8', /metadata key 0.*UTF-8/, withKey(concat(u64(1), u8(0xff), u32(0), u8(0)))],
  ['an unknown value type', /"k".*13/, withKey(key('k', 13, zeros(8)))],
  ['a value type with every bit set', /"k"/, withKey(key('k', 0xffffffff, zeros(8)))],
  ['a key without a value', /"k"/, gguf({ keys: [text('k')], alignment: 1 })],
  ['a value cut in the middle', /"k"/, gguf({ keys: [key('k', ggufType.f64, zeros(7))], alignment: 1 })],
  ['a key that appears twice', /"k".*twice/, gguf({ keys: [stringKey('k', 'x'), u32Key('k', 1)] })],
  ['a boolean that is 2', /"k".*boolean/, withKey(key('k', ggufType.boolean, u8(2)))],
  ['an array of booleans with a 2', /"k".*boolean/, withKey(arrayKey('k', ggufType.boolean, 2, Uint8Array.of(1, 2)))],
  ['a text longer than the file', /"k"/, withKey(key('k', ggufType.string, concat(u64(1000), ascii('x'))))],
  ['a text length with every bit set', /"k"/, withKey(key('k', ggufType.string, u64(everyBit)))],
  ['a text longer than its cap', /"k"/, withKey(stringKey('k', 'x'.repeat(limits.formats.ggufStringBytes + 1)))],
  [
    'an array of 2^61 doubles, whose bytes wrap to 0',
    /"k"/,
    withKey(arrayKey('k', ggufType.f64, 2n ** 61n, zeros(64))),
  ],
  ['an array length with every bit set', /"k"/, withKey(arrayKey('k', ggufType.u8, everyBit, zeros(64)))],
  ['an array longer than the file', /"k"/, withKey(arrayKey('k', ggufType.u32, 1000, zeros(64)))],
  ['an array of an unknown type', /"k"/, withKey(arrayKey('k', 13, 1, zeros(8)))],
  ['2^60 texts in a file of a few bytes', /"k"/, withKey(arrayKey('k', ggufType.string, 2n ** 60n, zeros(0)))],
  ['more texts than the rest of the file has lengths', /"k"/, withKey(arrayKey('k', ggufType.string, 50, zeros(64)))],
  [
    'a text in a list that reaches behind the file',
    /"k"/,
    withKey(arrayKey('k', ggufType.string, 2, concat(text('a'), u64(500)))),
  ],
  [
    'a text in a list with every bit of its length set',
    /"k"/,
    withKey(arrayKey('k', ggufType.string, 1, u64(everyBit))),
  ],
  ['alignment 0', /alignment/, withKey(u32Key('general.alignment', 0))],
  ['an alignment that is no power of two', /alignment/, withKey(u32Key('general.alignment', 13))],
  ['alignment 2^31', /alignment/, withKey(u32Key('general.alignment', 2 ** 31))],
  ['an alignment of half a byte', /alignment/, withKey(key('general.alignment', ggufType.f32, f32(0.5)))],
  ['an alignment that is no number', /alignment/, withKey(key('general.alignment', ggufType.f32, f32(Number.NaN)))],
  ['an alignment that is text', /alignment/, withKey(stringKey('general.alignment', '32'))],
  ['an alignment beyond 2^53', /alignment/, withKey(key('general.alignment', ggufType.u64, u64(2n ** 63n)))],
  ['an empty tensor name', /tensor 0/, withTensor(tensorRow('', [1], 0, 0))],
  ['a tensor name longer than the format allows', /tensor 0/, withTensor(tensorRow('n'.repeat(65), [1], 0, 0))],
  ['a tensor name length with every bit set', /tensor 0/, withTensor(u64(everyBit))],
  ['a tensor name that is not UTF-8', /tensor 0.*UTF-8/, withTensor(concat(u64(1), u8(0x80), zeros(40)))],
  ['five dimensions', /"a".*5 dimensions/, withTensor(tensorRow('a', [1, 1, 1, 1, 1], 0, 0))],
  ['2^32 - 1 dimensions', /"a".*dimensions/, withTensor(concat(text('a'), u32(0xffffffff), zeros(64)))],
  ['a dimension of 0', /"a".*dimension is 0/, withTensor(tensorRow('a', [4, 0], 0, 0))],
  ['a dimension of -1', /"a".*dimension/, withTensor(tensorRow('a', [everyBit], 0, 0))],
  ['dimensions whose product is beyond 2^63', /"a"/, withTensor(tensorRow('a', [2n ** 32n, 2n ** 32n], 0, 0))],
  [
    'dimensions whose product wraps to 0',
    /"a"/,
    withTensor(tensorRow('a', [2n ** 16n, 2n ** 16n, 2n ** 16n, 2n ** 16n], 0, 0)),
  ],
  ['dimensions whose bytes wrap to 0', /"a"/, withTensor(tensorRow('a', [1024, 2n ** 42n + 1n], ggmlType.f32, 0))],
  ['a dimension whose padding overflows', /"a"/, withTensor(tensorRow('a', [2n ** 63n - 1n], 24, 0))],
  ['an unknown tensor type', /"a".*41/, withTensor(tensorRow('a', [1], 41, 0))],
  ['a tensor type that ggml removed', /"a".*4 is not a tensor type/, withTensor(tensorRow('a', [32], 4, 0))],
  ['a tensor type with every bit set', /"a"/, withTensor(tensorRow('a', [1], 0xffffffff, 0))],
  ['a row that is not whole blocks', /"a".*Q4_0/, withTensor(tensorRow('a', [33], ggmlType.q4_0, 0))],
  ['a quantised scalar', /"a".*Q4_0/, withTensor(tensorRow('a', [], ggmlType.q4_0, 0))],
  [
    'a tensor name that appears twice',
    /"a".*twice/,
    gguf({ tensors: [tensorRow('a', [1], 0, 0), tensorRow('a', [1], 0, 32)], data: zeros(64) }),
  ],
  ['an offset that is not aligned', /"a".*offset/, withTensor(tensorRow('a', [1], 0, 1))],
  ['an offset behind the file', /"a".*offset/, withTensor(tensorRow('a', [1], 0, 2 ** 40))],
  ['an offset with every bit set', /"a".*offset/, withTensor(tensorRow('a', [1], 0, everyBit))],
  [
    'tensors that overlap',
    /"b".*offset/,
    gguf({ tensors: [tensorRow('a', [8], 0, 0), tensorRow('b', [8], 0, 0)], data: zeros(64) }),
  ],
  [
    'a hole between tensors',
    /"b".*offset/,
    gguf({ tensors: [tensorRow('a', [8], 0, 0), tensorRow('b', [8], 0, 64)], data: zeros(96) }),
  ],
  [
    'tensors laid out for another alignment than the file claims',
    /"b".*offset/,
    gguf({
      keys: [u32Key('general.alignment', 64)],
      alignment: 64,
      tensors: [tensorRow('a', [1], 0, 0), tensorRow('b', [1], 0, 32)],
      data: zeros(128),
    }),
  ],
  [
    'no data',
    /the file is incomplete: it has .* of .*Download or copy it again/,
    withTensor(tensorRow('a', [1], 0, 0), zeros(0)),
  ],
  [
    'data that lacks its last byte',
    /the file is incomplete: it has .* of .*Download or copy it again/,
    withTensor(tensorRow('a', [8], 0, 0), zeros(31)),
  ],
  [
    'a tensor larger than the file',
    /the file is incomplete: it has .* of .*Download or copy it again/,
    withTensor(tensorRow('a', [2n ** 50n], 24, 0)),
  ],
];

const unsupported: readonly (readonly [what: string, field: RegExp, file: Uint8Array])[] = [
  ['version 1', /version.*1/, gguf({ version: 1 })],
  ['version 4', /version.*4/, gguf({ version: 4 })],
  ['version 2^32 - 1', /version/, gguf({ version: 0xffffffff })],
  ['a big-endian file', /version.*big-endian/, gguf({ version: 0x03000000 })],
  ['an array of arrays', /"k".*arrays of arrays/, withKey(arrayKey('k', ggufType.array, 2n ** 60n, zeros(64)))],
  ['a tensor type that Hearth does not compute', /"a".*IQ2_XXS/, withTensor(tensorRow('a', [256], 16, 0))],
];

const thrown = (bytes: Uint8Array): unknown => {
  try {
    parseGgufHeader(memorySource(bytes, 'model.gguf'));
  } catch (error) {
    return error;
  }
  return undefined;
};

describe('a malformed GGUF is refused with the field that is wrong', () => {
  it.each(invalid)('%s', (_, field, file) => {
    expect(thrown(file)).toMatchObject({ code: 'invalid-input', message: expect.stringMatching(field) });
    expect(thrown(file)).toMatchObject({ message: expect.stringMatching(/^model\.gguf: /) });
  });

  it.each(unsupported)('%s is named as unsupported', (_, field, file) => {
    expect(thrown(file)).toMatchObject({ code: 'unsupported', message: expect.stringMatching(field) });
  });

  it('whatever byte it ends at', () => {
    const sound = soundGguf();
    expect(thrown(sound)).toBeUndefined();
    for (let length = 0; length < sound.byteLength; length++) {
      expect(thrown(sound.subarray(0, length)), `cut to ${length} bytes`).toMatchObject({ code: 'invalid-input' });
    }
  });
});

describe('a large file with a hostile header', () => {
  /** A sparse file: 1 GiB long, a few bytes on the disk. */
  function withSparseFile(header: Uint8Array, use: (path: string) => Promise<void>): Promise<void> {
    const directory = temporaryFolder();
    const path = join(directory, 'sparse.gguf');
    const descriptor = openSync(path, 'w');
    writeSync(descriptor, header);
    ftruncateSync(descriptor, 2 ** 30);
    closeSync(descriptor);
    return use(path);
  }

  it.each([
    ['one array that takes the whole file', withKey(arrayKey('k', ggufType.u8, 2 ** 29, zeros(0)))],
    ['one list of texts that takes the whole file', withKey(arrayKey('k', ggufType.string, 2 ** 26, zeros(0)))],
  ])('%s is refused without reading it into memory', async (_, header) => {
    await withSparseFile(header, async (path) => {
      const before = process.memoryUsage();
      await expect(openGguf(path)).rejects.toThrow(expect.objectContaining({ code: 'invalid-input' }) as Error);
      const after = process.memoryUsage();
      expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(64 * 2 ** 20);
    });
  });
});
