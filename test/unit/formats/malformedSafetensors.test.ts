import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openSafetensors, parseSafetensorsHeader } from '../../../engine/formats/safetensors.ts';
import { limits } from '../../../engine/limits.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { ascii, concat, memorySource, safetensors, soundSafetensors, u64, zeros } from './builders.ts';

const entry = (dtype: unknown, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });

/** A file with tensor `a` from this JSON, and `dataBytes` of data. */
const tensorA = (json: string, dataBytes = 4): Uint8Array => safetensors(`{"a":${json}}`, zeros(dataBytes));
const tensor = (dtype: unknown, shape: unknown, offsets: unknown, dataBytes = 4): Uint8Array =>
  tensorA(JSON.stringify(entry(dtype, shape, offsets)), dataBytes);
const tensors = (header: object, dataBytes: number): Uint8Array =>
  safetensors(JSON.stringify(header), zeros(dataBytes));

/** The rules of the safetensors crate (its `SafeTensorError`s) and our own. [attack, field named, file] */
const invalid: readonly (readonly [attack: string, field: RegExp, file: Uint8Array])[] = [
  ['an empty file', /header length/, zeros(0)],
  ['a file of seven bytes', /header length/, zeros(7)],
  ['a header of no bytes', /header/, u64(0)],
  ['a header length with every bit set', /header length/, concat(u64(2n ** 64n - 1n), ascii('{}'))],
  ['a header length that wraps when 8 is added', /header length/, concat(u64(2n ** 64n - 8n), ascii('{}'))],
  ['a header longer than 100 MB', /header length.*100000000/, concat(u64(100_000_001), ascii('{}'))],
  ['a header longer than the file', /header length/, concat(u64(100), ascii('{}'))],
  ['a header that is not JSON', /header/, safetensors('hello')],
  ['a header that is a list', /header/, safetensors('[]')],
  ['white space before the header', /header.*start/, safetensors(' {}')],
  ['a byte order mark before the header', /header.*start/, safetensors('\ufeff{}')],
  ['a header that ends early', /"a".*header ends/, safetensors('{"a":{"dtype":"U8"')],
  ['a header whose length cuts its last brace off', /header ends/, safetensors('{}', zeros(0), 1)],
  ['a header that goes on in the data', /header ends/, safetensors('{"a":{}}', zeros(0), 4)],
  ['something behind the header', /follows/, safetensors('{}{}')],
  ['a zero byte behind the header', /follows/, safetensors('{}\u0000')],
  ['a comma too many', /header/, safetensors('{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},}', zeros(1))],
  ['a comment', /header/, safetensors('{/* */}')],
  ['names without quotes', /header/, safetensors('{a:{}}')],
  ['names in single quotes', /header/, safetensors("{'a':{}}")],
  [
    'a tensor that appears twice',
    /"a".*twice/,
    safetensors(`{"a":${JSON.stringify(entry('U8', [0], [0, 0]))},"a":${JSON.stringify(entry('U8', [0], [0, 0]))}}`),
  ],
  [
    'a tensor that appears twice, once escaped',
    /"a".*twice/,
    safetensors(
      `{"a":${JSON.stringify(entry('U8', [0], [0, 0]))},"\\u0061":${JSON.stringify(entry('U8', [0], [0, 0]))}}`,
    ),
  ],
  [
    'a field that appears twice',
    /"a".*"shape"/,
    tensorA('{"dtype":"U8","shape":[4],"shape":[2],"data_offsets":[0,4]}'),
  ],
  ['an unknown field', /"a".*"strides"/, tensorA('{"dtype":"U8","shape":[4],"strides":[1],"data_offsets":[0,4]}')],
  ['no dtype', /"a".*dtype/, tensorA('{"shape":[4],"data_offsets":[0,4]}')],
  ['no shape', /"a".*shape/, tensorA('{"dtype":"U8","data_offsets":[0,4]}')],
  ['no data_offsets', /"a".*data_offsets/, tensorA('{"dtype":"U8","shape":[4]}')],
  ['a tensor that is null', /"a"/, tensorA('null')],
  ['a tensor that is a list', /"a"/, tensorA('[]')],
  ['a dtype that does not exist', /"a".*"F33"/, tensor('F33', [1], [0, 4])],
  ['a dtype in lower case', /"a".*"f32"/, tensor('f32', [1], [0, 4])],
  ['a dtype of a GGUF', /"a".*"Q4_0"/, tensor('Q4_0', [32], [0, 18], 18)],
  ['a dtype that every object has', /"a".*"constructor"/, tensor('constructor', [1], [0, 4])],
  ['a dtype that is a number', /"a".*dtype/, tensor(4, [1], [0, 4])],
  ['a dtype of more bytes than its data', /"a".*data_offsets/, tensor('F64', [1], [0, 4])],
  ['a dtype of fewer bytes than its data', /"a".*data_offsets/, tensor('F16', [1], [0, 4])],
  ['a negative dimension', /"a".*shape/, tensor('U8', [-4], [0, 4])],
  ['a dimension that is a fraction', /"a".*shape/, tensorA('{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}')],
  ['a dimension with an exponent', /"a".*shape/, tensorA('{"dtype":"U8","shape":[4e0],"data_offsets":[0,4]}')],
  ['a dimension with a leading zero', /"a".*shape/, tensorA('{"dtype":"U8","shape":[04],"data_offsets":[0,4]}')],
  ['a dimension in quotes', /"a".*shape/, tensor('U8', ['4'], [0, 4])],
  ['a dimension of 2^53', /"a".*shape/, tensorA('{"dtype":"U8","shape":[9007199254740992],"data_offsets":[0,4]}')],
  ['a dimension of 10^400', /"a".*shape/, tensorA(`{"dtype":"U8","shape":[1${'0'.repeat(400)}],"data_offsets":[0,4]}`)],
  ['a shape that is a number', /"a"/, tensor('U8', 4, [0, 4])],
  ['a shape within a shape', /"a".*shape/, tensor('U8', [[4]], [0, 4])],
  ['nine dimensions', /"a".*shape/, tensor('U8', [4, 1, 1, 1, 1, 1, 1, 1, 1], [0, 4])],
  ['a million dimensions', /"a".*shape/, tensor('U8', new Array(1_000_000).fill(1), [0, 4])],
  ['dimensions whose product wraps to 0', /"a".*2\^53/, tensor('U8', [2 ** 32, 2 ** 32], [0, 0], 0)],
  ['dimensions whose bytes wrap', /"a".*2\^53/, tensor('F64', [2 ** 52], [0, 4])],
  ['a zero dimension that hides an overflow', /"a".*2\^53/, tensor('U8', [2 ** 50, 2 ** 50, 0], [0, 0], 0)],
  ['one data offset', /"a".*data_offsets/, tensor('U8', [4], [4])],
  ['three data offsets', /"a".*data_offsets/, tensor('U8', [4], [0, 4, 8])],
  ['a negative data offset', /"a".*data_offsets/, tensor('U8', [4], [-4, 0])],
  ['data offsets in the wrong order', /"a".*data_offsets/, tensor('U8', [4], [4, 0])],
  [
    'data offsets whose difference is right beyond 2^53',
    /"a".*2\^53/,
    tensorA('{"dtype":"U8","shape":[4],"data_offsets":[18446744073709551612,18446744073709551616]}'),
  ],
  ['data behind the file', /"a".*end of the file/, tensor('U8', [5], [0, 5])],
  ['data of a petabyte', /"a".*end of the file/, tensor('U8', [2 ** 50], [0, 2 ** 50])],
  ['a hole before the first tensor', /"a".*hole/, tensor('U8', [4], [4, 8], 8)],
  ['a hole between tensors', /"b".*hole/, tensors({ a: entry('U8', [4], [0, 4]), b: entry('U8', [4], [5, 9]) }, 9)],
  ['tensors that overlap', /"b".*overlap/, tensors({ a: entry('U8', [4], [0, 4]), b: entry('U8', [4], [3, 7]) }, 7)],
  [
    'tensors that share all their data',
    /"b".*overlap/,
    tensors({ a: entry('U8', [4], [0, 4]), b: entry('U8', [4], [0, 4]) }, 4),
  ],
  [
    'an empty tensor inside another',
    /overlap|hole/,
    tensors({ a: entry('U8', [4], [0, 4]), b: entry('U8', [0], [2, 2]) }, 4),
  ],
  ['data that belongs to no tensor', /data.*1 byte/, tensor('U8', [4], [0, 4], 5)],
  ['data without tensors', /data.*4 bytes/, safetensors('{}', zeros(4))],
  [
    'a name longer than its cap',
    /too long/,
    safetensors(`{"${'n'.repeat(limits.formats.tensorNameBytes + 1)}":${JSON.stringify(entry('U8', [0], [0, 0]))}}`),
  ],
  [
    'a name with a line break in it',
    /control character/,
    safetensors(`{"a\n":${JSON.stringify(entry('U8', [0], [0, 0]))}}`),
  ],
  [
    'a name with half a surrogate pair',
    /not a valid JSON string/,
    safetensors(`{"\\ud800":${JSON.stringify(entry('U8', [0], [0, 0]))}}`),
  ],
  [
    'a name with a bad escape',
    /not a valid JSON string/,
    safetensors(`{"\\x41":${JSON.stringify(entry('U8', [0], [0, 0]))}}`),
  ],
  [
    'a name that is not UTF-8',
    /not a valid JSON string/,
    concat(u64(5), ascii('{"'), Uint8Array.of(0xc3), ascii('":')),
  ],
  ['__metadata__ that is a list', /__metadata__/, safetensors('{"__metadata__":[]}')],
  ['__metadata__ with a number', /__metadata__/, safetensors('{"__metadata__":{"format":1}}')],
  ['__metadata__ with an object', /__metadata__/, safetensors('{"__metadata__":{"format":{}}}')],
  ['__metadata__ with a key twice', /__metadata__/, safetensors('{"__metadata__":{"k":"1","k":"2"}}')],
  ['__metadata__ twice', /__metadata__.*twice/, safetensors('{"__metadata__":{},"__metadata__":{}}')],
  ['lists nested a million deep', /header|"a"/, tensorA('['.repeat(1_000_000))],
  ['objects nested a million deep', /header|"a"/, safetensors('{"a":'.repeat(1_000_000))],
];

