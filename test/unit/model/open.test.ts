import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { HearthError } from '../../../engine/errors.ts';
import { limits } from '../../../engine/limits.ts';
import { openModel } from '../../../engine/model/open.ts';
import { describeModel } from '../../../engine/model/spec/describe.ts';
import { familiesPath, sentenceTable } from '../../../scripts/families.ts';
import { fixtureFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { unusableModels } from './unusableModels.ts';

let folder: string;
beforeEach(async () => {
  folder = temporaryFolder();
});

describe('opening a model', () => {
  it('fails with the path if nothing is there', async () => {
    const path = join(folder, 'absent');
    await expect(openModel(path)).rejects.toMatchObject({ code: 'not-found', message: expect.stringContaining(path) });
  });

  it('in a folder without config.json says what belongs there', async () => {
    await expect(openModel(folder)).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('config.json'),
    });
  });

  it('refuses a config.json that is not JSON, and one that is far too long', async () => {
    await writeFile(join(folder, 'config.json'), '{');
    await expect(openModel(folder)).rejects.toMatchObject({ code: 'invalid-input' });
    await writeFile(join(folder, 'config.json'), Buffer.alloc(limits.model.configBytes + 1, 32));
    await expect(openModel(folder)).rejects.toMatchObject({ code: 'invalid-input' });
  });

  it('of an unknown family lists those that are known', async () => {
    await writeFile(join(folder, 'config.json'), '{ "model_type": "mamba" }');
    await expect(openModel(folder)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/mamba.*llama.*deepseek_v3/),
    });
  });

  it('in a file that is not a GGUF is refused', async () => {
    const path = join(folder, 'model.gguf');
    await writeFile(path, 'not a model');
    await expect(openModel(path)).rejects.toMatchObject({ code: 'invalid-input' });
  });

  it('of Devstral Small 2 as published, in FP8 with one scale a tensor, says so and names the way out', async () => {
    const quantization_config = { quant_method: 'fp8', activation_scheme: 'static', weight_block_size: null };
    await writeFile(join(folder, 'config.json'), JSON.stringify({ model_type: 'mistral3', quantization_config }));
    await expect(openModel(folder)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/FP8 with one scale a tensor.*Take a GGUF of the same model/),
    });
  });

  it('that sees pictures notes that only its text part is loaded', async () => {
    const sees = await openModel(fixtureFile('goldens/mistral3'));
    expect(sees.notes).toEqual(['This model also reads images. Only its text part is loaded.']);
    const reads = await openModel(fixtureFile('goldens/qwen3'));
    expect(reads).not.toHaveProperty('notes');
    await Promise.all([sees.file.close(), reads.file.close()]);
  });

  it('from a GGUF includes its tokenizer; from a folder without one there is none', async () => {
    const gguf = await openModel(fixtureFile('goldens/gguf/qwen3-bf16.gguf'));
    expect(gguf.tokenizer?.vocabularySize).toBe(512);
    const directory = await openModel(fixtureFile('goldens/qwen3'));
    expect(directory.tokenizer).toBeUndefined();
    await Promise.all([gguf.file.close(), directory.file.close()]);
  });
});

describe('opening a model that Hearth cannot run', () => {
  it.each(unusableModels)('names the cause and a remedy: $kind', async ({ write, cause, wayOut }) => {
    const error: unknown = await openModel(await write(folder)).then(
      () => 'It opened.',
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(HearthError);
    expect(error).toMatchObject({ message: expect.stringMatching(cause) });
    expect(error).toMatchObject({ message: expect.stringMatching(wayOut) });
  });
});

it('docs/families.md quotes these errors (node scripts/families.ts)', async () => {
  expect(await readFile(familiesPath, 'utf8')).toContain((await sentenceTable()).join('\n'));
});

describe('describing a model', () => {
  it('counts exactly the weights that it has', async () => {
    for (const name of ['llama', 'qwen2', 'qwen3', 'qwen3-yarn', 'qwen3-moe', 'gpt-oss', 'deepseek-v3']) {
      const model = await openModel(fixtureFile(`goldens/${name}`));
      const described = describeModel(model);
      expect(described.parameters, name).toBe(described.groups.reduce((sum, { parameters }) => sum + parameters, 0));
      const stored = [...model.file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
      expect(described.weightBytes, name).toBe(stored);
      await model.file.close();
    }
  });

  it('counts the scales of FP8 blocks', async () => {
    const model = await openModel(fixtureFile('goldens/deepseek-v3-fp8'));
    const stored = [...model.file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    // kv_b_proj of 3 layers is split into K and V by heads of 32 + 32 rows: 4 blocks each in place of 2 for both.
    expect(describeModel(model).weightBytes).toBe(stored + 3 * (4 + 4 - 2) * 4);
    await model.file.close();
  });

  it('tells bytes by type, and what one token needs of them', async () => {
    const model = await openModel(fixtureFile('goldens/gpt-oss'));
    const { bytesByType, weightBytes, activeWeightBytes, groups } = describeModel(model);
    const experts = groups.filter(({ role }) => role === 'routed-experts');
    const expertBytes = experts.reduce((sum, { bytes }) => sum + bytes, 0);
    const embedding = groups.find(({ role }) => role === 'embedding');
    // 3 matrices of 96 rows of 128 (or 128 of 96) elements, 17 bytes for 32, 8 experts, 4 layers.
    expect(bytesByType.MXFP4).toBe(((3 * 96 * 128) / 32) * 17 * 8 * 4);
    // 4 of 8 experts are chosen.
    expect(activeWeightBytes).toBe(weightBytes - (embedding?.bytes ?? 0) - expertBytes / 2);
    await model.file.close();
  });
});
