/** Tensors in a file: types shared by all container formats. */

/** Element or block types, named as in safetensors and GGUF. Block layouts are those of ggml. */
export type TensorType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'F8_E8M0'
  | 'I8'
  | 'U8'
  | 'I16'
  | 'U16'
  | 'I32'
  | 'U32'
  | 'I64'
  | 'U64'
  | 'BOOL'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q8_0'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K'
  | 'IQ4_NL'
  | 'IQ4_XS'
  | 'MXFP4';

export interface TensorInfo {
  readonly name: string;
  readonly type: TensorType;
  /** Outermost dimension first (row-major); the dimensions of a GGUF are reversed when read. `[]` is a scalar. */
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** An opened model file or set of shards. Only headers are in memory; tensor bytes are read by range. */
export interface TensorFile {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * Reads one tensor, or a range of it, into a new buffer. Offset and length in bytes.
   * @throws HearthError `not-found` for an unknown tensor, `invalid-input` for a range outside it, `unavailable` if the
   * file can't be read.
   */
  read(name: string, byteOffset?: number, byteLength?: number): Promise<Uint8Array>;
  close(): Promise<void>;
}
