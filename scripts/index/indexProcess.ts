/** Runs the indexer process as the editor does, and reads its CPU time and memory from Linux's /proc. */
import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
} from 'vscode-jsonrpc/node';
import { childMemoryVariables, childNodeOptions } from '../../engine/protocol/engineProtocol.ts';
import {
  type IndexRequests,
  type IndexState,
  indexNotices,
  indexRequests,
} from '../../engine/protocol/indexProtocol.ts';
import { type Client, listen, proxy } from '../../engine/protocol/rpc.ts';
import { projectRoot } from '../shared/paths.ts';

const entry = join(projectRoot, 'dist', 'indexer.mjs');

export class IndexProcess {
  readonly requests: Client<IndexRequests, never>;
  readonly #connection: MessageConnection;
  readonly #child: ChildProcess;
  readonly #listeners = new Set<(state: IndexState) => void>();

  private constructor(child: ChildProcess) {
    this.#child = child;
    const connection = createMessageConnection(new IPCMessageReader(child), new IPCMessageWriter(child));
    const changed = (state: IndexState): void => {
      for (const listener of this.#listeners) listener(state);
    };
    listen(connection, indexNotices, { changed }, console.error);
    connection.listen();
    this.#connection = connection;
    const refuse = (method: string, problem: string): Error => new Error(`Invalid answer to '${method}': ${problem}`);
    this.requests = proxy(indexRequests, (method, params) => connection.sendRequest(method, params), refuse);
  }

  static async open(directory: string, database: string): Promise<IndexProcess> {
    const started = new IndexProcess(
      fork(entry, [], {
        execArgv: childNodeOptions,
        env: { ...process.env, ...childMemoryVariables },
        stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      }),
    );
    const folders = [{ name: '', directory }];
    await started.requests.open({ database, folders });
    return started;
  }

  /** Resolves with true when indexing is finished, or with false after `limitMs`. */
  async settled(limitMs: number, onState: (state: IndexState) => void = () => {}): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (whole: boolean) => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
        resolve(whole);
      };
      const timer = setTimeout(() => end(false), limitMs);
      const listener = (state: IndexState) => {
        onState(state);
        if (state.phase === 'idle' && state.pending === 0) end(true);
      };
      this.#listeners.add(listener);
    });
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
    this.#connection.dispose();
  }

  /** Peak resident memory. */
  peakBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8');
    return 1024 * Number(/VmHWM:\s*(\d+)/.exec(status)?.[1]);
  }

  /** Finer than `processorSeconds`, but only for threads that still run. */
  processorMs(): number {
    const tasks = `/proc/${this.#child.pid}/task`;
    const nanoseconds = readdirSync(tasks).map((task) => {
      try {
        return Number(readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]);
      } catch {
        // The thread has ended since.
        return 0;
      }
    });
    return nanoseconds.reduce((sum, own) => sum + own, 0) / 1e6;
  }

  processorSeconds(): number {
    const fields = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    // Fields 14 and 15 of proc(5), user and system time; index 0 is the third field.
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }
}

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