const thrown = (bytes: Uint8Array): unknown => {
  try {
    parseSafetensorsHeader(memorySource(bytes, 'model.safetensors'));
  } catch (error) {
    return error;
  }
  return undefined;
};

describe('a malformed safetensors file is refused with the field that is wrong', () => {
  it.each(invalid)('%s', (_, field, file) => {
    expect(thrown(file)).toMatchObject({ code: 'invalid-input', message: expect.stringMatching(field) });
    expect(thrown(file)).toMatchObject({ message: expect.stringMatching(/^model\.safetensors: /) });
  });

  it.each(['F4', 'F6_E2M3', 'C64'])('dtype %s, which exists, is named as unsupported', (dtype) => {
    expect(thrown(tensor(dtype, [1], [0, 4]))).toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining(dtype),
    });
  });

  it('whatever byte it ends at', () => {
    const sound = soundSafetensors();
    expect(thrown(sound)).toBeUndefined();
    for (let length = 0; length < sound.byteLength; length++) {
      expect(thrown(sound.subarray(0, length)), `cut to ${length} bytes`).toMatchObject({ code: 'invalid-input' });
    }
  });

  it('keeps messages short, however long the names', () => {
    const error = thrown(safetensors(`{"${'n'.repeat(1000)}":{"dtype":"${'d'.repeat(100_000)}"}}`));
    expect(String(error).length).toBeLessThan(400);
  });
});

