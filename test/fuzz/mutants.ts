/** Mutates valid model files with a seed, and checks the readers' results. */

import { isDeepStrictEqual } from 'node:util';
import { HearthError } from '../../engine/errors.ts';
import { dequantise } from '../../engine/formats/dequantise.ts';
import { parseGgufHeader } from '../../engine/formats/gguf.ts';
import { GgufStrings } from '../../engine/formats/ggufMetadata.ts';
import { parseIndex, parseSafetensorsHeader } from '../../engine/formats/safetensors.ts';
import type { StoredTensor } from '../../engine/formats/tensor.ts';
import { byteLengthOf } from '../../engine/formats/tensor.ts';
import * as build from '../unit/formats/builders.ts';

export type Random = () => number;

/** mulberry32: a small generator of numbers in [0, 1), the same everywhere. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const below = (random: Random, bound: number): number => Math.floor(random() * bound);
export const pick = <T>(random: Random, items: readonly T[]): T => items[below(random, items.length)] as T;

export type Format = 'gguf' | 'safetensors' | 'index';

interface Seed {
  readonly format: Format;
  readonly name: string;
  readonly bytes: Uint8Array;
}

function ggufOfEveryType(): Uint8Array {
  const types: readonly (readonly [id: number, elements: number, bytes: number])[] = [
    [0, 1, 4],
    [1, 1, 2],
    [2, 32, 18],
    [3, 32, 20],
    [6, 32, 22],
    [7, 32, 24],
    [8, 32, 34],
    [10, 256, 84],
    [11, 256, 110],
    [12, 256, 144],
    [13, 256, 176],
    [14, 256, 210],
    [20, 32, 18],
    [23, 256, 136],
    [24, 1, 1],
    [25, 1, 2],
    [26, 1, 4],
    [27, 1, 8],
    [28, 1, 8],
    [30, 1, 2],
    [39, 32, 17],
  ];
  let offset = 0;
  const rows: Uint8Array[] = [];
  for (const [id, elements, bytes] of types) {
    rows.push(build.tensorRow(`blk.${id}.weight`, [elements, 3], id, offset));
    offset += Math.ceil((3 * bytes) / 32) * 32;
  }
  const data = Uint8Array.from({ length: offset }, (_, i) => (i * 37) & 255);
  return build.gguf({ keys: [build.stringKey('general.architecture', 'llama')], tensors: rows, data });
}

function ggufOfEveryValue(): Uint8Array {
  const { ggufType } = build;
  const scalars = Object.entries(ggufType).filter(([, type]) => type !== ggufType.array && type !== ggufType.string);
  const bytesOf = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
  const value = (type: number, count: number) => build.zeros((bytesOf[type] ?? 0) * count);
  return build.gguf({
    alignment: 64,
    keys: [
      build.u32Key('general.alignment', 64),
      ...scalars.map(([name, type]) => build.key(`one.${name}`, type, value(type, 1))),
      ...scalars.map(([name, type]) => build.arrayKey(`many.${name}`, type, 5, value(type, 5))),
      build.stringsKey(
        'tokenizer.ggml.tokens',
        Array.from({ length: 40 }, (_, i) => `token${i}`),
      ),
      build.stringsKey(
        'tokenizer.ggml.merges',
        Array.from({ length: 40 }, (_, i) => `t ${i}`),
      ),
    ],
    tensors: [build.tensorRow('a', [2, 2, 2, 2], 0, 0), build.tensorRow('b', [], 0, 64)],
    data: build.zeros(68),
  });
}

function safetensorsOfEveryType(): Uint8Array {
  const types = [
    ['BOOL', 1],
    ['U8', 1],
    ['I8', 1],
    ['F8_E5M2', 1],
    ['F8_E4M3', 1],
    ['F8_E8M0', 1],
    ['I16', 2],
    ['U16', 2],
    ['F16', 2],
    ['BF16', 2],
    ['I32', 4],
    ['U32', 4],
    ['F32', 4],
    ['F64', 8],
    ['I64', 8],
    ['U64', 8],
  ] as const;
  const header: Record<string, unknown> = { __metadata__: { format: 'pt', note: 'é"\\' } };
  let at = 0;
  for (const [dtype, bytes] of types) {
    header[`model.layers.0.${dtype}.weight`] = { dtype, shape: [3, 2], data_offsets: [at, at + 6 * bytes] };
    at += 6 * bytes;
  }
  header['empty'] = { dtype: 'F32', shape: [0, 4], data_offsets: [at, at] };
  header['skalar-ä'] = { dtype: 'U8', shape: [], data_offsets: [at, at + 1] };
  return build.safetensors(`${JSON.stringify(header)}   `, build.zeros(at + 1));
}

function largeGguf(): Uint8Array {
  const words = Array.from({ length: 30_000 }, (_, i) => `w${i}`);
  const scores = build.arrayKey('tokenizer.ggml.scores', build.ggufType.f32, 30_000, build.zeros(120_000));
  return build.gguf({ keys: [build.stringsKey('tokenizer.ggml.tokens', words), scores] });
}

const index = {
  metadata: { total_size: 123, list: [1, 2.5, null, true, { a: [] }] },
  weight_map: Object.fromEntries(
    Array.from({ length: 12 }, (_, i) => [`layers.${i}.weight`, `model-0000${1 + (i % 3)}-of-00003.safetensors`]),
  ),
};

/** The large file is last; it is mutated rarely, because reading it is slow. */
export const seeds: readonly Seed[] = [
  { format: 'gguf', name: 'sound', bytes: build.soundGguf() },
  { format: 'gguf', name: 'every tensor type', bytes: ggufOfEveryType() },
  { format: 'gguf', name: 'every value type', bytes: ggufOfEveryValue() },
  { format: 'safetensors', name: 'sound', bytes: build.soundSafetensors() },
  { format: 'safetensors', name: 'every type', bytes: safetensorsOfEveryType() },
  { format: 'index', name: 'index', bytes: build.ascii(JSON.stringify(index)) },
  { format: 'gguf', name: 'vocabulary', bytes: largeGguf() },
];

