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

describe('code of an answer in its file', () => {
  it('takes the place of the symbol that it defines, indented as that was', () => {
    const code = 'def two(self):\n    """Two."""\n    return 2';
    expect(place(file, code, { ...nowhere, symbols })).toBe(
      file.replace('    def two(self):\n', '    def two(self):\n        """Two."""\n'),
    );
  });

  it('takes the place of a class as a whole, not of the first thing in it', () => {
    const code = 'class A:\n    pass';
    expect(place(file, code, { ...nowhere, symbols })).toBe(
      `import x\n\nclass A:\n    pass\n\n\ndef last():\n    pass\n`,
    );
  });

  it('does not take a symbol for another whose name it begins with', () => {
    const code = 'def last_but_one():\n    return 0';
    const at = { ...nowhere, symbols, cursorLine: 12 };
    expect(place(file, code, at)).toBe(`${file}def last_but_one():\n    return 0\n`);
  });

  it('takes the place of the stretch between its first and last line', () => {
    const code = 'def one(self):\n    a = 1\n    return 1';
    expect(place(file, code, nowhere)).toBe(file.replace('        return 1', '        a = 1\n        return 1'));
  });

  it('takes the place of the whole file where it is a version of it', () => {
    const code = file.replace('import x', 'import y').replace('return 1', 'return 11');
    expect(place(file, code, { ...nowhere, cursorLine: 5 })).toBe(code);
  });

  it('takes the place of the selection where it resembles nothing else', () => {
    const code = 'print("other")';
    expect(place(file, code, { ...nowhere, selection: { start: 10, end: 11 } })).toBe(
      file.replace('def last():\n    pass', 'print("other")'),
    );
  });

  it('goes to the cursor where it is new', () => {
    expect(place('a\nb', 'new', { ...nowhere, cursorLine: 1 })).toBe('a\nnew\nb');
    expect(place('', 'new', { ...nowhere, cursorLine: 9 })).toBe('\nnew');
  });

  it.each([
    ['other parameters', 'def two(self, more):\n    return 3'],
    ['a comment before it', '# Two.\ndef two(self):\n    return 3'],
    ['an import before it', 'import math\n\ndef two(self):\n    return 3'],
    ['another modifier', 'async def two(self):\n    return 3'],
  ])('takes the place of the function with %s, without knowing symbols too', (_, code) => {
    for (const known of [symbols, []])
      expect(place(file, code, { ...nowhere, symbols: known })).not.toContain('return 2');
  });

  it('ends a function in brackets at its bracket', () => {
    const before = 'a();\nexport function f(\n  x,\n) {\n  if (x) {\n  } else {\n  }\n}\nb();\n';
    expect(place(before, 'function f() {}', nowhere)).toBe('a();\nfunction f() {}\nb();\n');
  });

  it("keeps the file's line ends", () => {
    expect(place('a\r\nb\r\nc', 'x\ny', { ...nowhere, cursorLine: 1 })).toBe('a\r\nx\r\ny\r\nb\r\nc');
  });
});
