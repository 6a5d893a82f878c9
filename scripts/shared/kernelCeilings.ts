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

/** Passes of 32 threads' 16-byte accesses to workgroup memory through its banks. */
export const wavefrontCeilings: Readonly<Record<string, number>> = {
  'attention of 64': 4,
  'attention of 128': 4,
  'attention of 576': 4,
  'plain tiles': 4,
  'matrix tiles': 4,
};
