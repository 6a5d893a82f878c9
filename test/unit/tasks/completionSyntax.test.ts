import { describe, expect, it } from 'vitest';
import { withoutBreaking } from '../../../engine/tasks/complete.ts';

/** `|` is the cursor. */
async function offered(file: string, text: string, path = 'a.ts', isCutOff = false): Promise<string> {
  const [prefix = '', suffix = ''] = file.split('|');
  return withoutBreaking({ text, complete: !isCutOff }, { prefix, suffix, path }, isCutOff);
}

describe('a completion in a file that parses', () => {
  it('is offered unchanged if the file still parses', async () => {
    expect(await offered('const a = 1;\n|\n', 'const b = a + 1;')).toBe('const b = a + 1;');
  });

  it('gets its brackets closed if it was cut off', async () => {
    expect(await offered('run();\n|\n', 'call(a, [b', 'a.ts', true)).toBe('call(a, [b])');
    expect(await offered('  |\n', 'if (a) {\n    b();', 'a.js', true)).toBe('if (a) {\n    b();\n  }');
  });

  it('drops lines that break the syntax', async () => {
    expect(await offered('|\n', 'const b = 1;\nconst = ;')).toBe('const b = 1;');
  });

  it('drops a second statement after a complete one', async () => {
    expect(await offered('x = |\n', '1 y = 2', 'a.py')).toBe('1');
    expect(await offered('const x = |\n', 'f(1) const y = 2;')).toBe('f(1)');
  });

  it('is not offered when nothing of it parses', async () => {
    expect(await offered('const a = 1;\n|\n', ') => {{ ] of')).toBe('');
  });

  it('behaves the same in Python', async () => {
    expect(await offered('def f():\n    |\n', 'return g(1, [2', 'a.py', true)).toBe('return g(1, [2])');
  });
});

describe('a completion that was cut at a suspected repetition', () => {
  it('is shown uncut where only that parses', async () => {
    const shaped = { text: 'a[b', complete: true, uncut: 'a[b]' };
    expect(await withoutBreaking(shaped, { prefix: 'f(', suffix: ');', path: 'a.ts' }, false)).toBe('a[b]');
  });
});

describe('a completion elsewhere', () => {
  it('in a file that does not parse is offered as long as it makes nothing worse', async () => {
    expect(await offered('const a = |\n', 'b + 1;')).toBe('b + 1;');
  });

  it('in a language without a grammar is offered as it is', async () => {
    expect(await offered('|', '(((', 'notes.txt')).toBe('(((');
  });
});
