/** Opens a GGUF file, whole or split into parts. */
import { basename, dirname, join } from 'node:path';
import { invalidInput, showBytes } from '../errors.ts';
import { limits } from '../limits.ts';
import { ByteReader, type ByteSource, quoted } from './byteReader.ts';
import { type GgufMetadata, type GgufValue, metadataNumber, optionalMetadata, readGgufValue } from './ggufMetadata.ts';
import {
  byteLengthOf,
  RangedTensorFile,
  type StoredTensor,
  type TensorFile,
  type TensorType,
  withSource,
} from './tensor.ts';

export interface GgufFile extends TensorFile, GgufMetadata {
  readonly version: 2 | 3;
}

/**
 * Reads the header of `path`, or of every part when it is one of `name-00001-of-00003.gguf`.
 * @throws HearthError `not-found`, `invalid-input` naming the field, `unsupported` (version 1, big-endian, tensor
 * type), `unavailable`.
 */
export async function openGguf(path: string): Promise<GgufFile> {
  const header = await withSource(path, (source) => parseGgufHeader(source));
  const splitCount = optionalMetadata(header, 'split.count', metadataNumber) ?? 1;
  if (splitCount <= 1) return new OpenedGguf(header, [path], header.tensors);
  const paths = partPaths(path, splitCount);
  const parts: GgufHeader[] = [];
  for (const [part, partPath] of paths.entries()) {
    parts.push(await withSource(partPath, (source) => parseGgufHeader(source, part)));
  }
  return new OpenedGguf(firstOf(parts), paths, joinParts(paths, parts));
}

class OpenedGguf extends RangedTensorFile implements GgufFile {
  readonly version: 2 | 3;
  readonly metadata: ReadonlyMap<string, GgufValue>;

  constructor(header: GgufHeader, paths: readonly string[], tensors: ReadonlyMap<string, StoredTensor>) {
    super(paths, tensors);
    this.version = header.version;
    this.metadata = header.metadata;
  }
}

function firstOf<T>(items: readonly T[]): T {
  const [first] = items;
  if (first === undefined) throw new RangeError('The GGUF has no parts.');
  return first;
}

/** llama.cpp `llama_split_path`: parts are numbered from 1 with five digits. */
function partPaths(path: string, splitCount: number): string[] {
  const name = basename(path);
  const max = limits.formats.shards;
  if (!Number.isInteger(splitCount) || splitCount > max) {
    throw invalidInput(`${name}: metadata key "split.count": ${splitCount} parts, at most ${max} are allowed.`);
  }
  const suffix = `-of-${String(splitCount).padStart(5, '0')}.gguf`;
  const stem = name.slice(0, -(suffix.length + 6));
  if (!name.endsWith(suffix) || !/-\d{5}$/.test(name.slice(0, -suffix.length))) {
    throw invalidInput(`${name} is one of ${splitCount} parts, so its name must end in "-00001${suffix}".`);
  }
  return Array.from({ length: splitCount }, (_, part) =>
    join(dirname(path), `${stem}-${String(part + 1).padStart(5, '0')}${suffix}`),
  );
}

function joinParts(paths: readonly string[], parts: readonly GgufHeader[]): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const [index, part] of parts.entries()) {
    const name = basename(paths[index] ?? '');
    requireKey(name, part, 'split.no', index);
    requireKey(name, part, 'split.count', parts.length);
    for (const [tensorName, tensor] of part.tensors) {
      if (tensors.has(tensorName))
        throw invalidInput(`${name}: tensor ${quoted(tensorName)} is in an earlier part too.`);
      tensors.set(tensorName, tensor);
    }
  }
  if (tensors.size > limits.formats.tensors)
    throw invalidInput(`${basename(paths[0] ?? '')}: more tensors than are allowed.`);
  const total = optionalMetadata(firstOf(parts), 'split.tensors.count', metadataNumber) ?? tensors.size;
  if (total !== tensors.size) {
    throw invalidInput(
      `${basename(paths[0] ?? '')}: its parts hold ${tensors.size} tensors, "split.tensors.count" says ${total}.`,
    );
  }
  return tensors;
}

