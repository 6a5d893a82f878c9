import type { ModelCard, ModelEntry, Statistics } from '../../engine/server/protocol.ts';

/** What the engine is doing, for status bar and chat view. */
export type EngineState =
  /** Nothing has asked for it yet, or it was stopped. */
  | { kind: 'idle' }
  | { kind: 'starting' }
  /** No model on disk; these are worth downloading. */
  | { kind: 'no-model'; offers: ModelEntry[] }
  /** Bytes. */
  | { kind: 'downloading'; name: string; done: number; total: number }
  /** Bytes; total 0 until the engine says. */
  | { kind: 'loading'; name: string; done: number; total: number }
  /** A server is asked what it has. */
  | { kind: 'connecting'; host: string }
  | { kind: 'ready'; card: ModelCard }
  | { kind: 'restarting'; delayMs: number }
  | { kind: 'failed'; message: string; remedy: 'restart' | 'choose-model' };

export interface EngineView {
  state: EngineState;
  /** Requests that generate now. */
  running: number;
  /** Of the last request that generated. */
  last: Statistics | undefined;
}
