/**
 * Maximum costs of kernels in `npm run test:kernels`, which compiles for GPUs without having them. Lower a ceiling when a
 * kernel gets cheaper; raise one only with the reason in the commit.
 */

type CompiledCard = 'Ada' | 'navi31' | 'polaris10' | 'M1';

/** Instructions per weight in the loop over columns when decoding one token, by kernel and weight type. */
export const ceilings: Readonly<Record<string, Readonly<Record<CompiledCard, number>>>> = {
  'expertsDown F8_E4M3': { Ada: 5.7, navi31: 3.8, polaris10: 5.5, M1: 4.5 },
  'expertsDown MXFP4': { Ada: 5.8, navi31: 4.2, polaris10: 6.0, M1: 4.8 },
  'expertsDown Q6_K': { Ada: 7.8, navi31: 5.8, polaris10: 7.6, M1: 6.7 },
  'gatedVector F8_E4M3': { Ada: 5.3, navi31: 3.8, polaris10: 5.5, M1: 4.4 },
  'gatedVector MXFP4': { Ada: 5.6, navi31: 5.3, polaris10: 7.0, M1: 4.7 },
  'gatedVector Q4_K': { Ada: 6.4, navi31: 4.3, polaris10: 6.0, M1: 4.9 },
  'gatedVector Q8_0': { Ada: 4.5, navi31: 4.1, polaris10: 3.1, M1: 4.9 },
  'jointVector F8_E4M3': { Ada: 6.1, navi31: 4.4, polaris10: 6.1, M1: 5.0 },
  'jointVector Q4_K': { Ada: 7.1, navi31: 5.0, polaris10: 6.8, M1: 5.5 },
  'matrixVector BF16': { Ada: 4.0, navi31: 3.5, polaris10: 3.5, M1: 3.4 },
  'matrixVector F32': { Ada: 7.8, navi31: 3.6, polaris10: 3.7, M1: 4.5 },
  'matrixVector F8_E4M3': { Ada: 5.2, navi31: 7.8, polaris10: 7.3, M1: 5.0 },
  'matrixVector Q4_K': { Ada: 6.3, navi31: 4.3, polaris10: 6.2, M1: 4.9 },
  'matrixVector Q6_K': { Ada: 8.2, navi31: 6.4, polaris10: 8.1, M1: 7.2 },
  'matrixVector Q8_0': { Ada: 5.3, navi31: 4.7, polaris10: 3.8, M1: 5.6 },
  'projectHeads Q4_K': { Ada: 7.1, navi31: 4.9, polaris10: 6.7, M1: 5.5 },
  'projectHeads Q8_0': { Ada: 5.3, navi31: 4.6, polaris10: 3.6, M1: 5.6 },
};

/** Instructions of a thread in a step of a prompt's kernel: 32 columns of a tile, or a block of keys. */
export const stepCeilings: Readonly<Record<string, Partial<Readonly<Record<CompiledCard, number>>>>> = {
  'attention 128/1x576': { Ada: 810, navi31: 820, polaris10: 1040, M1: 970 },
  'attention 28/4x128': { polaris10: 1740, M1: 1900 },
  'attention 32/4x128': { polaris10: 1700, M1: 2190 },
  'attention 32/8x128': { polaris10: 1700, M1: 2190 },
  'attention 48/8x128': { polaris10: 1740, M1: 1900 },
  'attention 64/8x64': { polaris10: 1020, M1: 1190 },
  'attentionTiles 28/4x128': { Ada: 740, navi31: 950 },
  'attentionTiles 32/4x128': { Ada: 850, navi31: 950 },
  'attentionTiles 32/8x128': { Ada: 850, navi31: 960 },
  'attentionTiles 48/8x128': { Ada: 740, navi31: 960 },
  'attentionTiles 64/8x64': { Ada: 590, navi31: 500 },
  'attentionTiles 64/8x64w': { Ada: 680, navi31: 520 },
  'expertTiles F8_E4M3': { Ada: 410, navi31: 380, polaris10: 800, M1: 800 },
  'expertTiles MXFP4': { Ada: 400, navi31: 300, polaris10: 790, M1: 810 },
  'expertTiles Q4_K': { Ada: 420, navi31: 370, polaris10: 790, M1: 820 },
  'expertTiles Q6_K': { Ada: 640, navi31: 390, polaris10: 820, M1: 840 },
  'matrixMatrix F32': { Ada: 260, navi31: 180, polaris10: 700, M1: 730 },
  'matrixMatrix F8_E4M3': { Ada: 350, navi31: 260, polaris10: 800, M1: 800 },
  'matrixMatrix Q4_K': { Ada: 360, navi31: 260, polaris10: 790, M1: 820 },
  'matrixMatrix Q6_K': { Ada: 360, navi31: 280, polaris10: 820, M1: 840 },
  'matrixMatrix Q8_0': { Ada: 280, navi31: 200, polaris10: 720, M1: 760 },
  'tallMatrix F8_E4M3': { Ada: 410, navi31: 375 },
  'tallMatrix Q4_K': { Ada: 415, navi31: 365 },
  'tallMatrix Q6_K': { Ada: 420, navi31: 385 },
  'tallMatrix Q8_0': { Ada: 340, navi31: 315 },
};

/** Passes of 32 threads' 16-byte accesses to workgroup memory through its banks. */
export const wavefrontCeilings: Readonly<Record<string, number>> = {
  'attention of 64': 4,
  'attention of 128': 4,
  'attention of 576': 4,
  'attention tiles of 64': 4,
  'attention tiles of 128': 4,
  'plain tiles': 4,
  'matrix tiles': 4,
};