function requireKey(name: string, part: GgufMetadata, key: string, expected: number): void {
  const value = metadataNumber(part, key);
  if (value !== expected) throw invalidInput(`${name}: metadata key "${key}" is ${value} instead of ${expected}.`);
}

// Parses the header of a GGUF file (ggml docs/gguf.md): magic, version, counts, metadata, tensor table. All of it is
// untrusted: memory is allocated only for bytes that are known to exist.

interface GgufHeader {
  readonly version: 2 | 3;
  readonly metadata: Map<string, GgufValue>;
  /** In file order; all have the given `part`. */
  readonly tensors: Map<string, StoredTensor>;
}

/** ggml.h `enum ggml_type`. */
const tensorTypesById: ReadonlyMap<number, TensorType> = new Map([
  [0, 'F32'],
  [1, 'F16'],
  [2, 'Q4_0'],
  [3, 'Q4_1'],
  [6, 'Q5_0'],
  [7, 'Q5_1'],
  [8, 'Q8_0'],
  [10, 'Q2_K'],
  [11, 'Q3_K'],
  [12, 'Q4_K'],
  [13, 'Q5_K'],
  [14, 'Q6_K'],
  [20, 'IQ4_NL'],
  [23, 'IQ4_XS'],
  [24, 'I8'],
  [25, 'I16'],
  [26, 'I32'],
  [27, 'I64'],
  [28, 'F64'],
  [30, 'BF16'],
  [39, 'MXFP4'],
]);

/** ggml types that Hearth doesn't support. */
const unsupportedTypesById: ReadonlyMap<number, string> = new Map([
  [9, 'Q8_1'],
  [15, 'Q8_K'],
  [16, 'IQ2_XXS'],
  [17, 'IQ2_XS'],
  [18, 'IQ3_XXS'],
  [19, 'IQ1_S'],
  [21, 'IQ3_S'],
  [22, 'IQ2_S'],
  [29, 'IQ1_M'],
  [34, 'TQ1_0'],
  [35, 'TQ2_0'],
  [40, 'NVFP4'],
]);

const magic = 0x46554747;
const defaultAlignment = 32;

export function parseGgufHeader(source: ByteSource, part = 0): GgufHeader {
  const reader = new ByteReader(source);
  reader.endAt(limits.formats.ggufHeaderBytes, `the header is longer than ${limits.formats.ggufHeaderBytes} bytes`);
  reader.within('magic');
  if (reader.uint32() !== magic) throw reader.fail('this is not a GGUF file');
  const version = readVersion(reader);
  reader.within('header');
  const tensorCount = reader.count('the number of tensors', limits.formats.ggufTensors);
  const keyCount = reader.count('the number of metadata keys', limits.formats.ggufMetadataKeys);
  const metadata = readMetadata(reader, keyCount);
  const alignment = alignmentOf(reader, metadata);
  const tensors = readTensors(reader, tensorCount, { alignment, part, fileBytes: source.byteLength });
  return { version, metadata, tensors };
}

function readVersion(reader: ByteReader): 2 | 3 {
  reader.within('version');
  const version = reader.uint32();
  if (version === 2 || version === 3) return version;
  // As in ggml: a small number in the upper half means the other byte order.
  if (version !== 0 && (version & 0xffff) === 0) throw reader.failUnsupported('big-endian files are not supported');
  if (version === 0) throw reader.fail('0 is not a version');
  throw reader.failUnsupported(`Hearth reads GGUF 2 and 3, not ${version}`);
}

function readMetadata(reader: ByteReader, keyCount: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    reader.within('metadata key', i);
    const keyBytes = reader.count('the length of its name', limits.formats.ggufKeyBytes);
    if (keyBytes === 0) throw reader.fail('its name is empty');
    const key = reader.text(keyBytes, 'its name');
    reader.within('metadata key', key);
    if (metadata.has(key)) throw reader.fail('it appears twice');
    metadata.set(key, readGgufValue(reader));
  }
  return metadata;
}

