import { describe, expect, it } from 'vitest';
import { place } from '../../../extension/edits/placement.ts';

const file = `import x

class A:
    def one(self):
        return 1

    def two(self):
        return 2


def last():
    pass
`;
const symbols = [
  { name: 'A', start: 2, end: 7 },
  { name: 'one', start: 3, end: 4 },
  { name: 'two', start: 6, end: 7 },
  { name: 'last', start: 10, end: 11 },
];
const nowhere = { selection: undefined, symbols: [], cursorLine: 0 };

describe('the place of a code block in its file', () => {
  it('replaces the symbol that it defines, with its indentation', () => {
    const code = 'def two(self):\n    """Two."""\n    return 2';
    expect(place(file, code, { ...nowhere, symbols })).toBe(
      file.replace('    def two(self):\n', '    def two(self):\n        """Two."""\n'),
    );
  });

  it('replaces a class as a whole, not its first member', () => {
    const code = 'class A:\n    pass';
    expect(place(file, code, { ...nowhere, symbols })).toBe(
      `import x\n\nclass A:\n    pass\n\n\ndef last():\n    pass\n`,
    );
  });

  it('does not confuse a symbol with one whose name starts the same', () => {
    const code = 'def last_but_one():\n    return 0';
    const at = { ...nowhere, symbols, cursorLine: 12 };
    expect(place(file, code, at)).toBe(`${file}def last_but_one():\n    return 0\n`);
  });

  it('replaces the lines between its first and last line', () => {
    const code = 'def one(self):\n    a = 1\n    return 1';
    expect(place(file, code, nowhere)).toBe(file.replace('        return 1', '        a = 1\n        return 1'));
  });

  it('replaces each of several definitions, and inserts a new one after the one before it', () => {
    const filler = Array.from({ length: 30 }, (_, i) => `x${i} = ${i}`).join('\n');
    const python = `def a():\n    return 1\n\n\n${filler}\n\n\n@cached\ndef b():\n    return 2\n`;
    const code =
      '# First.\ndef a():\n    return 10\n\n\ndef new():\n    return 0\n\n\n@cached\ndef b():\n    return 20';
    const at = [
      { name: 'a', start: 0, end: 1 },
      { name: 'b', start: 36, end: 38 },
    ];
    const expected = python
      .replace('def a():\n    return 1\n', '# First.\ndef a():\n    return 10\n\ndef new():\n    return 0\n')
      .replace('return 2', 'return 20');
    expect(place(python, code, { ...nowhere, symbols: at, cursorLine: 20 })).toBe(expected);
    const script = `${filler}\nfunction a() {\n  return 1;\n}\nfunction b() {\n  return 2;\n}\n`;
    const both = 'function b() {\n  return 20;\n}\nfunction a() {\n  return 10;\n}';
    expect(place(script, both, nowhere)).toBe(
      script.replace('return 1;', 'return 10;').replace('return 2;', 'return 20;'),
    );
  });

  it('replaces the whole file if it is a version of it', () => {
    const code = file.replace('import x', 'import y').replace('return 1', 'return 11');
    expect(place(file, code, { ...nowhere, cursorLine: 5 })).toBe(code);
  });

  it('replaces the selection if it resembles nothing else', () => {
    const code = 'print("other")';
    expect(place(file, code, { ...nowhere, selection: { start: 10, end: 11 } })).toBe(
      file.replace('def last():\n    pass', 'print("other")'),
    );
  });

  it('goes to the cursor if it is new', () => {
    expect(place('a\nb', 'new', { ...nowhere, cursorLine: 1 })).toBe('a\nnew\nb');
    expect(place('', 'new', { ...nowhere, cursorLine: 9 })).toBe('\nnew');
  });

  it.each([
    ['other parameters', 'def two(self, more):\n    return 3'],
    ['a comment before it', '# Two.\ndef two(self):\n    return 3'],
    ['an import before it', 'import math\n\ndef two(self):\n    return 3'],
    ['another modifier', 'async def two(self):\n    return 3'],
  ])('replaces the function with %s, also without symbols', (_, code) => {
    for (const known of [symbols, []])
      expect(place(file, code, { ...nowhere, symbols: known })).not.toContain('return 2');
  });

  it('ends a bracketed function at its bracket', () => {
    const before = 'a();\nexport function f(\n  x,\n) {\n  if (x) {\n  } else {\n  }\n}\nb();\n';
    expect(place(before, 'function f() {}', nowhere)).toBe('a();\nfunction f() {}\nb();\n');
  });

  it("keeps the file's line ends", () => {
    expect(place('a\r\nb\r\nc', 'x\ny', { ...nowhere, cursorLine: 1 })).toBe('a\r\nx\r\ny\r\nb\r\nc');
  });
});
