/** Commands about models on this machine: the store, inspection and saved KV caches. */
import { defaultModelId } from '../catalogue/catalogue.ts';
import { defaultStoreDirectory, snapshotDirectory } from '../catalogue/files.ts';
import { detectMachine } from '../catalogue/fit.ts';
import { inspectionText, usualContexts } from '../catalogue/inspectArchitecture.ts';
import { type InspectedModel, inspectModel } from '../catalogue/inspectModel.ts';
import { openStore } from '../catalogue/store.ts';
import { HearthError, invalidInput, showBytes } from '../errors.ts';
import { clearSnapshots, listSnapshots } from '../kv/snapshotFile.ts';
import type { ModelEntry } from '../protocol/models.ts';
import { Engine } from '../runtime/service.ts';
import { type Command, ProgressLine, type Terminal, type Values } from './command.ts';
import { json, report, sizeOf } from './session.ts';

type Action = (engine: Engine, values: Values, terminal: Terminal) => Promise<void>;

const actions: Readonly<Record<string, Action>> = { list, files, pull, verify, remove, recommend, add };

export const models: Command = {
  name: 'models',
  usage: 'list | files OWNER/REPOSITORY | pull [ID] | verify [ID] | remove ID | recommend | add PATH',
  summary:
    'Lists, downloads, verifies and removes models. ID: an id from the list, or OWNER/REPOSITORY[:QUANT] on the Hugging Face hub. Default: the default model.',
  options: [],
  async run(values, terminal) {
    const [name = ''] = values.positionals;
    const action = Object.hasOwn(actions, name) ? actions[name] : undefined;
    if (!action) throw invalidInput(`'hearth models' accepts ${Object.keys(actions).join(', ')}, not '${name}'.`);
    const progress = new ProgressLine(terminal);
    const engine = new Engine({ onDelta: () => {}, onProgress: (step) => report(progress, step) });
    try {
      await action(engine, values, terminal);
    } finally {
      progress.end();
    }
  },
};

async function list(engine: Engine, values: Values, terminal: Terminal): Promise<void> {
  argument(values, { required: false, last: 0 });
  const entries = await engine.models.list();
  if (values.switch('json')) json(terminal, entries);
  else for (const entry of entries) terminal.out(`${describe(entry)}\n`);
}

async function recommend(engine: Engine, values: Values, terminal: Terminal): Promise<void> {
  argument(values, { required: false, last: 0 });
  const entry = await engine.models.recommend();
  if (values.switch('json')) json(terminal, entry);
  else terminal.out(`${describe(entry)}\n`);
}

async function files(engine: Engine, values: Values, terminal: Terminal): Promise<void> {
  const repository = argument(values, { required: true, last: 1 });
  const offers = await engine.models.offers(repository, { signal: terminal.signal });
  if (values.switch('json')) return json(terminal, offers);
  for (const { id, bytes, files: count, fit } of offers) {
    terminal.out(`${id}\n  ${showBytes(bytes)}${count === 1 ? '' : ` in ${count} files`}\n  ${fit.reason}\n`);
  }
}

async function pull(engine: Engine, values: Values, terminal: Terminal): Promise<void> {
  const entry = await engine.models.pull(argument(values, { required: false, last: 1 }), { signal: terminal.signal });
  show(entry, 'is on this machine', values, terminal);
}

async function add(engine: Engine, values: Values, terminal: Terminal): Promise<void> {
  const entry = await engine.models.add(argument(values, { required: true, last: 1 }), terminal.signal);
  show(entry, 'is on this machine', values, terminal);
}

async function verify(engine: Engine, values: Values, terminal: Terminal): Promise<void> {
  const entry = await engine.models.verify(argument(values, { required: false, last: 1 }), terminal.signal);
  show(entry, 'is intact', values, terminal);
}

async function remove(engine: Engine, values: Values, terminal: Terminal): Promise<void> {
  const entry = await engine.models.remove(argument(values, { required: true, last: 1 }));
  show(entry, 'was removed', values, terminal);
}

/** Returns the argument after the action. */
function argument(values: Values, { required, last }: { readonly required: boolean; readonly last: number }): string {
  const [action, first, ...others] = values.positionals;
  const extra = last === 0 ? first : others[0];
  if (extra !== undefined) throw invalidInput(`Unexpected argument '${extra}'.`);
  if (first === undefined && required)
    throw new HearthError('invalid-input', `'hearth models ${action}' needs an argument.`);
  return first ?? defaultModelId;
}

function show(entry: ModelEntry, what: string, values: Values, terminal: Terminal): void {
  if (values.switch('json')) json(terminal, entry);
  else terminal.out(`${sizeOf(entry)} ${what}${entry.path === undefined ? '.' : `: ${entry.path}`}\n`);
}

function describe(entry: ModelEntry): string {
  const state = { absent: '', partial: ', partially downloaded', present: ', on this machine' }[entry.state];
  const recommended =
    entry.recommendedFor.length > 0 ? ` (recommended here for ${entry.recommendedFor.join(' and ')})` : '';
  const place = entry.owner === undefined ? state : `, used in place from ${entry.owner}`;
  return `${entry.id}${recommended}\n  ${sizeOf(entry)}, ${entry.licence}${place}\n  ${entry.fit.reason}`;
}

export const inspect: Command = {
  name: 'inspect',
  usage: 'MODEL…',
  summary:
    'Describes a model, or compares several, without loading them: catalogue ids, files, folders or a config.json.',
  options: [],
  async run(values, terminal) {
    if (values.positionals.length === 0) throw invalidInput('MODEL is missing. Usage: hearth inspect MODEL…');
    const asked = values.count('context');
    const contexts = [...new Set([...usualContexts, ...(asked === undefined ? [] : [asked])])].sort((a, b) => a - b);
    const cachePrecision = values.cachePrecision() ?? 'f16';
    const options = { contexts, cachePrecision, hardware: await detectMachine() };
    const store = openStore();
    const models: InspectedModel[] = [];
    // Sequential, because each model may read tens of megabytes of vocabulary.
    for (const name of values.positionals) models.push(await inspectModel(store, name, options));
    if (values.switch('json')) json(terminal, models);
    else terminal.out(inspectionText(models));
  },
};

type CacheAction = (directory: string, values: Values, terminal: Terminal) => Promise<void>;

const cacheActions: Readonly<Record<string, CacheAction>> = { list: listSaved, clear };

export const cache: Command = {
  name: 'cache',
  usage: 'list | clear',
  summary: 'Lists or removes the saved KV caches of long prompts.',
  options: [],
  async run(values, terminal) {
    const name = values.only('list or clear');
    const action = Object.hasOwn(cacheActions, name) ? cacheActions[name] : undefined;
    if (!action) throw invalidInput(`'hearth cache' accepts ${Object.keys(cacheActions).join(' or ')}, not '${name}'.`);
    await action(snapshotDirectory(defaultStoreDirectory()), values, terminal);
  },
};

async function listSaved(directory: string, values: Values, terminal: Terminal): Promise<void> {
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
