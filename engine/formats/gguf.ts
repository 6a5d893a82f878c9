/** Opening a GGUF, in one file or split into parts. */
import { basename, dirname, join } from 'node:path';
import { invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import { quoted } from './byteReader.ts';
import { type GgufHeader, parseGgufHeader } from './ggufHeader.ts';
import { type GgufMetadata, type GgufValue, metadataNumber, optionalMetadata } from './ggufMetadata.ts';
import { RangedTensorFile, type StoredTensor, withSource } from './rangedFile.ts';
import type { TensorFile } from './tensor.ts';

export interface GgufFile extends TensorFile, GgufMetadata {
  readonly version: 2 | 3;
}

/**
 * Reads the header of `path`, or of every part when it is one of `name-00001-of-00003.gguf`.
 * @throws HearthError `not-found`, `invalid-input` naming the field, `unsupported` (version 1, big-endian, tensor type),
 * `unavailable`.
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
  if (first === undefined) throw new RangeError('no parts');
  return first;
}

/** llama.cpp `llama_split_path`: parts are numbered from 1, with five digits. */
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
