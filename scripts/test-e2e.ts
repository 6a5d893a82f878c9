import { spawnSync } from 'node:child_process';
import { existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
const todo = '/tmp/hearth/e2e/todo';
let idle = 0;
let n = 0;
while (idle < 120 && !existsSync('/tmp/hearth/e2e/stop')) {
  const lines = readFileSync(todo, 'utf8').split('\n').filter((l) => l.trim() !== '');
  const next = lines.shift();
  if (next === undefined) { idle++; Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000); continue; }
  idle = 0;
  writeFileSync(todo, lines.join('\n'));
  const log = openSync(`/tmp/hearth/e2e/loop-${++n}.log`, 'w');
  console.log(n, next);
  spawnSync(process.execPath, ['scripts/e2eReal.ts', ...next.split(' ')], { stdio: ['ignore', log, log], cwd: '/work/e2e' });
  console.log('done', n);
}
