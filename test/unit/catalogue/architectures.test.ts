import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { architectures, specOfArchitecture } from '../../../engine/catalogue/architectures.ts';
import { type CatalogueEntry, catalogue } from '../../../engine/catalogue/catalogue.ts';
import { knownStorage } from '../../../engine/catalogue/inspectModel.ts';
import { specFromConfig } from '../../../engine/model/open.ts';
import { activeBytesOf, describeSpec, inspectSpec, routedExperts } from '../../../engine/model/spec/describe.ts';
import { plannedGroups } from '../../../engine/model/weights/specTensors.ts';
import { compileChatTemplate } from '../../../engine/prompt/formats/chatTemplate.ts';
import { thinkingModes } from '../../../engine/prompt/thinking.ts';
import { describeShared, sharedFile } from '../shared.ts';

function architectureOf(id: string) {
  const architecture = architectures[id];
  if (!architecture) throw new Error(`no architecture for ${id}`);
  return architecture;
}

function planned(entry: CatalogueEntry) {
  const spec = specOfArchitecture(architectureOf(entry.id));
  const groups = plannedGroups(spec, knownStorage(entry));
  return { spec, groups, bytes: groups.reduce((sum, group) => sum + group.bytes, 0) };
}

describe('the architectures of the catalogue', () => {
  it('exist for every entry, and for nothing else', () => {
    expect(Object.keys(architectures)).toEqual(catalogue.map(({ id }) => id));
  });

  it.each(catalogue.map((entry) => [entry.id, entry] as const))('match the entry %s', (id, entry) => {
    const spec = specFromConfig(architectureOf(id).config);
    expect(describeSpec(spec)).toMatchObject({
      family: entry.family,
      parameters: entry.parameters,
      contextTokens: entry.contextTokens,
    });
    expect(inspectSpec(spec, [], []).cache.bytesPerToken).toBe(entry.cacheBytesPerToken);
  });
});

describe('planned weights of a model that is not downloaded', () => {
  // Files whose Q4_K_M differs from llama.cpp's present default mixture: unsloth's, one of ggml-org's, and one of 2024 whose tied
  // embedding is in Q4_K.
  const mixed = ['starcoder2-3b', 'qwen3.5-4b', 'qwen3.5-9b', 'qwen3.6-35b-a3b'];
  const files = catalogue.filter(({ id, downloadEstimated }) => !downloadEstimated && !mixed.includes(id));

  it.each(mixed)('are an estimate of %s within 5 percent', (id) => {
    const entry = catalogue.find((each) => each.id === id);
    if (!entry) throw new Error(`no ${id}`);
    expect(Math.abs(planned(entry).bytes / entry.downloadBytes - 1)).toBeLessThan(0.05);
  });

  // The published sizes are exact: they come from the hub, not from a formula.
  it.each(files.map((entry) => [entry.id, entry] as const))(
    'differ from the download of %s only by its vocabulary',
    (id, entry) => {
      const rest = entry.downloadBytes - planned(entry).bytes;
      // GGUF headers with SmolLM2's 49,152 tokens and Qwen's 151,936, Qwen3-Next's without thinking in the template; GPT-OSS's tokenizer.json (27,868,174 bytes) and headers.
      const [least, most] = id.startsWith('smol')
        ? [1.7e6, 1.8e6]
        : id.startsWith('gpt')
          ? [27.9e6, 28.1e6]
          : id.startsWith('qwen3-next')
            ? [5.78e6, 5.79e6]
            : [5.94e6, 5.98e6];
      expect(rest).toBeGreaterThan(least ?? 0);
      expect(rest).toBeLessThan(most ?? 0);
    },
  );

  it('exclude the multi-token-prediction module of DeepSeek-V3.1, which is not loaded', () => {
    const entry = catalogue.find(({ id }) => id === 'deepseek-v3.1');
    if (!entry) throw new Error('no DeepSeek');
    // README_WEIGHTS.md: the module has 11.5 billion parameters plus another copy of the shared embedding and head.
    const rest = entry.downloadBytes - planned(entry).bytes;
    expect(rest / 1e9).toBeGreaterThan(11.5);
    expect(rest / 1e9).toBeLessThan(11.5 + 2 * 1.86);
  });

  it("match the catalogue's bytes per token for experts, and do not exceed them for dense models", () => {
    for (const entry of catalogue) {
      const { spec, groups } = planned(entry);
      const bytes = activeBytesOf(spec, groups);
      if (entry.activeParameters < entry.parameters) expect(entry.bytesPerToken, entry.id).toBe(Math.round(bytes));
      else if (!mixed.includes(entry.id)) expect(bytes, entry.id).toBeLessThanOrEqual(entry.bytesPerToken);
    }
  });

  it("match the catalogue's bytes of experts, unless those have scales of blocks, which neither CPU nor card takes apart", () => {
    for (const entry of catalogue) {
      const { spec, groups } = planned(entry);
      const found = entry.quantisation === 'FP8' ? undefined : routedExperts(spec, groups);
      const rounded = found && { ...found, bytesPerToken: Math.round(found.bytesPerToken) };
      expect(entry.experts, entry.id).toEqual(rounded);
    }
  });
});

const folders: Readonly<Record<string, string>> = {
  'smollm2-135m-instruct': 'SmolLM2-135M-Instruct',
  'qwen3-0.6b': 'Qwen3-0.6B',
  'qwen3-1.7b': 'Qwen3-1.7B',
  'qwen3-4b': 'Qwen3-4B',
  'qwen3-8b': 'Qwen3-8B',
  'qwen3-14b': 'Qwen3-14B',
  'qwen3-32b': 'Qwen3-32B',
  'qwen3-30b-a3b': 'Qwen3-30B-A3B',
  'qwen3-coder-30b-a3b': 'Qwen3-Coder-30B-A3B-Instruct',
  'gpt-oss-20b': 'gpt-oss-20b',
  'gpt-oss-120b': 'gpt-oss-120b',
  'deepseek-v3.1': 'DeepSeek-V3.1',
};

for (const [id, folder] of Object.entries(folders)) {
  const [config, template] = ['config.json', 'chat_template.jinja'].map((name) => `models/${folder}/${name}`);
  if (config === undefined || template === undefined) throw new Error('no paths');

  describeShared(`the architecture of ${id}`, [config, template], () => {
    it('matches the published config.json', () => {
      const published: unknown = JSON.parse(readFileSync(sharedFile(config), 'utf8'));
      expect(specOfArchitecture(architectureOf(id))).toEqual(specFromConfig(published));
    });

    it('has the thinking modes of the published chat template', () => {
      const source = readFileSync(sharedFile(template), 'utf8');
      const modes = thinkingModes(compileChatTemplate(source), { templateTokens: { begin: '', end: '' } });
      expect(architectureOf(id).thinkingModes).toEqual(modes);
    });
  });
}
