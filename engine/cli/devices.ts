import { defaultStoreDirectory, derivedDirectory } from '../catalogue/paths.ts';
import { discoverDevices } from '../runtime/backends.ts';
import type { Command } from './command.ts';
import { json } from './session.ts';

export const devices: Command = {
  name: 'devices',
  usage: '',
  summary: 'Lists the GPUs and the CPU, which of them Hearth uses, and why others are not used.',
  options: [],
  async run(values, terminal) {
    values.none();
    const found = await discoverDevices(derivedDirectory(defaultStoreDirectory()));
    if (values.switch('json')) {
      json(terminal, found);
      return;
    }
    for (const { backend, description, notes } of found) {
      const kind = backend === 'webgpu' ? 'GPU' : 'CPU';
      terminal.out(`${kind}  ${[description, ...notes].join('\n     ')}\n`);
    }
    const first = found.find(({ usedByAuto }) => usedByAuto);
    const choice = first?.backend === 'webgpu' ? 'the GPU if the model fits, otherwise the CPU' : 'the CPU';
    terminal.out(`\n--backend auto uses ${choice}.\n`);
  },
};
