/**
 * The thread that runs the graph. onnxruntime-node computes on the thread that calls `session.run`, and the engine has
 * to hear a cancellation meanwhile.
 */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { GraphThread, messageOf } from './graphThread.ts';
import type { FromThread, ToThread } from './messages.ts';
import { productMs } from './productTime.ts';

function listen(port: MessagePort): void {
  let thread: GraphThread | undefined;
  // A message is handled when the ones before it are.
  let previous: Promise<void> = Promise.resolve();
  const handle = async (message: ToThread): Promise<FromThread | undefined> => {
    if (message.kind === 'measure')
      return { kind: 'done', values: [Float32Array.of(await productMs(message.threads))], caches: [] };
    if (message.kind !== 'load') return thread?.handle(message);
    thread = await GraphThread.load(message.graph);
    return { kind: 'done', values: [], caches: [] };
  };
  port.on('message', (message: ToThread) => {
    previous = previous.then(async () => {
      const answer = await handle(message).catch(
        (error: unknown): FromThread => ({ kind: 'failed', message: messageOf(error), caches: [] }),
      );
      if (answer) port.postMessage(answer, transferred(answer));
      if (message.kind === 'end') port.close();
    });
  });
}

/** Memory that is handed over, not copied. */
function transferred(answer: FromThread): ArrayBuffer[] {
  if (answer.kind === 'failed') return [];
  const { values, saved } = answer;
  return [...values, ...(saved ? [saved] : [])].map(({ buffer }) => buffer as ArrayBuffer);
}

if (parentPort) listen(parentPort);
