/** `node scripts/readme-settings.ts` writes README.md's settings table from package.json. A test fails if it is outdated. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { projectRoot } from './shared/paths.ts';

const manifest = z.object({
  contributes: z.object({
    configuration: z.array(
      z.object({
        title: z.string(),
        properties: z.record(z.string(), z.object({ default: z.unknown(), markdownDescription: z.string() })),
      }),
    ),
  }),
});
const [begin, end] = ['<!-- settings: made by scripts/readme-settings.ts -->', '<!-- end of settings -->'];

const readJson = (name: string): unknown => JSON.parse(readFileSync(join(projectRoot, name), 'utf8'));

/** The Markdown table: one line per setting with its default and the first sentence of its description. */
export function settingsTable(): string {
  const { contributes } = manifest.parse(readJson('package.json'));
  const texts = z.record(z.string(), z.string()).parse(readJson('package.nls.json'));
  const text = (key: string): string => texts[key.replaceAll('%', '')] ?? key;
  const rows = contributes.configuration.flatMap(({ properties }) =>
    Object.entries(properties).map(
      ([name, property]) =>
        `| \`${name}\` | ${shown(property.default)} | ${firstSentence(text(property.markdownDescription))} |`,
    ),
  );
  return ['| Setting | Default | Meaning |', '| --- | --- | --- |', ...rows].join('\n');
}

function shown(value: unknown): string {
  if (value === '' || value === null || value === undefined) return '';
  return typeof value === 'object' ? 'all but plain text' : `\`${value}\``;
}

/** Text up to the first full stop before a space. Command links are removed, because they only work in the settings editor. */
const firstSentence = (text: string): string =>
  (text.split(/(?<=\.)\s/)[0] ?? text).replaceAll(/\[([^\]]*)\]\(command:[^)]*\)/g, '$1');

/** Returns README.md with the current table. @throws Error if the markers are missing. */
export function withSettings(readme: string): string {
  const [before, rest] = readme.split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error('README.md has no markers for the settings.');
  return `${before}${begin}\n${settingsTable()}\n${end}${after}`;
}

if (import.meta.main) {
  const path = join(projectRoot, 'README.md');
  writeFileSync(path, withSettings(readFileSync(path, 'utf8')));
}
