import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { type BenchType, writeBenchModel } from '../../../scripts/bench/randomModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

describe('npm run bench', () => {
  it.each<BenchType>(['Q4_0', 'Q8_0'])('measures prompts and decode in %s at two depths', async (type) => {
    const file = join(temporaryFolder(), `tiny-${type}.gguf`);
    writeBenchModel('tiny', type, file);
    const workload = ['--prompt', '8', '--tokens', '2', '--context', '16', '--turns', '1', '--threads', '1'];
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['scripts/bench.ts', '--only', 'speed', '--model', file, ...workload],
      // Without a peer, also where one is installed.
      { cwd: root, env: { ...process.env, HEARTH_LLAMA_BENCH: 'none' } },
    );
    expect(stdout).not.toContain('Not measured');
    const speeds = [...stdout.matchAll(/^\| (prefill of 8|decode of 2) after (0|16) \| ([\d,.]+) \|/gm)];
    expect(speeds.map(([, what, depth]) => `${what} after ${depth}`).sort()).toEqual([
      'decode of 2 after 0',
      'decode of 2 after 16',
      'prefill of 8 after 0',
      'prefill of 8 after 16',
    ]);
    for (const [, , , speed] of speeds) expect(Number(speed?.replace(',', ''))).toBeGreaterThan(0);
  });
});
