/** What every child process of the extension has in common: the channel, the log, and that it ends with its parent. */
import {
  createMessageConnection,
  IPCMessageReader,
  IPCMessageWriter,
  type MessageConnection,
} from 'vscode-jsonrpc/node';
import { endWithParent } from './parentWatch.ts';

export interface ChildTools {
  /** Writes to stderr, which is the process's log. */
  readonly log: (line: string) => void;
  /** For a message that could not be sent: the parent may go away in the middle; 'disconnect' then ends the process. */
  readonly lost: (method: string, error: unknown) => void;
}

/** `serve` gets a connection that does not listen yet. */
export function serveChild(name: string, serve: (connection: MessageConnection, tools: ChildTools) => void): void {
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  const endAfter = (error: unknown): never => {
    log(`The ${name} ends after an unexpected error: ${error instanceof Error ? error.stack : error}`);
    process.exit(1);
  };
  if (!process.send) {
    log(`This is the ${name} process of Hearth, which the extension starts. On the command line, use \`hearth\`.`);
    process.exit(2);
  }
  process.on('uncaughtException', endAfter);
  process.on('unhandledRejection', endAfter);
  // Nothing is left to be said. `process.exit` would break into the native calls of other threads, which end in an abort.
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  endWithParent();
  const connection = createMessageConnection(new IPCMessageReader(process), new IPCMessageWriter(process), {
    error: log,
    warn: log,
    info: () => {},
    log: () => {},
  });
  serve(connection, { log, lost: (method, error) => log(`'${method}' could not be sent: ${error}`) });
  connection.listen();
}
