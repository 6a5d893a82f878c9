/**
 * The most that `npm run test:kernels` lets kernels cost on GPUs that are not there. Lower a ceiling when a kernel gets
 * cheaper; raise one only with its reason in the commit.
 */

export type CompiledCard = 'Ada' | 'navi31' | 'polaris10' | 'M1';

/** Instructions a weight of the loop over columns, decoding one token, by kind and type of kernel. */
export const ceilings: Readonly<Record<string, Readonly<Record<CompiledCard, number>>>> = {};

/** Passes of 32 threads' 16-byte accesses to workgroup memory through its banks. */
export const wavefrontCeilings: Readonly<Record<string, number>> = {
  'attention of 64': 4,
  'attention of 128': 4,
  'attention of 576': 4,
  'plain tiles': 4,
  'matrix tiles': 4,
};
