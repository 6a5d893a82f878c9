/** How the threads of a workgroup access its memory in a kernel's inner loop; `npm run test:kernels` counts bank conflicts. */
export interface SharedAccess {
  readonly name: string;
  /** Byte offset at which a thread reads 16 bytes. */
  readonly address: (thread: number) => number;
}
