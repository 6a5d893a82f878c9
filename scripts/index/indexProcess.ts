/** The indexer as the editor starts it: a process of its own, asked over its channel, its cost read from Linux's /proc. */
import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
} from 'vscode-jsonrpc/node';
import { type IndexState, indexMessages } from '../../engine/protocol/indexProtocol.ts';
import { projectRoot } from '../shared/paths.ts';

export class IndexProcess {
  readonly connection: MessageConnection;
  readonly #child: ChildProcess;
  readonly #listeners = new Set<(state: IndexState) => void>();

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.connection = createMessageConnection(new IPCMessageReader(child), new IPCMessageWriter(child));
    this.connection.onNotification(indexMessages.changed, (state) => {
      for (const listener of this.#listeners) listener(state);
    });
    this.connection.listen();
  }

  static async open(directory: string, database: string): Promise<IndexProcess> {
    const started = new IndexProcess(
      fork(join(projectRoot, 'engine', 'indexer.ts'), [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] }),
    );
    const folders = [{ name: '', directory }];
    await started.connection.sendRequest(indexMessages.open, { database, folders });
    return started;
  }

  /** Resolves when nothing is left to do; false when `limitMs` pass before. */
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
    this.connection.dispose();
  }

  /** The most that was resident at once. */
  peakBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8');
    return 1024 * Number(/VmHWM:\s*(\d+)/.exec(status)?.[1]);
  }

  processorSeconds(): number {
    const fields = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    // Fields 14 and 15 of proc(5), counted from the third: user and system time.
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }
}

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