/** Processor time of reading every byte of `block` `times` times. */
function scanMicroseconds(block: Uint8Array, times: number): number {
  const started = process.cpuUsage();
  let sum = 0;
  for (let time = 0; time < times; time++) for (let i = 0; i < block.length; i++) sum += block[i] ?? 0;
  expect(sum).toBeGreaterThan(0);
  const { user, system } = process.cpuUsage(started);
  return user + system;
}

describe('a large file with a hostile header', () => {
  it.each([
    ['one name that takes 90 MB', '{"'],
    ['90 MB of blanks', '{'],
    ['one text of 90 MB in __metadata__', '{"__metadata__":{"k":"'],
    ['one number of 90 MB', '{"a":{"shape":['],
  ])('%s is refused in the time of a few plain scans, in 64 MiB', async (_, start) => {
    const directory = temporaryFolder();
    const path = join(directory, 'model.safetensors');
    const descriptor = openSync(path, 'w');
    writeSync(descriptor, concat(u64(90_000_000), ascii(start)));
    // Filled with the character that the parser reads longest.
    const filler = Buffer.alloc(1_000_000, start === '{' ? ' ' : start.endsWith('[') ? '1' : 'n');
    for (let written = 0; written < 90_000_000; written += filler.byteLength) writeSync(descriptor, filler);
    ftruncateSync(descriptor, 2 ** 30);
    closeSync(descriptor);
    const before = process.memoryUsage();
    const started = process.cpuUsage();
    await expect(openSafetensors(path)).rejects.toThrow(expect.objectContaining({ code: 'invalid-input' }) as Error);
    const after = process.memoryUsage();
    // Processor time, beside that of looking at as many bytes once: a second on a common machine, more on a busy one.
    const { user, system } = process.cpuUsage(started);
    expect(user + system).toBeLessThan(20 * scanMicroseconds(filler, 90));
    expect(after.arrayBuffers + after.heapUsed - before.arrayBuffers - before.heapUsed).toBeLessThan(64 * 2 ** 20);
  });
});

describe('a header of as many tensors as are allowed', () => {
  const headerOf = (count: number): string =>
    `{${Array.from({ length: count }, (_, i) => `"t${i}":{"dtype":"U8","shape":[],"data_offsets":[${i},${i + 1}]}`)}}`;

  it('is refused with one more', () => {
    const count = limits.formats.tensors + 1;
    expect(thrown(safetensors(headerOf(count), zeros(count)))).toMatchObject({ code: 'invalid-input' });
  });

  it('is read in no more memory than the file and 64 MiB, garbage included', () => {
    const directory = temporaryFolder();
    const path = join(directory, 'model.safetensors');
    const file = safetensors(headerOf(limits.formats.tensors), zeros(limits.formats.tensors));
    writeFileSync(path, file);
    // In a process of its own, whose peak is not hidden by what other tests took.
    const script = `
      const { openSafetensors } = await import(${JSON.stringify(new URL('../../../engine/formats/safetensors.ts', import.meta.url))});
      const before = process.memoryUsage.rss();
      const { tensors } = await openSafetensors(process.argv[1]);
      console.log(JSON.stringify([tensors.size, process.resourceUsage().maxRSS * 1024 - before]));`;
    const printed = execFileSync(process.execPath, ['--input-type=module', '-e', script, path], { encoding: 'utf8' });
    const [tensors, grownBytes] = JSON.parse(printed);
    expect(tensors).toBe(limits.formats.tensors);
    expect(grownBytes).toBeLessThan(file.byteLength + 64 * 2 ** 20);
  });
});
