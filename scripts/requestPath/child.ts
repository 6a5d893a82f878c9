/** Loaded before engine or indexer: observes it between two SIGUSR2, and writes the result to HEARTH_OBSERVED. */
import { writeFileSync } from 'node:fs';
import { StatementSync } from 'node:sqlite';
import treeSitter from '@vscode/tree-sitter-wasm';
import { Scheduler } from '../../engine/scheduler/scheduler.ts';
import { BytePairTokenizer } from '../../engine/tokenizer/bytePairTokenizer.ts';
import { Observer } from './observe.ts';

const observer = new Observer();
const watched = new Set<object>();
observer.watch(Scheduler.prototype, 'submit', ({ decoder }, [request]) => {
  const backend: object = Object.getPrototypeOf(decoder);
  if (!watched.has(backend)) observer.watch(backend as { run: unknown }, 'run');
  watched.add(backend);
  if (typeof request === 'object' && request !== null) observer.watch(request as { deliver: unknown }, 'deliver');
});
observer.watch(BytePairTokenizer.prototype, 'encode');
observer.watch(treeSitter.Parser.prototype, 'parse');
observer.watch(StatementSync.prototype, 'all');

const file = process.env['HEARTH_OBSERVED'] ?? '';
let observing = false;
process.on('SIGUSR2', async () => {
  const observed = observing ? await observer.stop() : await observer.start();
  observing = !observing;
  writeFileSync(`${file}.${observing ? 'started' : 'stopped'}`, JSON.stringify(observed ?? null));
});
