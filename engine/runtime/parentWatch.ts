/**
 * Ends this process when its parent is gone. The channel's 'disconnect' says so too, but only when the main thread comes
 * to its event loop, which a long native computation keeps it from: so a thread of its own looks.
 */
import { Worker } from 'node:worker_threads';

const intervalMs = 500;

// Source text, so that the bundle stays one file. Windows keeps the old parent id: there, signal 0 tells whether it lives.
const watch = `
const { workerData } = require('node:worker_threads');
const { parent, intervalMs } = workerData;
const parentLives = () => {
  if (process.platform !== 'win32') return process.ppid === parent;
  try {
    return process.kill(parent, 0);
  } catch (error) {
    return error.code === 'EPERM';
  }
};
setInterval(() => {
  if (!parentLives()) process.kill(process.pid, 'SIGKILL');
}, intervalMs);
`;

/** Does not keep the process alive. */
export function endWithParent(): void {
  const worker = new Worker(watch, {
    eval: true,
    workerData: { parent: process.ppid, intervalMs },
    // It needs next to nothing; without a limit it would reserve as much as the main thread.
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 },
  });
  worker.unref();
}
