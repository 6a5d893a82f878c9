/** The tests of single kernels, in test/gpu: they need nothing but an adapter. */
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
