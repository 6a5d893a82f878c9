/** What turns texts into vectors. Whoever opens the index hands one in: this folder knows no models. */
export interface Embedder {
  /** Values of a vector. */
  readonly dimensions: number;
  /** Of length 1; a text too long for the model is cut. @throws HearthError `cancelled`, and what the model throws. */
  document(text: string, signal: AbortSignal): Promise<Float32Array>;
  /** Goes before the documents that wait. */
  question(text: string): Promise<Float32Array>;
  close(): Promise<void>;
}

export interface EmbedderChoice {
  /** Names the model: the vectors of another one are thrown away. */
  readonly model: string;
  /** Called when there is something to embed. */
  readonly open: (signal: AbortSignal) => Promise<Embedder>;
}
