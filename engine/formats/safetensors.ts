/** Opens a safetensors checkpoint: one file, or a directory with one file or with shards and their index. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HearthError, invalidInput, notFound } from '../errors.ts';
import { limits } from '../limits.ts';
import { ByteReader, type ByteSource, quoted } from './byteReader.ts';
import { JsonReader } from './jsonReader.ts';
import type { TensorFile, TensorType } from './tensor.ts';
import { byteLengthOf, RangedTensorFile, type StoredTensor, withSource } from './tensor.ts';

/** transformers `SAFE_WEIGHTS_NAME` and `SAFE_WEIGHTS_INDEX_NAME`. */
const singleName = 'model.safetensors';
const indexName = 'model.safetensors.index.json';

/**
 * Opens a file; in a directory, `model.safetensors` or the shards listed in `model.safetensors.index.json`.
 * @throws HearthError `not-found`, `invalid-input` naming the field, `unsupported` (dtype), `unavailable`.
 */
export async function openSafetensors(path: string): Promise<TensorFile> {
  if (!(await isDirectory(path))) return openSingle(path);
  const single = join(path, singleName);
  if (await exists(single)) return openSingle(single);
  const index = join(path, indexName);
  if (await exists(index)) return openShards(path, index);
  throw notFound(`${path} has neither ${singleName} nor ${indexName}.`);
}

async function openSingle(path: string): Promise<TensorFile> {
  return new RangedTensorFile([path], await withSource(path, (source) => parseSafetensorsHeader(source)));
}

async function openShards(directory: string, indexPath: string): Promise<TensorFile> {
  const shardOf = await withSource(indexPath, parseIndex);
  const shards = [...new Set(shardOf.values())];
  const tensors = new Map<string, StoredTensor>();
  for (const [part, shard] of shards.entries()) {
    const header = await withSource(join(directory, shard), (source) => parseSafetensorsHeader(source, part));
    for (const [name, tensor] of header) if (shardOf.get(name) === shard) tensors.set(name, tensor);
  }
  for (const [name, shard] of shardOf) {
    if (!tensors.has(name)) throw invalidInput(`${indexName}: tensor ${quoted(name)} is not in ${shard}.`);
  }
  return new RangedTensorFile(
    shards.map((shard) => join(directory, shard)),
    tensors,
  );
}

/** Reads `{ metadata?, weight_map: { tensor: file } }`. @returns the file of each tensor. */
export function parseIndex(source: ByteSource): Map<string, string> {
  const reader = new ByteReader(source);
  const max = limits.formats.safetensorsIndexBytes;
  reader.endAt(max, `the index is longer than ${max} bytes`);
  const json = new JsonReader(reader, limits.formats.tensorNameBytes);
  let shardOf: Map<string, string> | undefined;
  json.beginObject();
  for (let key = json.nextName(); key !== undefined; key = json.nextName()) {
    reader.within('key', key);
    if (key === 'weight_map') {
      if (shardOf !== undefined) throw reader.fail('it appears twice');
      shardOf = readWeightMap(reader, json);
    } else {
      json.skip();
    }
  }
  json.end();
  reader.within('weight_map');
  if (shardOf === undefined || shardOf.size === 0) throw reader.fail('it is missing or empty');
  return shardOf;
}

function readWeightMap(reader: ByteReader, json: JsonReader): Map<string, string> {
  const shardOf = new Map<string, string>();
  /** Shares one string a shard among its tensors. */
  const shards = new Map<string, string>();
  json.beginObject();
  for (let name = json.nextName(); name !== undefined; name = json.nextName()) {
    reader.within('weight_map: tensor', name);
    if (shardOf.has(name)) throw reader.fail('its name appears twice');
    if (shardOf.size >= limits.formats.tensors) throw reader.fail(`more than ${limits.formats.tensors} tensors`);
    const shard = json.string('its file name');
    if (!shards.has(shard)) shards.set(shard, requireShardName(reader, shard));
    if (shards.size > limits.formats.shards) throw reader.fail(`more than ${limits.formats.shards} files`);
    shardOf.set(name, shards.get(shard) ?? shard);
  }
  return shardOf;
}

