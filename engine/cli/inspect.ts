import { detectMachine } from '../catalogue/fit.ts';
import { inspectionText, usualContexts } from '../catalogue/inspectArchitecture.ts';
import { type InspectedModel, inspectModel } from '../catalogue/inspectModel.ts';
import { openStore } from '../catalogue/store.ts';
import { invalidInput } from '../errors.ts';
import type { Command } from './command.ts';
import { json } from './session.ts';

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
