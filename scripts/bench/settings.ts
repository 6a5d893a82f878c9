/** Settings of `npm run bench`. */
import type { SpeedPeer } from './workload.ts';

export interface Settings {
  readonly threads: number;
  /** Context lengths in tokens, ascending. */
  readonly contexts: readonly number[];
  /** Files chosen by the user. If empty, each group has its own. */
  readonly models: readonly string[];
  /** Repetitions, alternating between the engines. `turnsAt` reduces them for long contexts. */
  readonly turns: number;
  readonly keystrokes: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly speculation: {
    /** Each is `PACKAGE@FROM..TO`. */
    readonly edits: readonly string[];
    /** Number of recent commits to search for edits. */
    readonly commits: number;
    /** Files per package, and files of the commits. */
    readonly files: number;
    /** Tokens generated per file. */
    readonly tokens: number;
    /** Disables int8 activations. */
    readonly exact: boolean;
  };
  /** llama-bench or its replacement. */
  readonly speedPeer?: SpeedPeer;
  /** Version of llama-server. Absent if not found. */
  readonly server?: string;
}

/** At least one turn; roughly the same total work as at 4,096 tokens. */
export const turnsAt = (turns: number, contextTokens: number): number =>
  Math.max(1, Math.round((turns * 4096) / Math.max(4096, contextTokens)));

export const count = (tokens: number): string => tokens.toLocaleString('en-GB');
