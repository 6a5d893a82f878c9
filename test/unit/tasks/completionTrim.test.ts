import { describe, expect, it } from 'vitest';
import { trimCompletion } from '../../../engine/tasks/completionTrim.ts';

/** `|` is the cursor. */
function trim(file: string, generated: string, { multiline = true, ended = true } = {}) {
  const cursor = file.indexOf('|');
  return trimCompletion(generated, { prefix: file.slice(0, cursor), suffix: file.slice(cursor + 1), multiline }, ended);
}
const textOf = (file: string, generated: string, multiline = true): string => trim(file, generated, { multiline }).text;

describe('a single-line completion', () => {
  it('ends with its line', () => {
    expect(trim('const a = |\n', '1;\nconst b = 2;', { multiline: false })).toEqual({ text: '1;', complete: true });
  });

  it('goes on while the line does', () => {
    expect(trim('const a = |\n', '1 +', { multiline: false, ended: false })).toEqual({ text: '1 +', complete: false });
  });

  it('drops blanks at its end and is empty when there is nothing else', () => {
    expect(textOf('const a = |', '1;   ', false)).toBe('1;');
    expect(textOf('const a = |', '  \n  ', false)).toBe('');
  });
});

describe('a completion in front of text on its line', () => {
  it('stops before a bracket that is closed already, however deep its own go', () => {
    expect(textOf('foo(|)', 'bar(1), [2])\nbaz()')).toBe('bar(1), [2]');
    expect(textOf('foo(|);', 'a, b);')).toBe('a, b');
    expect(trim('foo(|)', 'a)', { ended: false })).toEqual({ text: 'a', complete: true });
  });

  it('does not repeat the rest of the line', () => {
    expect(textOf('if (|) {\n}', 'a === b) {')).toBe('a === b');
    expect(textOf("import x from '|';", "./x';")).toBe('./x');
    expect(textOf('let total = | + tax;', 'price + tax;')).toBe('price');
  });

  it('keeps a letter that happens to begin the rest of the line', () => {
    expect(textOf('x = | and b', 'banana')).toBe('banana');
  });

  it('is one line even where several were asked for', () => {
    expect(textOf('foo(|);', 'a,\n  b')).toBe('a,');
  });
});

describe('a completion of several lines', () => {
  it('takes the body of the block that the cursor opens, with its closing bracket, and no more', () => {
    expect(textOf('function f() {|', '\n  return 1;\n}\n\nfunction g() {\n}')).toBe('\n  return 1;\n}');
  });

  it('takes a block by indentation where there are no brackets', () => {
    expect(textOf('def f(x):|\n', '\n    y = x\n\n    return y\n\ndef g():\n    pass')).toBe(
      '\n    y = x\n\n    return y',
    );
  });

  it('goes on through else and its relatives', () => {
    expect(textOf('    if a:|\n', '\n        b()\n    else:\n        c()\n    d()')).toBe(
      '\n        b()\n    else:\n        c()',
    );
    expect(textOf('if (a) {|', '\n  b();\n} else {\n  c();\n}\nd();')).toBe('\n  b();\n} else {\n  c();\n}');
    expect(textOf('int main()|', '\n{\n  return 0;\n}\nint x;')).toBe('\n{\n  return 0;\n}');
  });

  it('ends after one statement when the cursor is inside a statement', () => {
    expect(textOf('const a = |\n', '[\n  1,\n];\nconst b = 2;')).toBe('[\n  1,\n];');
    expect(textOf('const a = |\n', '1;\nconst b = 2;\n')).toBe('1;');
  });

  it('takes statements as deep as the cursor on an empty line, until the scope closes', () => {
    expect(textOf('def f():\n    |\n', 'a = 1\n    b = 2\n    return a\nprint(f())')).toBe(
      'a = 1\n    b = 2\n    return a',
    );
  });

  it('stops at an empty line between statements as deep as the cursor', () => {
    expect(textOf('def f():\n    |\n', 'a = 1\n    b = 2\n\n    c = 3\n')).toBe('a = 1\n    b = 2');
    expect(textOf('|', 'def f():\n    pass\n\n\ndef g():\n    pass')).toBe('def f():\n    pass');
  });

  it('is not emptied by a line break at its beginning', () => {
    expect(textOf('def f():\n    |', '\n    return 1\n')).toBe('\n    return 1');
  });

  it('stops before the line that follows the cursor already', () => {
    expect(textOf('function f() {|\n}\n', '\n  return 1;\n}')).toBe('\n  return 1;');
    expect(textOf('a();\n|\nc();\n', 'b();\nc();\nd();')).toBe('b();');
    expect(textOf('a();\n|\nc();\n', 'c();\nd();')).toBe('');
  });

  it('keeps one of the same line three times over', () => {
    expect(textOf('|', 'x();\nx();\nx();\nx();')).toBe('x();');
  });

  it('judges only whole lines while the model writes', () => {
    expect(trim('  a {|', '\n    b\n ', { ended: false })).toEqual({ text: '\n    b', complete: false });
    expect(trim('  a {|', '\n    b\n  }\n', { ended: false })).toEqual({ text: '\n    b\n  }', complete: true });
    expect(trim('def f():|', '\n  a\nb\n', { ended: false })).toEqual({ text: '\n  a', complete: true });
  });

  it('knows that a scope is left as soon as the next line shows its first word', () => {
    const cut = { text: '\n    return 1', complete: true };
    expect(trim('def f():|', '\n    return 1\n\nde', { ended: false }).complete).toBe(false);
    expect(trim('def f():|', '\n    return 1\n\ndef ', { ended: false })).toEqual(cut);
    expect(trim('def f():|', '\n    return 1\nels', { ended: false }).complete).toBe(false);
    expect(trim('def f():|', '\n    return 1\nelse:', { ended: false }).complete).toBe(false);
    expect(trim('def f():\n    |', 'a = 1\n\n    b ', { ended: false })).toEqual({ text: 'a = 1', complete: true });
  });

  it('counts tabs as columns', () => {
    expect(textOf('\tif a {|', '\n\t\tb()\n\t}\n\tc()')).toBe('\n\t\tb()\n\t}');
  });
});
