/**
 * The header of one safetensors file: u64 length, then JSON `{ name: { dtype, shape, data_offsets } }`. The rules are
 * those of the safetensors crate: names once, data without holes or overlaps, covering the rest of the file exactly.
 */
import { limits } from '../limits.ts';
import { byteLengthOf } from './blocks.ts';
import { ByteReader, type ByteSource, quoted } from './byteReader.ts';
import { JsonReader } from './jsonReader.ts';
import type { StoredTensor } from './rangedFile.ts';
import type { TensorType } from './tensor.ts';

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

/** Types of the same list that Hearth does not compute with. */
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
    throw reader.fail(`a header of ${headerBytes} bytes does not fit into a file of ${source.byteLength}`);
  }
  reader.endAt(dataStart, 'the header ends');
  reader.within('header');
  // Whitespace before it is not allowed, so that a file cannot be valid as something else.
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

/** Training settings that nothing here needs: checked to be texts and dropped. */
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
  throw reader.fail(`${quoted(dtype)} is no dtype`);
}

/** Holes could hide data that is something else as well; overlaps could alias tensors. */
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
    if (expected > fileBytes) throw reader.fail('its data_offsets reach behind the end of the file');
  }
  reader.within('data');
  if (expected !== fileBytes) throw reader.fail(`${fileBytes - expected} bytes at the end belong to no tensor`);
}
