/** A checkpoint's tensors under the names that families look for, whatever prefix the publisher's class gave them. */
import type { TensorFile } from '../../formats/tensor.ts';

/** `rename` keeps names apart. */
export function renamedTensors(file: TensorFile, rename: (name: string) => string): TensorFile {
  const stored = new Map([...file.tensors.keys()].map((name) => [rename(name), name] as const));
  const tensors = new Map(
    [...file.tensors.values()].map((info) => [rename(info.name), { ...info, name: rename(info.name) }] as const),
  );
  return {
    tensors,
    read: (name, ...range) => file.read(stored.get(name) ?? name, ...range),
    close: () => file.close(),
  };
}

/** Prefixes of a text part beside one that sees pictures, as transformers 5 and 4 write them, and what they stand for. */
const textPrefixes = [
  ['model.language_model.', 'model.'],
  ['language_model.', ''],
] as const;

/** The text part of a model with pictures; other files as they are. */
export function textPart(file: TensorFile): TensorFile {
  const found = textPrefixes.find(([prefix, own]) =>
    file.tensors.has(`${prefix}${own === '' ? 'model.' : ''}embed_tokens.weight`),
  );
  if (!found) return file;
  const [prefix, own] = found;
  return renamedTensors(file, (name) => (name.startsWith(prefix) ? own + name.slice(prefix.length) : name));
}
