/** Writes the table of settings in README.md from package.json: `node scripts/readme-settings.ts`. A test fails when it is old. */
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

/** The table as Markdown, a setting a line: its first sentence, and its default. */
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

/** Up to the first full stop that is followed by a space; links to commands work in the settings editor alone. */
const firstSentence = (text: string): string =>
  (text.split(/(?<=\.)\s/)[0] ?? text).replaceAll(/\[([^\]]*)\]\(command:[^)]*\)/g, '$1');

/** README.md with the table as package.json has it. @throws Error where the marks are missing. */
export function withSettings(readme: string): string {
  const [before, rest] = readme.split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error('README.md has no place for the settings.');
  return `${before}${begin}\n${settingsTable()}\n${end}${after}`;
}

if (import.meta.main) {
  const path = join(projectRoot, 'README.md');
  writeFileSync(path, withSettings(readFileSync(path, 'utf8')));
}
