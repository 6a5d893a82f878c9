/** What `npm run bench` was asked to measure. */
import type { SpeedPeer } from './workload.ts';

export interface Settings {
  readonly threads: number;
  /** Tokens of context, ascending. */
  readonly contexts: readonly number[];
  /** Named by the user; empty: each group's own. */
  readonly models: readonly string[];
  /** Repetitions of everything, by both engines one after the other; `turnsAt` has fewer behind long contexts. */
  readonly turns: number;
  readonly keystrokes: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly speculation: {
    /** `PACKAGE@FROM..TO` each. */
    readonly edits: readonly string[];
    /** Newest commits of this repository that are looked through for edits. */
    readonly commits: number;
    /** Of each package and of the commits. */
    readonly files: number;
    /** Written of each file. */
    readonly tokens: number;
    /** Without rounding to 8 bits. */
    readonly exact: boolean;
  };
  /** llama-bench or what stands for it. */
  readonly speedPeer?: SpeedPeer;
  /** The version of llama-server; absent: there is none. */
  readonly server?: string;
}

/** As much work behind a long context as behind 4,096 tokens, roughly; once at least. */
export const turnsAt = (turns: number, contextTokens: number): number =>
  Math.max(1, Math.round((turns * 4096) / Math.max(4096, contextTokens)));

export const count = (tokens: number): string => tokens.toLocaleString('en-GB');
