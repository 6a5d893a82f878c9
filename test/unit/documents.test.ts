/** Documents name only existing files: files are moved and merged more often than documents are read. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const folders = ['engine', 'extension', 'media', 'test', 'scripts', 'docs'];
const files = folders.flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) =>
    `/${folder}/${name}`.replaceAll('\\', '/'),
  ),
);
const atTop = readdirSync(root).map((name) => `/${name}`);
const documents = [
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`),
];

describe('a document', () => {
  it.each(documents.filter((name) => name.endsWith('.md')))('%s names source files that exist', (name) => {
    const text = readFileSync(join(root, name), 'utf8');
    const named = Array.from(text.matchAll(/`([\w./-]+\.ts)`/g), ([, file = '']) => file);
    const missing = named.filter((file) => ![...files, ...atTop].some((own) => own.endsWith(`/${file}`)));
    expect(missing).toEqual([]);
  });
});
