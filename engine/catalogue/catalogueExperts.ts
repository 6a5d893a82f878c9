/** Licences and fields that several catalogue entries share. */
import type { CatalogueEntryInput } from './catalogue.ts';

export const apache = { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0', open: true };
const mit = { name: 'MIT', url: 'https://opensource.org/license/mit', open: true };
export const both: CatalogueEntryInput['roles'] = ['completion', 'chat'];

export interface HubGguf {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly parameters: number;
  readonly quantisation: string;
  readonly cacheBytesPerToken: number;
  readonly rank: number;
  readonly repository: string;
  readonly revision: string;
  readonly file: { readonly name: string; readonly bytes: number; readonly sha256: string };
}

/** A file whose size and digest the hub announces when it is downloaded; `bytes` is computed from the architecture. */
interface EstimatedGguf extends Omit<HubGguf, 'file' | 'revision'> {
  readonly file: string;
  readonly bytes: number;
}

/** Fields of an entry with a single GGUF file from the hub. */
export function hubGguf(model: HubGguf) {
  return {
    id: model.id,
    name: model.name,
    description: model.description,
    licence: apache,
    parameters: model.parameters,
    activeParameters: model.parameters,
    quantisation: model.quantisation,
    downloadBytes: model.file.bytes,
    bytesPerToken: model.file.bytes,
    cacheBytesPerToken: model.cacheBytesPerToken,
    rank: model.rank,
    files: [model.file],
    sources: [{ kind: 'hub' as const, repository: model.repository, revision: model.revision }],
  };
}

/** Fields of an entry whose revision, size and digest come from the hub at download time. */
export function estimatedGguf({ file, bytes, ...model }: EstimatedGguf) {
  return {
    ...hubGguf({ ...model, revision: 'main', file: { name: file, bytes, sha256: '' } }),
    downloadEstimated: true,
    files: [{ name: file }],
  };
}

// The catalogue's mixture-of-experts models. catalogueData.ts explains the sources of sizes and digests.

export const qwen3Experts: CatalogueEntryInput[] = [
  {
    ...hubGguf({
      id: 'qwen3-30b-a3b',
      name: 'Qwen3 30B-A3B',
      description: 'Mixture of experts: answers like a large model at the speed of a small one; needs a lot of memory.',
      parameters: 30_532_122_624,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 98_304,
      rank: 11,
      repository: 'Qwen/Qwen3-30B-A3B-GGUF',
      revision: 'e4d4bafdfb96a411a163846265362aceb0b9c63a',
      file: {
        name: 'Qwen3-30B-A3B-Q4_K_M.gguf',
        bytes: 18_556_685_824,
        sha256: '0d003f6662faee786ed5da3e31b29c978de5ae5d275c8794c606a7f3c01aa8f5',
      },
    }),
    family: 'qwen3-moe',
    activeParameters: 3_353_032_704,
    bytesPerToken: 1_919_596_544,
    experts: { bytes: 17_553_162_240, bytesPerToken: 1_097_072_640, layers: 48 },
    contextTokens: 40_960,
    roles: ['chat'],
  },
  {
    ...estimatedGguf({
      id: 'qwen3-30b-a3b-instruct-2507',
      name: 'Qwen3 30B-A3B Instruct 2507',
      description: 'Better answers than Qwen3 30B-A3B, without thinking, with a 262,144-token context.',
      parameters: 30_532_122_624,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 98_304,
      rank: 11,
      repository: 'unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF',
      file: 'Qwen3-30B-A3B-Instruct-2507-Q4_K_M.gguf',
      bytes: 18_556_690_000,
    }),
    family: 'qwen3-moe',
    activeParameters: 3_353_032_704,
    bytesPerToken: 1_919_596_544,
    experts: { bytes: 17_553_162_240, bytesPerToken: 1_097_072_640, layers: 48 },
    contextTokens: 262_144,
    roles: ['chat'],
  },
  {
    ...hubGguf({
      id: 'qwen3-coder-30b-a3b',
      name: 'Qwen3-Coder 30B-A3B Instruct',
      description: 'Completion, chat and tools for code with a 262,144-token context; needs a lot of memory.',
      parameters: 30_532_122_624,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 98_304,
      rank: 14,
      repository: 'unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF',
      revision: 'b17cb02dd882d5b6ab62fc777ad2995f19668350',
      file: {
        name: 'Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf',
        bytes: 18_556_689_568,
        sha256: 'fadc3e5f8d42bf7e894a785b05082e47daee4df26680389817e2093056f088ad',
      },
    }),
    family: 'qwen3-moe',
    activeParameters: 3_353_032_704,
    bytesPerToken: 1_919_596_544,
    experts: { bytes: 17_553_162_240, bytesPerToken: 1_097_072_640, layers: 48 },
    contextTokens: 262_144,
    roles: both,
    fillInTheMiddle: true,
  },
];

const deltaNet = { contextTokens: 262_144, roles: ['chat' as const] };

/**
 * Three of four layers are gated delta nets with a state of constant size, so a long context takes little memory.
 * Ranked below models of their size that were tested with their published weights, because these were not.
 */
export const deltaNets: CatalogueEntryInput[] = [
  {
    ...hubGguf({
      id: 'qwen3.5-4b',
      name: 'Qwen3.5 4B',
      description: 'Good answers with thinking; a context of 262,144 tokens takes little memory.',
      parameters: 4_205_751_296,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 32_768,
      rank: 5,
      repository: 'unsloth/Qwen3.5-4B-GGUF',
      revision: 'e87f176479d0855a907a41277aca2f8ee7a09523',
      file: {
        name: 'Qwen3.5-4B-Q4_K_M.gguf',
        bytes: 2_740_937_888,
        sha256: '00fe7986ff5f6b463e62455821146049db6f9313603938a70800d1fb69ef11a4',
      },
    }),
    family: 'qwen3.5',
    ...deltaNet,
  },
  {
    ...hubGguf({
      id: 'qwen3.5-9b',
      name: 'Qwen3.5 9B',
      description: 'Very good answers with thinking and a long context; best on a GPU with 8 GB.',
      parameters: 8_953_803_264,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 32_768,
      rank: 7,
      repository: 'unsloth/Qwen3.5-9B-GGUF',
      revision: '3885219b6810b007914f3a7950a8d1b469d598a5',
      file: {
        name: 'Qwen3.5-9B-Q4_K_M.gguf',
        bytes: 5_680_522_464,
        sha256: '03b74727a860a56338e042c4420bb3f04b2fec5734175f4cb9fa853daf52b7e8',
      },
    }),
    family: 'qwen3.5',
    ...deltaNet,
  },
  {
    ...hubGguf({
      id: 'qwen3.6-35b-a3b',
      name: 'Qwen3.6 35B-A3B',
      description: 'Mixture of experts with a long context: answers like a large model at the speed of a small one.',
      parameters: 34_660_610_688,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 20_480,
      rank: 10,
      repository: 'ggml-org/Qwen3.6-35B-A3B-GGUF',
      revision: 'baec3ebee244827cda0f4557eafa8b28f7545fa6',
      file: {
        name: 'Qwen3.6-35B-A3B-Q4_K_M.gguf',
        bytes: 20_419_565_568,
        sha256: '671e47e0ec53c665d048b98c3ecbfd5236b5ca9c3e02ed19fc8f81f7b85140c7',
      },
    }),
    family: 'qwen3.5',
    ...deltaNet,
    activeParameters: 3_454_988_928,
    bytesPerToken: 1_915_120_128,
    experts: { bytes: 19_503_513_600, bytesPerToken: 609_484_800, layers: 40 },
  },
  {
    ...hubGguf({
      id: 'qwen3-next-80b-a3b',
      name: 'Qwen3-Next 80B-A3B Instruct',
      description: 'A larger mixture of experts with a long context, without thinking; needs a lot of memory.',
      parameters: 79_674_391_296,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 24_576,
      rank: 10,
      repository: 'Qwen/Qwen3-Next-80B-A3B-Instruct-GGUF',
      revision: '4c8630cf7af926a9c5095cb4bbbbc65d36e20f77',
      file: {
        name: 'Qwen3-Next-80B-A3B-Instruct-Q4_K_M.gguf',
        bytes: 48_410_988_384,
        sha256: 'd103b2733ec1012a52d01edda66b7e5c24ae50508c9f99f5297ea459ef3c061a',
      },
    }),
    family: 'qwen3-next',
    ...deltaNet,
    activeParameters: 3_874_929_408,
    bytesPerToken: 2_335_966_208,
    experts: { bytes: 46_808_432_640, bytesPerToken: 914_227_200, layers: 48 },
  },
];

/** Files that are identical in both GPT-OSS repositories. */
const gptOssText = [
  {
    name: 'chat_template.jinja',
    bytes: 16_738,
    sha256: 'a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146',
  },
  {
    name: 'generation_config.json',
    bytes: 177,
    sha256: 'f9970ada892d2d1f72e3ed0a6535ccebadd11897318794ca671d8c7014c957da',
  },
  {
    name: 'tokenizer.json',
    bytes: 27_868_174,
    sha256: '0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3',
  },
  {
    name: 'tokenizer_config.json',
    bytes: 4_200,
    sha256: '9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070',
  },
];

const gptOss20b = [
  { name: 'config.json', bytes: 1_806, sha256: '3a2a26ded679375b7928ddeca59764df7cea83220c1961035f6d6e232659e9ce' },
  ...gptOssText,
  {
    name: 'model.safetensors.index.json',
    bytes: 36_355,
    sha256: '0e085b977c4c9942f85938828e8c989ed7d5cdabf852e4da6a67c116cd502cd1',
  },
  ...shards(2, 5, 0, [
    [4_792_272_488, '16d0f997dcfc4462089d536bffe51b4bcea2f872f5c430be09ef8ed392312427'],
    [4_798_702_184, '4fbe328ab445455d6f58dc73852b85873bd626986310abd91cd4d2ce3245eaea'],
    [4_170_342_232, 'a18106b209e9ab35c3406db4f6f12a927364a058b21e9d1373d682e20674b303'],
  ]),
];

const gptOss120b = [
  { name: 'config.json', bytes: 2_089, sha256: '933aeb666a3fd851133ddd7686414f369bc564c4185fb5704416550879f10566' },
  ...gptOssText,
  {
    name: 'model.safetensors.index.json',
    bytes: 54_511,
    sha256: 'ede2655fdc05008561983b6e0829c600727c28d591e071077377059f03a6c00e',
  },
  ...shards(14, 5, 0, [
    [4_625_017_896, '695218884684c611fe08a74751ee443f971e9bd9bc062edba822da3fe45969b7'],
    [4_115_586_736, 'a881aa5f561b26a22b14a8262aa61849ace349ffd73d74769e030ac90a1fcf8a'],
    [4_625_017_888, '022478dd04398c5bdb545a5be0a6437ecc2eb53d1dbd29edafcfff4b3ddf0a41'],
    [4_115_586_752, '47aee9e7b9d5bedb215042c01ccededd9bd9c30b0dddea862dc2506b9d6c74de'],
    [4_625_017_896, 'f6c2752acda607b1d5ca52df9e75c1b9b2761e6875ff10c9bd6ddac473c0262e'],
    [4_115_586_696, '0c8dd401544c31cb93b8459eee7da20ea2a07626a59455d7d92b85257df9b46c'],
    [4_625_017_856, '28d839f2e027985a8b14e45f2323798862eddb7770ee9800ea6b7c803abee489'],
    [4_060_267_176, 'c8958c5f183c04f6ea959cfd90562b5128124154b2bbf979b8a22b9405b30ed8'],
    [4_625_017_896, 'bf1f2a88868ffc37d520dcf77d26f0e823710b5e682d473ff10f6974fa3b7517'],
    [4_170_906_304, 'f72d34a4004241b45c332b61f8ffa124e9a913bc1ab442b66e717d3e94e741ce'],
    [4_625_017_896, 'f48c867c2cb0a44bfc2f8768cb98e4aec9a350946fceacfebdcad5d32ad4a471'],
    [4_115_586_752, 'a06851b2cfd35f48722f823bc1ab8f7bcb4a878a5b8e975f4d3544f230454eeb'],
    [4_064_660_808, '3af33667c307e20ae2a7648ea52653de46dd0171601ec5c696e47a2f5d5bf1e4'],
    [4_625_017_896, 'bcbcb74b043e071d1e05471d500d74dcf661175e00878ed302ccdf1801a75aef'],
    [4_115_586_736, '54b1be1609696c307cc5ca117b1fa54feaddebffa04e9c2db117652a01964230'],
  ]),
];

/** Names like `model-00001-of-000163.safetensors`: five digits for the shard, `totalDigits` for the last shard. */
function shards(last: number, totalDigits: number, first: number, known: readonly (readonly [number, string])[] = []) {
  return Array.from({ length: last - first + 1 }, (_, index) => {
    const number = String(first + index).padStart(5, '0');
    const name = `model-${number}-of-${String(last).padStart(totalDigits, '0')}.safetensors`;
    const size = known[index];
    return size ? { name, bytes: size[0], sha256: size[1] } : { name };
  });
}

const totalBytes = (files: readonly { readonly bytes?: number }[]): number =>
  files.reduce((sum, file) => sum + (file.bytes ?? 0), 0);

export const gptOss: CatalogueEntryInput[] = [
  {
    id: 'gpt-oss-20b',
    name: 'GPT-OSS 20B',
    family: 'gpt-oss',
    description: "OpenAI's open model in its native MXFP4: strong reasoning with adjustable effort, in 16 GB.",
    licence: apache,
    parameters: 20_914_757_184,
    activeParameters: 4_187_440_704,
    quantisation: 'MXFP4',
    downloadBytes: totalBytes(gptOss20b),
    // 4 of 32 experts at 4.25 bits a weight; attention and head in BF16.
    bytesPerToken: 3_708_083_328,
    experts: { bytes: 10_165_616_640, bytesPerToken: 1_270_702_080, layers: 24 },
    cacheBytesPerToken: 24_576,
    contextTokens: 131_072,
    roles: ['chat'],
    rank: 13,
    files: gptOss20b,
    sources: [{ kind: 'hub', repository: 'openai/gpt-oss-20b', revision: '6cee5e81ee83917806bbde320786a8fb61efebee' }],
  },
  {
    ...estimatedGguf({
      id: 'gpt-oss-20b-gguf',
      name: 'GPT-OSS 20B (one file)',
      description: 'GPT-OSS 20B as one GGUF of ggml-org, which llama.cpp and LM Studio use too.',
      parameters: 20_914_757_184,
      quantisation: 'MXFP4',
      cacheBytesPerToken: 24_576,
      // Below the publisher's own files, whose sizes are known.
      rank: 8,
      repository: 'ggml-org/gpt-oss-20b-GGUF',
      file: 'gpt-oss-20b-mxfp4.gguf',
      bytes: 12_110_000_000,
    }),
    family: 'gpt-oss',
    activeParameters: 4_187_440_704,
    // Computed for the publisher's BF16 attention and head; in this file they have 8 bits.
    bytesPerToken: 3_708_083_328,
    experts: { bytes: 10_165_616_640, bytesPerToken: 1_270_702_080, layers: 24 },
    contextTokens: 131_072,
    roles: ['chat'],
  },
  {
    id: 'gpt-oss-120b',
    name: 'GPT-OSS 120B',
    family: 'gpt-oss',
    description:
      "OpenAI's large open model in its native MXFP4: needs one GPU with 80 GB; slow on a workstation's CPU.",
    licence: apache,
    parameters: 116_829_156_672,
    activeParameters: 5_711_982_912,
    quantisation: 'MXFP4',
    downloadBytes: totalBytes(gptOss120b),
    bytesPerToken: 5_002_902_144,
    experts: { bytes: 60_993_699_840, bytesPerToken: 1_906_053_120, layers: 36 },
    cacheBytesPerToken: 36_864,
    contextTokens: 131_072,
    roles: ['chat'],
    rank: 15,
    files: gptOss120b,
    sources: [{ kind: 'hub', repository: 'openai/gpt-oss-120b', revision: 'b5c939de8f754692c1647ca79fbf85e8c1e70f8a' }],
  },
];

export const deepSeek: CatalogueEntryInput = {
  id: 'deepseek-v3.1',
  name: 'DeepSeek-V3.1',
  family: 'deepseek-v3',
  description: 'A frontier model in its native FP8, with thinking; for servers with many GPUs.',
  licence: mit,
  parameters: 671_026_419_200,
  activeParameters: 37_552_297_472,
  quantisation: 'FP8',
  // FP8 weights; BF16 norms, router and embeddings; includes the published multi-token-prediction module.
  downloadBytes: 686_613_963_696,
  downloadEstimated: true,
  bytesPerToken: 37_668_475_232,
  cacheBytesPerToken: 70_272,
  contextTokens: 163_840,
  roles: ['chat'],
  rank: 16,
  files: [
    { name: 'config.json' },
    { name: 'generation_config.json' },
    {
      name: 'tokenizer.json',
      bytes: 7_847_578,
      sha256: '32b34a41212e92f62e859cbbea121ae705a1fabbf157d9acf22d134ecd8dcf70',
    },
    { name: 'tokenizer_config.json' },
    { name: 'model.safetensors.index.json' },
    ...shards(163, 6, 1),
  ],
  sources: [
    { kind: 'hub', repository: 'deepseek-ai/DeepSeek-V3.1', revision: 'c0781d039fb7a1ba2abc4add0bdc293e92d2b8db' },
  ],
};
