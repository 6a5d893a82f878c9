import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { matmulMs } from '../../../engine/backend/onnx/graphRun.ts';
import { measuredThreads } from '../../../engine/backend/onnx/index.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let directory: string;
beforeEach(async () => {
  directory = temporaryFolder();
});

/** Milliseconds by number of threads, and which were asked for. */
function machine(ms: Readonly<Record<number, number>>) {
  const asked: number[] = [];
  const measure = async (threads: number): Promise<number> => {
    asked.push(threads);
    return ms[threads] ?? Number.NaN;
  };
  return { asked, measure };
}

describe('measured thread counts', () => {
  it('are the fastest of those tried', async () => {
    const { asked, measure } = machine({ 8: 10, 16: 12, 4: 6 });
    expect(await measuredThreads(directory, measure, [8, 16, 4])).toBe(4);
    expect(asked).toEqual([8, 16, 4]);
  });

  it('are one for each core if nothing is clearly faster', async () => {
    expect(await measuredThreads(directory, machine({ 8: 10, 16: 9.2, 4: 11 }).measure, [8, 16, 4])).toBe(8);
  });

  it('are measured once for a machine', async () => {
    const { asked, measure } = machine({ 8: 10, 16: 5 });
    expect(await measuredThreads(directory, measure, [8, 16])).toBe(16);
    expect(await measuredThreads(directory, measure, [8, 16])).toBe(16);
    expect(asked).toEqual([8, 16]);
    expect(await measuredThreads(directory, machine({ 8: 10, 4: 20 }).measure, [8, 4])).toBe(8);
  });

  it('are measured again if the stored value is damaged', async () => {
    const file = join(directory, 'threads.json');
    await measuredThreads(directory, machine({ 8: 10, 16: 5 }).measure, [8, 16]);
    for (const damage of ['', '{', '{"machine":1}', (await readFile(file, 'utf8')).replace('16}', '-1}')]) {
      await writeFile(file, damage);
      const { asked, measure } = machine({ 8: 10, 16: 5 });
      expect(await measuredThreads(directory, measure, [8, 16])).toBe(16);
      expect(asked).toEqual([8, 16]);
    }
  });

  it('need no measurement with a single candidate', async () => {
    expect(await measuredThreads(directory, machine({}).measure, [1])).toBe(1);
  });

  it('come from ONNX Runtime itself', async () => {
    const threads = await measuredThreads(directory, matmulMs, [2, 1]);
    expect([1, 2]).toContain(threads);
    expect(JSON.parse(await readFile(join(directory, 'threads.json'), 'utf8'))).toMatchObject({ threads });
  });
});