/** Names must stay within the directory: letters, digits, `.`, `_` and `-`, not starting with a dot. */
function requireShardName(reader: ByteReader, name: string): string {
  if (name.length <= limits.formats.shardNameBytes && /^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$/.test(name))
    return name;
  throw reader.fail(`${quoted(name)} is not the plain name of a .safetensors file`);
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    throw new HearthError('not-found', `There is no checkpoint at ${path}.`, { cause: error });
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

// Parses the header of a safetensors file: u64 length, then JSON `{ name: { dtype, shape, data_offsets } }`. Follows
// the rules of the safetensors crate: unique names, and data without holes or overlaps that covers the rest of the file
// exactly.

/** safetensors `Dtype`. */
const tensorTypes: ReadonlyMap<string, TensorType> = new Map(
  (
    [
      'BOOL',
      'U8',
      'I8',
      'F8_E5M2',
      'F8_E4M3',
      'F8_E8M0',
      'I16',
      'U16',
      'F16',
      'BF16',
      'I32',
      'U32',
      'F32',
      'F64',
      'I64',
      'U64',
    ] as const
  ).map((type) => [type, type]),
);

/** safetensors types that Hearth doesn't support. */
const unsupportedTypes: ReadonlySet<string> = new Set([
  'F4',
  'F6_E2M3',
  'F6_E3M2',
  'C64',
  'F8_E4M3FNUZ',
  'F8_E5M2FNUZ',
]);

const lengthBytes = 8;

export function parseSafetensorsHeader(source: ByteSource, part = 0): Map<string, StoredTensor> {
  const reader = new ByteReader(source);
  reader.within('header length');
  const headerBytes = reader.count('the header length', limits.formats.safetensorsHeaderBytes);
  const dataStart = lengthBytes + headerBytes;
  if (dataStart > source.byteLength) {
    throw reader.failIncomplete(`a header of ${headerBytes} bytes doesn't fit in a file of ${source.byteLength}`);
  }
  reader.endAt(dataStart, 'the header ends');
  reader.within('header');
  // Leading whitespace is rejected, so that no file is also valid in another format.
  if (reader.peek() !== '{'.charCodeAt(0)) throw reader.fail('it does not start with "{"');
  const tensors = readTensors(reader, part, dataStart);
  requireExactCover(reader, tensors, dataStart, source.byteLength);
  return tensors;
}

function readTensors(reader: ByteReader, part: number, dataStart: number): Map<string, StoredTensor> {
  const json = new JsonReader(reader, limits.formats.safetensorsMetadataBytes);
  const tensors = new Map<string, StoredTensor>();
  let hasMetadata = false;
  json.beginObject();
  for (let name = json.nextName(); name !== undefined; name = json.nextName()) {
    reader.within('tensor', name);
    if (name === '__metadata__') {
      if (hasMetadata) throw reader.fail('its name appears twice');
      hasMetadata = true;
      readMetadata(reader, json);
    } else {
      if (tensors.has(name)) throw reader.fail('its name appears twice');
      if (tensors.size >= limits.formats.tensors) throw reader.fail(`more than ${limits.formats.tensors} tensors`);
      tensors.set(name, readTensor(reader, json, name, part, dataStart));
    }
    reader.within('header');
  }
  json.end();
  return tensors;
}

/** Training settings, which aren't needed: checks that they are strings and drops them. */
function readMetadata(reader: ByteReader, json: JsonReader): void {
  const keys = new Set<string>();
  json.beginObject();
  for (let key = json.nextName(); key !== undefined; key = json.nextName()) {
    if (keys.has(key)) throw reader.fail(`its key ${quoted(key)} appears twice`);
    if (keys.size >= limits.formats.safetensorsMetadataKeys) throw reader.fail('it has too many keys');
    keys.add(key);
    json.string('a value');
  }
}

function readTensor(reader: ByteReader, json: JsonReader, name: string, part: number, dataStart: number): StoredTensor {
  if (Buffer.byteLength(name) > limits.formats.tensorNameBytes) throw reader.fail('its name is too long');
  let type: TensorType | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  json.beginObject();
  for (let field = json.nextName(); field !== undefined; field = json.nextName()) {
    if (field === 'dtype' && type === undefined) type = readType(reader, json);
    else if (field === 'shape' && shape === undefined) shape = json.integers('shape', limits.formats.dimensions);
    else if (field === 'data_offsets' && offsets === undefined) offsets = json.integers('data_offsets', 2);
    else throw reader.fail(`its field ${quoted(field)} is unknown or appears twice`);
  }
  if (type === undefined) throw reader.fail('its dtype is missing');
  if (shape === undefined) throw reader.fail('its shape is missing');
  const [begin, end] = offsets ?? [];
  if (begin === undefined || end === undefined) throw reader.fail('its data_offsets are missing or not two numbers');
  const byteLength = reader.checked(() => byteLengthOf(type, shape));
  if (end - begin !== byteLength) {
    throw reader.fail(
      `data_offsets [${begin}, ${end}] hold ${end - begin} bytes, ${type} [${shape.join(', ')}] needs ${byteLength}`,
    );
  }
  return { name, type, shape, byteLength, part, fileOffset: dataStart + begin };
}

function readType(reader: ByteReader, json: JsonReader): TensorType {
  const dtype = json.string('its dtype');
  const type = tensorTypes.get(dtype);
  if (type !== undefined) return type;
  if (unsupportedTypes.has(dtype)) throw reader.failUnsupported(`dtype ${dtype} is not supported`);
  throw reader.fail(`${quoted(dtype)} is not a dtype`);
}

/** Holes could hide data in another format; overlaps could alias tensors. */
function requireExactCover(
  reader: ByteReader,
  tensors: ReadonlyMap<string, StoredTensor>,
  dataStart: number,
  fileBytes: number,
): void {
  const inOrder = [...tensors.values()].sort((a, b) => a.fileOffset - b.fileOffset || a.byteLength - b.byteLength);
  let expected = dataStart;
  for (const { name, fileOffset, byteLength } of inOrder) {
    reader.within('tensor', name);
    if (fileOffset !== expected) {
      const fault = fileOffset < expected ? 'overlap the tensor before it' : 'leave a hole before it';
      throw reader.fail(`its data_offsets ${fault}`);
    }
    expected += byteLength;
    if (expected > fileBytes) throw reader.failIncomplete('its data_offsets extend past the end of the file');
  }
  reader.within('data');
  if (expected !== fileBytes) throw reader.fail(`${fileBytes - expected} bytes at the end belong to no tensor`);
}
