import { describe, expect, it } from 'vitest';
import { workspaceContext } from '../../../engine/cli/chat.ts';
import { folderOf, repositoryOf } from '../index/folder.ts';

/** Words that only one of the files has. */
const other = (i: number): string => Array.from({ length: 20 }, (_, j) => `w${i}x${j}`).join(' ');

/** A word is a token. */
const countTokens = (texts: string[]): number[] => texts.map((text) => text.split(/\s+/).filter(Boolean).length);
const reader = { contextTokens: 4096, backend: 'webgpu', countTokens };

async function contextOf(files: Record<string, string>, question: string, of = reader) {
  return workspaceContext(await repositoryOf(await folderOf(files)), question, of);
}

describe('the context of a question about a folder', () => {
  it('is what its index finds, with line numbers that an answer can cite', async () => {
    const files = {
      'src/retryPolicy.ts': 'export const attempts = 3;',
      'src/colours.ts': 'export const red = 1;',
      'notes.md': 'How often do we retry a download?',
    };
    const { text, files: shown, note } = await contextOf(files, 'How many attempts has the retry policy?');
    expect(shown[0]).toBe('src/retryPolicy.ts');
    expect(shown).not.toContain('src/colours.ts');
    expect(text).toContain('`src/retryPolicy.ts:1-1`:\n\n```ts\nexport const attempts = 3;\n```');
    expect(text).toContain('`path:line`');
    expect(note).toContain('src/retryPolicy.ts:1-1');
  });

  it('quotes the relevant chunk of a long file instead of its start', async () => {
    const functions = Array.from({ length: 60 }, (_, i) => `function f${i}() {\n  return ${i};\n}\n`);
    functions[40] = 'function closeValve() {\n  shut();\n}\n';
    const { text } = await contextOf({ 'plant.ts': functions.join('\n') }, 'What does closeValve do?');
    expect(text).toContain('closeValve() {');
    expect(text).not.toContain('function f0()');
  });

  it('stays within the budget that the extension has for the same model', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 50 }, (_, i) => [`valve${i}.ts`, `${`valve${i} valve `.repeat(50)}${other(i)}`]),
    );
    const { text } = await contextOf(files, 'valve');
    const [tokens = 0] = countTokens([text]);
    expect(tokens).toBeGreaterThan(0.2 * reader.contextTokens);
    expect(tokens).toBeLessThan(0.5 * reader.contextTokens);
  });

  it('has the repository map if the question is about the whole', async () => {
    const { text } = await contextOf(
      { 'README.md': 'Paints.', 'src/colours.ts': 'const x = 1;' },
      'What is this project?',
    );
    expect(text).toMatch(/`Repository map`:[\s\S]*colours\.ts/);
    expect(text).toContain('Paints.');
  });

  it('says that the question is sent without context if nothing is found', async () => {
    const { files, note, text } = await contextOf({ 'a.ts': 'let x = 1;' }, 'zebra?');
    expect([files, text]).toEqual([[], '']);
    expect(note).toContain('sent without context');
  });
});
