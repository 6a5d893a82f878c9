/** Chat templates as publishers gave them out, which are not ours to redistribute. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fixtureFile, sharedFile } from '../shared.ts';
import { readJson } from '../tokenizer/vocabularies.ts';

export const templateCache = fileURLToPath(new URL('../../../node_modules/.cache/hearth-templates', import.meta.url));

/** llama.cpp's vocabularies, each with texts and their ids. */
export const vocabularyCache = join(templateCache, 'vocabularies');

/** What is rendered by Python's jinja2 and by us, by a name of its own. */
export const conversations = readJson<Record<string, Record<string, unknown>>>(
  fixtureFile('text/jinja/conversations.json'),
);

/** Of a template: its digest, and of each conversation that of Python's text, or `null` where Python refuses it. */
export interface RecordedTemplate {
  readonly source: string;
  readonly renders: Readonly<Record<string, string | null>>;
}

export const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 24);

/** The templates that are here, by name: those of `../shared/models`, and of llama.cpp once they were fetched. */
export function templatesHere(): Map<string, string> {
  const found = new Map<string, string>();
  const models = sharedFile('models');
  for (const model of existsSync(models) ? readdirSync(models).sort() : []) addAll(found, join(models, model), model);
  addAll(found, templateCache, 'llama.cpp');
  return found;
}

function addAll(found: Map<string, string>, folder: string, label: string): void {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) return;
  for (const name of readdirSync(folder).sort()) {
    if (name.endsWith('.jinja')) found.set(`${label}/${name}`, readFileSync(join(folder, name), 'utf8'));
  }
}
