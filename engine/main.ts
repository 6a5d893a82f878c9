/**
 * The engine process: the extension's child, spoken to over the channel it inherits. It opens no socket, and ends when
 * its parent does. What it writes to stderr is its log.
 */
import { createMessageConnection, IPCMessageReader, IPCMessageWriter } from 'vscode-jsonrpc/node';
import { endWithParent } from './server/parentWatch.ts';
import { messages } from './server/protocol.ts';
import { serve } from './server/rpc.ts';
import { Engine } from './server/service.ts';

const log = (line: string): void => void process.stderr.write(`${line}\n`);

function endAfter(error: unknown): never {
  log(`The engine ends after an unexpected error: ${error instanceof Error ? error.stack : error}`);
  process.exit(1);
}

function main(): void {
  if (!process.send) {
    log('This is the engine process of Hearth, which the extension starts. On the command line, use `hearth`.');
    process.exit(2);
  }
  process.on('uncaughtException', endAfter);
  process.on('unhandledRejection', endAfter);
  process.on('disconnect', () => process.exit(0));
  endWithParent();
  const connection = createMessageConnection(new IPCMessageReader(process), new IPCMessageWriter(process), {
    error: log,
    warn: log,
    info: () => {},
    log: () => {},
  });
  // The parent may go away in the middle of an answer; 'disconnect' then ends the process.
  const lost = (error: unknown): void => log(`A message could not be sent: ${error}`);
  const engine = new Engine({
    onDelta: (delta) => void connection.sendNotification(messages.delta, delta).catch(lost),
    onProgress: (progress) => void connection.sendNotification(messages.progress, progress).catch(lost),
    onModelChange: (change) => void connection.sendNotification(messages.modelChange, change).catch(lost),
  });
  serve(connection, engine, log);
  connection.listen();
}

main();
