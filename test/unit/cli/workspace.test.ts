import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { workspaceContext } from '../../../engine/cli/workspace.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hearth-workspace-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function files(contents: Record<string, string | Uint8Array>): Promise<void> {
  for (const [path, content] of Object.entries(contents)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content);
  }
}

describe('the context of a question about a folder', () => {
  it('lists the files and shows those that share words with the question', async () => {
    await files({
      'src/retryPolicy.ts': 'export const attempts = 3;',
      'src/colours.ts': 'export const red = 1;',
      'notes.md': 'How often do we retry a download?',
    });
    const { text, files: shown } = await workspaceContext(folder, 'How many attempts has the retry policy?', 4096);
    expect(text).toContain('src/ colours.ts retryPolicy.ts');
    expect(shown).toEqual(['src/retryPolicy.ts', 'notes.md']);
    expect(text).toContain('export const attempts = 3;');
    expect(text).not.toContain('red = 1');
  });

  it('shows the stretch of a long file that fits, with its lines', async () => {
    const lines = Array.from({ length: 300 }, (_, i) => (i === 210 ? 'function closeValve() {}' : `let x${i};`));
    await files({ 'plant.ts': lines.join('\n') });
    const { text } = await workspaceContext(folder, 'Who calls closeValve?', 4096);
    expect(text).toContain('closeValve() {}');
    expect(text).toMatch(/plant\.ts, lines (18|20)1–2[24]0/);
    expect(text).not.toContain('let x0;');
  });

  it('stays within its share of the context', async () => {
    await files(Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`valve${i}.ts`, 'valve '.repeat(500)])));
    const { text } = await workspaceContext(folder, 'valve', 2048);
    expect(text.length).toBeLessThan(2048 * 1.6);
  });

  it('leaves out dependencies, hidden and binary files', async () => {
    await files({
      'node_modules/a/valve.js': 'valve',
      '.secret/valve.ts': 'valve',
      'valve.bin': Uint8Array.of(0, 1, 2),
      'valve.ts': 'valve',
    });
    const { files: shown } = await workspaceContext(folder, 'valve', 4096);
    expect(shown[0]).toBe('valve.ts');
    expect(shown.join()).not.toContain('node_modules');
    expect(shown.join()).not.toContain('secret');
    expect(shown.join()).not.toContain('bin');
  });

  it('is just the listing when nothing matches', async () => {
    await files({ 'a.ts': 'x' });
    const { files: shown, note } = await workspaceContext(folder, 'zebra?', 4096);
    expect(shown).toEqual([]);
    expect(note).toContain('only the names');
  });
});