function alignmentOf(reader: ByteReader, metadata: ReadonlyMap<string, GgufValue>): number {
  const key = 'general.alignment';
  const value = metadata.get(key) ?? defaultAlignment;
  const max = limits.formats.ggufAlignmentBytes;
  if (typeof value === 'number' && value >= 1 && value <= max && Number.isInteger(Math.log2(value))) return value;
  reader.within('metadata key', key);
  throw reader.fail(`it must be a power of two up to ${max}`);
}

interface TableOptions {
  readonly alignment: number;
  readonly part: number;
  readonly fileBytes: number;
}

/** A row of the tensor table. The start of the data isn't known yet. */
interface TableRow {
  readonly name: string;
  readonly type: TensorType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly offset: number;
}

function readTensors(reader: ByteReader, count: number, options: TableOptions): Map<string, StoredTensor> {
  const rows = new Map<string, TableRow>();
  for (let i = 0; i < count; i++) {
    reader.within('tensor', i);
    const row = readTableRow(reader);
    if (rows.has(row.name)) throw reader.fail('its name appears twice');
    rows.set(row.name, row);
  }
  return placeTensors(reader, rows, options);
}

function readTableRow(reader: ByteReader): TableRow {
  const nameBytes = reader.count('the length of its name', limits.formats.ggufTensorNameBytes);
  if (nameBytes === 0) throw reader.fail('its name is empty');
  const name = reader.text(nameBytes, 'its name');
  reader.within('tensor', name);
  const dimensionCount = reader.uint32();
  if (dimensionCount > limits.formats.ggufDimensions) {
    throw reader.fail(`${dimensionCount} dimensions, at most ${limits.formats.ggufDimensions} are allowed`);
  }
  const shape: number[] = [];
  for (let i = 0; i < dimensionCount; i++) {
    const dimension = reader.count('a dimension', Number.MAX_SAFE_INTEGER);
    if (dimension === 0) throw reader.fail('a dimension is 0');
    shape.push(dimension);
  }
  shape.reverse();
  const type = readTensorType(reader);
  return { name, type, shape, byteLength: reader.checked(() => byteLengthOf(type, shape)), offset: readOffset(reader) };
}

function readTensorType(reader: ByteReader): TensorType {
  const id = reader.uint32();
  const type = tensorTypesById.get(id);
  if (type !== undefined) return type;
  const unsupportedName = unsupportedTypesById.get(id);
  if (unsupportedName !== undefined) {
    throw reader.failUnsupported(
      `Hearth doesn't compute with ${unsupportedName}. Take the model in another, such as Q4_K_M`,
    );
  }
  throw reader.fail(`${id} is not a tensor type`);
}

const readOffset = (reader: ByteReader): number => reader.count('its offset', Number.MAX_SAFE_INTEGER);

/** ggml writes tensors in table order, each padded to the alignment, and rejects other layouts. */
function placeTensors(
  reader: ByteReader,
  rows: ReadonlyMap<string, TableRow>,
  { alignment, part, fileBytes }: TableOptions,
): Map<string, StoredTensor> {
  const padded = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;
  const dataStart = padded(reader.position);
  const tensors = new Map<string, StoredTensor>();
  let [expected, endBytes] = [0, 0];
  for (const { name, type, shape, byteLength, offset } of rows.values()) {
    reader.within('tensor', name);
    if (offset !== expected) throw reader.fail(`its offset is ${offset}, but the tensors before it end at ${expected}`);
    const fileOffset = dataStart + offset;
    tensors.set(name, { name, type, shape, byteLength, part, fileOffset });
    endBytes = fileOffset + byteLength;
    expected = padded(offset + byteLength);
  }
  if (endBytes > fileBytes) {
    reader.within('header');
    throw reader.fail(
      `the file is incomplete: it has ${showBytes(fileBytes)} of ${showBytes(endBytes)}. Download or copy it again`,
    );
  }
  return tensors;
}
