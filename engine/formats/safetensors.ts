/** Opening a safetensors checkpoint: one file, or a directory with one file or with shards and their index. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HearthError, invalidInput, notFound } from '../errors.ts';
import { limits } from '../limits.ts';
import { ByteReader, type ByteSource, quoted } from './byteReader.ts';
import { JsonReader } from './jsonReader.ts';
import { RangedTensorFile, type StoredTensor, withSource } from './rangedFile.ts';
import { parseSafetensorsHeader } from './safetensorsHeader.ts';
import type { TensorFile } from './tensor.ts';

/** transformers `SAFE_WEIGHTS_NAME` and `SAFE_WEIGHTS_INDEX_NAME`. */
const singleName = 'model.safetensors';
const indexName = 'model.safetensors.index.json';

/**
 * Opens a file, or in a directory `model.safetensors` or else the shards that `model.safetensors.index.json` names.
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

/** `{ metadata?, weight_map: { tensor: file } }` → file of each tensor. */
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
  /** One string a shard, not one a tensor. */
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

/** The index must not lead out of its directory: letters, digits, `.`, `_` and `-`, not starting with a dot. */
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
