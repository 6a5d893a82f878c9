import { discoverDevices } from '../runtime/backends.ts';
import type { Command } from './command.ts';
import { json } from './session.ts';

export const devices: Command = {
  name: 'devices',
  usage: '',
  summary: 'Says what this machine has to compute with, what is used, and why something is not.',
  options: [],
  async run(values, terminal) {
    values.none();
    const found = await discoverDevices();
    if (values.switch('json')) {
      json(terminal, found);
      return;
    }
    for (const { backend, description, notes } of found) {
      const kind = backend === 'webgpu' ? 'GPU' : 'CPU';
      terminal.out(`${kind}  ${[description, ...notes].join('\n     ')}\n`);
    }
    const first = found.find(({ usedByAuto }) => usedByAuto);
    const choice = first?.backend === 'webgpu' ? 'the GPU for models that fit it, and else the CPU' : 'the CPU';
    terminal.out(`\n--backend auto takes ${choice}.\n`);
  },
};