const interesting: readonly bigint[] = [
  0n,
  1n,
  2n,
  3n,
  4n,
  7n,
  8n,
  9n,
  13n,
  31n,
  32n,
  33n,
  64n,
  127n,
  128n,
  255n,
  256n,
  65535n,
  65536n,
  2n ** 20n,
  2n ** 24n,
  2n ** 26n + 1n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 42n + 1n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 60n,
  2n ** 61n,
  2n ** 62n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 32n,
  2n ** 64n - 1n,
];

const fragments: readonly string[] = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  '\\',
  '\\u0000',
  '\\ud800',
  '{}',
  '[]',
  '""',
  'null',
  'true',
  '-1',
  '1e999',
  '0.5',
  '__metadata__',
  '__proto__',
  'dtype',
  'shape',
  'data_offsets',
  'weight_map',
  '../',
  'F32',
  'Q4_0',
  'GGUF',
  '\u0000',
  'é',
  '[[[[[[[[',
  '{"a":{"a":{"a":',
  '9007199254740993',
  '18446744073709551615',
  '00',
  'general.alignment',
  'split.count',
];

type Mutation = (bytes: Uint8Array, random: Random) => Uint8Array;

function overwritten(bytes: Uint8Array, at: number, patch: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  copy.set(patch.subarray(0, Math.max(0, bytes.byteLength - at)), at);
  return copy;
}

const spliced = (bytes: Uint8Array, at: number, removed: number, added: Uint8Array): Uint8Array =>
  build.concat(bytes.subarray(0, at), added, bytes.subarray(Math.min(at + removed, bytes.byteLength)));

const position: (bytes: Uint8Array, random: Random) => number = (bytes, random) =>
  // The first bytes contain the counts and sizes.
  below(random, random() < 0.2 ? Math.min(32, bytes.byteLength + 1) : bytes.byteLength + 1);

const mutations: readonly Mutation[] = [
  function flipBit(bytes, random) {
    const at = position(bytes, random);
    return overwritten(bytes, at, Uint8Array.of((bytes[at] ?? 0) ^ (1 << below(random, 8))));
  },
  function setByte(bytes, random) {
    return overwritten(bytes, position(bytes, random), Uint8Array.of(below(random, 256)));
  },
  function setInteger(bytes, random) {
    const width = pick(random, [1, 2, 4, 8]);
    const at = random() < 0.5 ? position(bytes, random) & ~3 : position(bytes, random);
    return overwritten(bytes, at, build.u64(BigInt.asUintN(64, pick(random, interesting))).subarray(0, width));
  },
  function addToInteger(bytes, random) {
    const at = position(bytes, random);
    return overwritten(bytes, at, Uint8Array.of((bytes[at] ?? 0) + pick(random, [-8, -1, 1, 8, 32])));
  },
  function truncate(bytes, random) {
    return bytes.subarray(0, position(bytes, random));
  },
  function remove(bytes, random) {
    return spliced(bytes, position(bytes, random), 1 + below(random, 40), new Uint8Array(0));
  },
  function insertNoise(bytes, random) {
    const noise = Uint8Array.from({ length: 1 + below(random, 40) }, () => below(random, 256));
    return spliced(bytes, position(bytes, random), 0, noise);
  },
  function insertFragment(bytes, random) {
    return spliced(bytes, position(bytes, random), pick(random, [0, 0, 1, 4]), build.ascii(pick(random, fragments)));
  },
  function repeat(bytes, random) {
    const from = position(bytes, random);
    return spliced(bytes, position(bytes, random), 0, bytes.subarray(from, from + 1 + below(random, 200)));
  },
  function changeNumber(bytes, random) {
    const digits = [...Buffer.from(bytes).toString('latin1').matchAll(/\d+/g)].slice(0, 200);
    if (digits.length === 0) return bytes;
    const { index: at, 0: old } = pick(random, digits);
    return spliced(bytes, at, old.length, build.ascii(String(pick(random, interesting) - BigInt(below(random, 2)))));
  },
  function mixWithAnother(bytes, random) {
    const other = pick(random, seeds.slice(0, -1)).bytes;
    const from = position(other, random);
    return spliced(bytes, position(bytes, random), below(random, 100), other.subarray(from, from + below(random, 200)));
  },
  function fitHeaderLength(bytes) {
    // Fixes the header length, so that mutations that change the JSON's length reach the JSON reader.
    const end = bytes.lastIndexOf('}'.charCodeAt(0)) + 1;
    return bytes.byteLength > 8 && end > 8 ? overwritten(bytes, 0, build.u64(end - 8)) : bytes;
  },
];

