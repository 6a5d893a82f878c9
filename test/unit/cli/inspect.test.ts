import { spawn } from 'node:child_process';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inspectionText } from '../../../engine/catalogue/inspectArchitecture.ts';
import { type InspectedModel, inspectModel } from '../../../engine/catalogue/inspectModel.ts';
import { openStore } from '../../../engine/catalogue/store.ts';
import { bundle } from '../runtime/bundle.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { fixtureFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let folder: string;
let tiny: Awaited<ReturnType<typeof makeTinyModel>>;
let cli: Awaited<ReturnType<typeof bundle>>;
beforeAll(async () => {
  [tiny, cli] = await Promise.all([makeTinyModel(), bundle('engine/cli.ts')]);
  folder = temporaryFolder();
});
afterAll(() => Promise.all([tiny.remove(), cli.remove()]));

/** A machine where a model may take 24e9 · 0.75 - 400e6 = 17.6 GB. */
const hardware = { totalMemoryBytes: 24e9, freeMemoryBytes: 20e9, cores: 8 };
const contexts = [8192, 32_768, 131_072];

function inspected(model: string): Promise<InspectedModel> {
  return inspectModel(openStore({ directory: join(folder, 'store') }), model, { contexts, hardware });
}

/** Returns the value of the only line that starts with `label`. */
function fact(text: string, label: string): string {
  const lines = text.split('\n').filter((line) => line.startsWith(`${label}  `));
  expect(lines, label).toHaveLength(1);
  return lines[0]?.slice(label.length).trim() ?? '';
}

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function hearth(...args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [cli.path, 'inspect', ...args], {
    cwd: folder,
    env: { ...process.env, HEARTH_HOME: join(folder, 'store') },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk;
  });
  return new Promise((done) => child.on('close', (status) => done({ status, stdout, stderr })));
}

describe('a model of the catalogue that is not on this machine', () => {
  it('is described from published facts', async () => {
    const text = inspectionText([await inspected('gpt-oss-20b')]);
    const expected: [string, RegExp][] = [
      ['Licence', /^Apache-2\.0$/],
      ['Download', /^13\.8 GB .*hearth models pull gpt-oss-20b/],
      ['Parameters', /^20\.9 billion$/],
      ['Active a token', /^3\.61 billion .*4\.19 billion with the embedding/],
      ['Heads', /^64 query, 8 key\/value of 64$/],
      ['Sliding window', /^128 tokens in 12 of 24 layers/],
      ['Sinks', /^one a query head/],
      ['Experts a token', /^4$/],
      ['Activation', /^SwiGLU clamped at 7$/],
      ['Rotary base', /^150,000$/],
      ['YaRN', /^× 32 on 4,096 +always on$/],
      ['Context', /^131,072 +tokens; 4,096 extended by YaRN$/],
      ['Thinking', /^low, medium, high/],
      ['  routed experts', /^MXFP4 10\.2 GB, BF16 13\.3 MB$/],
      ['Weights read a token', /^3\.71 GB/],
      ['KV a token', /^24\.6 kB/],
      ['KV of windows', /^3\.15 MB/],
      ['Memory at 131,072', /^17 GB +weights and 3\.22 GB/],
      // (17.6e9 - 13,761,264,768 weight bytes - 3,145,728 window bytes) / 24,576 bytes a token = 156,000 tokens.
      ['Fits this machine', /^131,072 tokens +its full context; 17\.6 GB of memory available/],
    ];
    for (const [label, value] of expected) expect(fact(text, label), label).toMatch(value);
    expect(text).not.toContain('Latent ranks');
    expect(text).not.toContain('Dense feed-forward');
  });

  it('shows the longer context that YaRN reaches, and how much of it fits', async () => {
    const text = inspectionText([await inspected('qwen3-14b')]);
    expect(fact(text, 'Context')).toMatch(/^40,960; with YaRN 131,072 .*rotary base 1,000,000/);
    expect(fact(text, 'YaRN')).toMatch(/^on request, to × 4 on 32,768/);
    expect(fact(text, 'Memory at 131,072')).toMatch(/YaRN × 4$/);
    // (17.6e9 - 8,995,793,920) / (163,840 × 9/8, as the cache keeps an eighth free) = 46,681 tokens, in whole steps of 1,024.
    expect(fact(text, 'Fits this machine')).toMatch(/^46,080 tokens/);
    expect(fact(text, 'Normalisation')).toMatch(/^RMS; query and key heads too/);
  });

  it('names what sets StarCoder2 apart', async () => {
    const text = inspectionText([await inspected('starcoder2-3b')]);
    const expected: [string, RegExp][] = [
      ['Normalisation', /^LayerNorm/],
      ['Activation', /^GELU$/],
      ['Biases', /^q, k, v, output, feed-forward$/],
      ['Sliding window', /^4,096 tokens in 30 of 30 layers +no layer attends to more/],
      ['Context', /^16,384/],
      // 30 layers, 4,096 tokens, a key and a value of 2 heads of 128 in f16.
      ['KV of windows', /^126 MB/],
    ];
    for (const [label, value] of expected) expect(fact(text, label), label).toMatch(value);
  });

  it('shows the size of the weights if it is too large', async () => {
    const text = inspectionText([await inspected('deepseek-v3.1')]);
    // FP8 is computed by ONNX Runtime, which takes 0.7 GB beside weights and cache.
    expect(fact(text, 'Fits this machine')).toMatch(/^no +the weights take 673 GB; 17\.3 GB of memory available/);
    expect(fact(text, 'Attention')).toMatch(/^latent/);
    expect(fact(text, 'Latent ranks')).toMatch(/^key\/value 512, query 1,536$/);
    expect(fact(text, 'Experts a token')).toBe('8 and one of 2,048 always');
    expect(fact(text, 'Download')).toMatch(/^about 687 GB/);
    expect(fact(text, 'KV a token')).toMatch(/^70\.3 kB/);
  });
});

