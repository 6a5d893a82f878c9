/** How the threads of a workgroup reach its memory in a kernel's inner loop; `npm run test:kernels` counts bank conflicts. */
export interface SharedAccess {
  readonly name: string;
  /** Byte that a thread starts to read 16 bytes at. */
  readonly address: (thread: number) => number;
}
