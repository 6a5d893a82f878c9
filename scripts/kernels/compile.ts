/**
 * Runs on a driver without its card (cards.ts). Compiles every kernel of the models' plans and prints a marker to stderr before
 * each, so that the driver's output can be assigned to the kernel. Writes the list of kernels to a file.
 *
 *     node compile.ts OUT.json ROWS [MODEL…]     ROWS: 1,4,prompt
 */
import { writeFileSync, writeSync } from 'node:fs';
import { Gpu } from '../../engine/backend/webgpu/device/gpu.ts';
import { models } from './models.ts';
import { recordPlans } from './plans.ts';

const [out = '', rows = '1', ...names] = process.argv.slice(2);
const counts = rows.split(',').map((count) => (count === 'prompt' ? count : Number(count)));
const gpu = await Gpu.open({ compileOnly: true });
const numbers = new Map<string, number>();
const failures: Record<string, string> = {};

/** Marks the start of this kernel's output. Kernels are compiled one at a time. */
const mark = (id: number | string) => writeSync(2, `\n@@@ ${id}\n`);

const plans = [];
for (const model of models.filter(({ name }) => names.length === 0 || names.includes(name))) {
  for (const { dispatches, ...plan } of await recordPlans(model, gpu.capabilities, counts)) {
    const kernels = [];
    for (const { source, groups } of dispatches) {
      const { code, label, weightsPerStep, multipliesPerStep } = source;
      let id = numbers.get(code);
      if (id === undefined) {
        id = numbers.size;
        numbers.set(code, id);
        mark(id);
        await gpu.kernel(source).catch((error: Error) => {
          failures[label] = error.message;
        });
        mark('end');
      }
      kernels.push({ id, label, groups, weightsPerStep, multipliesPerStep });
    }
    plans.push({ ...plan, kernels });
  }
}
writeFileSync(out, JSON.stringify({ plans, failures, capabilities: gpu.capabilities }));
// The shims have no device to wait for.
process.exit(0);