describe('models side by side', () => {
  it('are shown in aligned columns, with a dash for facts that do not apply', async () => {
    const models = await Promise.all(['gpt-oss-20b', 'qwen3-0.6b', 'deepseek-v3.1'].map(inspected));
    const text = inspectionText(models);
    const lines = text.trimEnd().split('\n');
    const columns = ['gpt-oss-20b', 'qwen3-0.6b', 'deepseek-v3.1'].map((id) => lines[0]?.indexOf(id) ?? -1);
    for (const line of lines) {
      for (const column of columns) expect(line.slice(column - 2, column), line).toBe('  ');
      for (const column of columns) expect(line[column], line).toMatch(/\S/);
    }
    expect(fact(text, 'Sliding window')).toMatch(/^128 tokens in 12 of 24 layers +– +–$/);
    expect(fact(text, 'Attention')).toMatch(/^grouped-query +grouped-query +latent$/);
    expect(fact(text, 'Weights read a token')).toMatch(/^3\.71 GB +633 MB +37\.7 GB$/);
  });
});

describe('a model that is a file', () => {
  it('shows its own types and bytes', async () => {
    const model = await inspected(fixtureFile('goldens/gpt-oss'));
    expect(model).toMatchObject({ state: 'present', weightsKnownFrom: 'file', name: 'gpt-oss' });
    const text = inspectionText([model]);
    expect(fact(text, '  routed experts')).toBe('MXFP4 627 kB, BF16 20.5 kB');
    expect(fact(text, 'Thinking')).toMatch(/^not known/);
    expect(text).not.toContain('Download');
  });

  it('shows the thinking switch of its own template', async () => {
    expect((await inspected(tiny.path)).thinkingModes).toEqual(['off', 'on']);
  });

  it('or only its config.json is inspected like any other', async () => {
    const alone = join(folder, 'my-llama');
    await mkdir(alone);
    await copyFile(fixtureFile('goldens/llama/config.json'), join(alone, 'config.json'));
    await writeFile(join(alone, 'chat_template.jinja'), '{{ messages[0].content }}');
    const [fromConfig, fromFile] = await Promise.all(
      [join(alone, 'config.json'), fixtureFile('goldens/llama')].map(inspected),
    );
    expect(fromConfig).toMatchObject({ name: 'my-llama', state: 'absent', thinkingModes: ['off'] });
    expect(fromConfig?.parameters).toBe(fromFile?.parameters);
    expect(fromConfig?.attention).toEqual(fromFile?.attention);
  });

  it('cannot write control characters to the screen', async () => {
    const model = await inspected(fixtureFile('goldens/llama'));
    const text = inspectionText([{ ...model, licence: `free\u001b[2J\n${'x'.repeat(1000)}` }]);
    expect(text).not.toContain('\u001b');
    expect(fact(text, 'Licence').length).toBeLessThan(150);
  });
});

