/** Tests of single kernels in test/gpu, which need only an adapter. */
export const kernelTests = [
  'products',
  'matrixTiles',
  'jointProducts',
  'experts',
  'expertTiles',
  'router',
  'latent',
  'heads',
  'elements',
  'sample',
  'upload',
];