/** One to eight of the mutations above. */
export function mutated(sound: Uint8Array, random: Random): Uint8Array {
  let bytes = sound;
  for (let left = 1 + below(random, random() < 0.5 ? 2 : 8); left > 0; left--)
    bytes = pick(random, mutations)(bytes, random);
  return bytes;
}

export interface Mutant {
  readonly format: Format;
  readonly seed: string;
  readonly bytes: Uint8Array;
}

/** Creates mutant `number` of campaign `campaign`, reproducibly. */
export function makeMutant(campaign: number, number: number): Mutant {
  const random = seededRandom(Math.imul(campaign, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b));
  const { format, name, bytes: sound } = random() < 0.002 ? (seeds.at(-1) as Seed) : pick(random, seeds.slice(0, -1));
  let bytes = mutated(sound, random);
  if (format === 'safetensors' && random() < 0.5) bytes = mutations.at(-1)?.(bytes, random) ?? bytes;
  return { format, seed: name, bytes };
}

export type Verdict = 'accepted' | 'invalid-input' | 'unsupported';

/** Reads a mutant like the engine. @throws any error that is not a typed rejection; that is a fault of the readers. */
export function judge({ format, bytes }: Mutant): Verdict {
  try {
    read(format, bytes);
    return 'accepted';
  } catch (error) {
    if (error instanceof HearthError && (error.code === 'invalid-input' || error.code === 'unsupported'))
      return error.code;
    throw error;
  }
}

function read(format: Format, bytes: Uint8Array): void {
  const source = build.memorySource(bytes);
  if (format === 'index') {
    requireIndex(parseIndex(source), bytes);
  } else if (format === 'safetensors') {
    const tensors = parseSafetensorsHeader(source);
    requireSound(tensors, bytes);
    requireSameHeader(tensors, bytes);
  } else {
    const { metadata, tensors } = parseGgufHeader(source);
    for (const value of metadata.values()) if (value instanceof GgufStrings) value.toArray();
    requireSound(tensors, bytes);
  }
}

/** Checks that an accepted index is JSON, equals the result of `JSON.parse`, and has only safe shard names. */
function requireIndex(shardOf: ReadonlyMap<string, string>, bytes: Uint8Array): void {
  const { weight_map } = JSON.parse(Buffer.from(bytes).toString('utf8'));
  if (!isDeepStrictEqual(new Map(Object.entries(weight_map)), shardOf)) throw new Error('another weight_map');
  for (const shard of shardOf.values()) {
    if (/[/\\:\0]|^\./.test(shard)) throw new Error(`accepted the shard name ${JSON.stringify(shard)}`);
  }
}

/** Checks that an accepted header is JSON and equals the result of `JSON.parse`. */
function requireSameHeader(tensors: ReadonlyMap<string, StoredTensor>, bytes: Uint8Array): void {
  const headerBytes = Number(Buffer.from(bytes).readBigUInt64LE());
  const { __metadata__, ...header } = JSON.parse(Buffer.from(bytes).toString('utf8', 8, 8 + headerBytes));
  const read = [...tensors.values()].map(({ name, type, shape, fileOffset, byteLength }) => {
    const begin = fileOffset - 8 - headerBytes;
    return [name, { dtype: type, shape, data_offsets: [begin, begin + byteLength] }] as const;
  });
  if (!isDeepStrictEqual(new Map(Object.entries(header)), new Map<string, unknown>(read)))
    throw new Error('another header');
}

/** Checks the invariants of an accepted file, and dequantises its tensors. */
function requireSound(tensors: ReadonlyMap<string, StoredTensor>, bytes: Uint8Array): void {
  let end = 0;
  for (const { name, type, shape, byteLength, fileOffset } of [...tensors.values()].sort(
    (a, b) => a.fileOffset - b.fileOffset || a.byteLength - b.byteLength,
  )) {
    if (byteLength !== byteLengthOf(type, shape)) throw new Error(`${name}: wrong byte length`);
    if (fileOffset < end) throw new Error(`${name}: overlaps`);
    end = fileOffset + byteLength;
    if (end > bytes.byteLength) throw new Error(`${name}: past the end`);
    dequantise(type, bytes.subarray(fileOffset, end));
  }
}