describe('hearth inspect', () => {
  it('prints JSON with exact byte counts', async () => {
    const { status, stdout } = await hearth('gpt-oss-20b', tiny.path, '--json', '--context', '1000');
    expect(status).toBe(0);
    const [gptOss, own] = JSON.parse(stdout);
    expect(gptOss).toMatchObject({
      model: 'gpt-oss-20b',
      state: 'absent',
      licence: 'Apache-2.0',
      download: { bytes: 13_789_244_354, estimated: false },
      parameters: 20_914_757_184,
      weights: { bytes: 13_761_264_768, bytesPerToken: 3_708_083_328 },
      cache: { bytesPerToken: 24_576, windowBytes: 3_145_728 },
    });
    expect(gptOss.memory.map((each: { contextTokens: number }) => each.contextTokens)).toEqual([1000, ...contexts]);
    expect(own).toMatchObject({ model: tiny.path, state: 'present', family: 'llama' });
  });

  it('describes one model and compares several', async () => {
    const [one, two] = await Promise.all([hearth('qwen3-0.6b'), hearth('qwen3-0.6b', 'qwen3-4b')]);
    expect(one).toMatchObject({ status: 0, stderr: '' });
    expect(one.stdout).toMatch(/^Qwen3 0\.6B \(qwen3-0\.6b\)\n/);
    expect(two.stdout).toMatch(/^ +qwen3-0\.6b +qwen3-4b\n/);
  });

  it('reports an error in one line with exit status 1', async () => {
    const config = join(folder, 'gptq.json');
    const fields = { model_type: 'qwen2', hidden_act: 'silu', hidden_size: 8, intermediate_size: 8, vocab_size: 8 };
    const more = { num_hidden_layers: 1, num_attention_heads: 1, rms_norm_eps: 1e-6, max_position_embeddings: 8 };
    const quantised = { ...fields, ...more, quantization_config: { quant_method: 'gptq' } };
    await writeFile(config, JSON.stringify(quantised));
    await writeFile(join(folder, 'mamba.json'), '{ "model_type": "mamba" }');
    await writeFile(join(folder, 'broken.json'), '{');
    const wrong: [string[], RegExp][] = [
      [[], /MODEL is missing/],
      [['no-such-model'], /no-such-model.*hearth models list/],
      [['qwen3-4b', 'no-such-model'], /no-such-model/],
      [[config], /quant_method.*gptq/],
      [['mamba.json'], /mamba is not one of/],
      [['broken.json'], /broken\.json isn't JSON/],
      [['.'], /config\.json/],
      [['qwen3-4b', '--context', 'long'], /--context must be a whole number/],
    ];
    const results = await Promise.all(wrong.map(([args]) => hearth(...args)));
    for (const [i, { status, stdout, stderr }] of results.entries()) {
      expect(stderr).toMatch(wrong[i]?.[1] ?? /never/);
      expect(stderr).toMatch(/^hearth: [^\n]+\n$/);
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    }
  });
});
