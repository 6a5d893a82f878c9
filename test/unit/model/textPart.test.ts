import { expect, it } from 'vitest';
import { textPart } from '../../../engine/model/families/family.ts';
import { floats, MemoryFile } from './memoryFile.ts';

const fileOf = (names: readonly string[]) => new MemoryFile(new Map(names.map((name, i) => [name, floats([1], [i])])));
const own = ['model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.weight', 'lm_head.weight'];

// transformers 5 and 4 (`Mistral3ForConditionalGeneration._checkpoint_conversion_mapping`).
it.each([
  ['model.language_model.', own.map((name) => name.replace('model.', 'model.language_model.'))],
  ['language_model.', own.map((name) => `language_model.${name}`)],
  ['no prefix', own],
])('the text part of a checkpoint is found under %s, beside the part that sees', async (_, stored) => {
  const part = textPart(fileOf([...stored, 'vision_tower.ln_pre.weight']));
  expect([...part.tensors.keys()]).toEqual([...own, 'vision_tower.ln_pre.weight']);
  for (const [i, name] of own.entries()) {
    expect(part.tensors.get(name)?.name).toBe(name);
    expect(await part.read(name)).toEqual(floats([1], [i]).bytes);
  }
});
