import { defaultStoreDirectory, snapshotDirectory } from '../catalogue/paths.ts';
import { invalidInput } from '../errors.ts';
import { clearSnapshots, listSnapshots } from '../kv/snapshotFile.ts';
import { showBytes } from '../units.ts';
import type { Command, Values } from './command.ts';
import { json } from './session.ts';
import type { Terminal } from './terminal.ts';

type Action = (directory: string, values: Values, terminal: Terminal) => Promise<void>;

const actions: Readonly<Record<string, Action>> = { list, clear };

export const cache: Command = {
  name: 'cache',
  usage: 'list | clear',
  summary: 'Lists or removes the saved KV caches of long prompts.',
  options: [],
  async run(values, terminal) {
    const name = values.only('list or clear');
    const action = Object.hasOwn(actions, name) ? actions[name] : undefined;
    if (!action) throw invalidInput(`'hearth cache' accepts ${Object.keys(actions).join(' or ')}, not '${name}'.`);
    await action(snapshotDirectory(defaultStoreDirectory()), values, terminal);
  },
};

async function list(directory: string, values: Values, terminal: Terminal): Promise<void> {
  const entries = (await listSnapshots(directory)).map(({ path, bytes, usedMs, header: { model, tokens } }) => ({
    path,
    model,
    tokens: tokens.length,
    bytes,
    used: new Date(usedMs).toISOString(),
  }));
  if (values.switch('json')) return json(terminal, entries);
  for (const { path, model, tokens, bytes, used } of entries) {
    terminal.out(`${model}, ${tokens} tokens, ${showBytes(bytes)}, last used ${used}\n  ${path}\n`);
  }
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  terminal.out(`${entries.length} prompts, ${showBytes(total)}, in ${directory}\n`);
}

async function clear(directory: string, values: Values, terminal: Terminal): Promise<void> {
  const removed = await clearSnapshots(directory);
  if (values.switch('json')) json(terminal, removed);
  else terminal.out(`Removed ${removed.files} prompts, ${showBytes(removed.bytes)}.\n`);
}
