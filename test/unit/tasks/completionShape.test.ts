// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the strings are sources
import { describe, expect, it } from 'vitest';
import { CompletionShape, type Multiline } from '../../../engine/tasks/completionShape.ts';

interface Fields {
  readonly language?: string;
  readonly multiline?: Multiline;
  readonly ended?: boolean;
}

const shapeAt = (file: string, language: string, multiline: Multiline) => {
  const cursor = file.indexOf('▮');
  return new CompletionShape({
    prefix: file.slice(0, cursor),
    suffix: file.slice(cursor + 1),
    languageId: language,
    multiline,
  });
};

/** `▮` is the cursor. */
function shape(file: string, written: string, fields: Fields = {}) {
  const { language = 'typescript', multiline = 'always', ended = true } = fields;
  const { text, complete } = shapeAt(file, language, multiline).shape(written, ended);
  return { text, complete };
}
const shown = (file: string, written: string, fields: Fields = {}): string => shape(file, written, fields).text;

describe('a completion of one line', () => {
  const multiline = 'never';

  it('ends with its line', () => {
    expect(shape('const a = ▮\n', '1;\nconst b = 2;', { multiline })).toEqual({ text: '1;', complete: true });
    expect(shape('const a = ▮\n', '1 +', { multiline, ended: false })).toEqual({ text: '1 +', complete: false });
  });

  it('has no comma after the last entry of JSON', () => {
    const json = { language: 'json' };
    expect(shown('{\n  "a": {\n    "build": ▮\n  }\n}\n', '"tsc",', json)).toBe('"tsc"');
    expect(shown('{ "a": ▮ }', '[1, 2],', json)).toBe('[1, 2]');
    expect(shown('{\n  "build": ▮\n  "x": 1\n}\n', '"tsc",', json)).toBe('"tsc",');
    expect(shown('[▮]', '"a,', json)).toBe('"a,');
  });

  it('drops blanks at its end and is empty when there is nothing else', () => {
    expect(shown('const a = ▮', '1;   ', { multiline })).toBe('1;');
    expect(shown('const a = ▮', '  \n  ', { multiline })).toBe('');
  });

  it('accepts Windows line ends', () => {
    expect(shown('const a = ▮', '1;\r\nconst b', { multiline })).toBe('1;');
    expect(shown('function f() {▮', '\r\n  return 1;\r\n}', { multiline: 'auto' })).toBe('\n  return 1;\n}');
  });
});

describe('a completion in front of text on its line', () => {
  it.each([
    ['typescript', 'foo(▮)', 'bar(1), [2])\nbaz()', 'bar(1), [2]'],
    ['typescript', 'foo(▮);', 'a, b);', 'a, b'],
    ['typescript', 'call(▮)', 'g(a), [b]);', 'g(a), [b]'],
    ['lua', 'foo(▮)', 'bar()', 'bar()'],
    ['lua', 'foo(▮)', 'bar())', 'bar()'],
    ['json', '{"a": ▮}', '{"b": {"c": 1}}', '{"b": {"c": 1}}'],
    ['json', '{"a": ▮}', '{"b": {"c": 1}}}', '{"b": {"c": 1}}'],
    ['python', 'print(▮)', '")", x', '")", x'],
    ['javascript', 'split(▮)', '/[)(]/)', '/[)(]/'],
    ['typescript', 'f(a▮)', '.map((x) => x + 1)', '.map((x) => x + 1)'],
  ])('closes its own brackets and not those of the file: %s %s', (language, file, written, expected) => {
    expect(shown(file, written, { language })).toBe(expected);
  });

  it.each([
    ['ruby', '"▮"', 'Hello #{user["name"]}!', 'Hello #{user["name"]}!'],
    ['ruby', '"▮"', 'Hello #{user["name"]}!"\n', 'Hello #{user["name"]}!'],
    ['shellscript', '"▮"', '$(basename "$1")"', '$(basename "$1")'],
    ['python', "f'▮'", "{d['k']:>{w}}'", "{d['k']:>{w}}"],
    ['csharp', '$"▮"', '{d["k"]}" + x', '{d["k"]}'],
    ['kotlin', '"▮"', '${m["k"]}"', '${m["k"]}'],
    ['swift', '"▮"', '\\(m["k"])"', '\\(m["k"])'],
    ['javascript', '`▮`', 'a ${`b ${c}`}`;', 'a ${`b ${c}`}'],
    ['sql', "name = '▮'", "O''Brien'", "O''Brien"],
    ['typescript', 'foo(▮"abc")', 'x["a"],', 'x["a"],'],
    ['typescript', "s = '▮'", "it\\'s'", "it\\'s"],
    ['typescript', "import x from '▮';", "./x.ts';", './x.ts'],
  ])('ends its strings and not those of the file: %s %s → %s', (language, file, written, expected) => {
    expect(shown(file, written, { language })).toBe(expected);
  });

  it.each([
    ['sql', 'SELECT ▮FROM t', 'a, b FROM t', 'a, b '],
    ['sql', 'SELECT ▮FROM t', 'a, b ', 'a, b '],
    ['sql', 'SELECT ▮ FROM t', 'a, b FROM', 'a, b'],
    ['typescript', 'f(▮: Int)', 'x: Int', 'x'],
    ['typescript', 'if (▮) {\n}', 'a === b) {', 'a === b'],
    ['typescript', 'let total = ▮ + tax;', 'price + tax;', 'price'],
    ['typescript', 'const ▮ = 1;', 'x = 1;', 'x'],
    ['typescript', 'class A ▮{\n}', 'extends B {\n', 'extends B '],
    ['html', '<p class="▮">', 'note">', 'note'],
    ['php', 'if (f("($▮)', 'a)/", $b)', 'a)/", $b'],
    ['plaintext', 'the quick ▮ fox', 'brown fox jumps', 'brown'],
  ])('does not repeat the rest of the line: %s %s → %s', (language, file, written, expected) => {
    expect(shown(file, written, { language })).toBe(expected);
  });

  it('keeps a letter that happens to begin the rest of the line', () => {
    expect(shown('x = ▮ and b', 'banana', { language: 'python' })).toBe('banana');
  });

  it('is one line, unless its own brackets are still open', () => {
    expect(shown('foo(▮);', 'a,\n  b')).toBe('a,');
    expect(shown('foo(▮);', '{\n  a: 1,\n});\nbar();')).toBe('{\n  a: 1,\n}');
  });
});

describe('words of control', () => {
  it('are text in markup and in strings', () => {
    expect(shown('<p>▮', 'old <s>price</s></p>', { language: 'html' })).toBe('old <s>price</s></p>');
    expect(shown('const t = ▮;', "'<|im_start|>user';")).toBe("'<|im_start|>user'");
  });

  it('end a text of code that a model wrote them into', () => {
    expect(shown('const t = ▮', '1;<|endoftext|>rest')).toBe('1;');
  });
});

describe('a completion of several lines', () => {
  it.each([
    ['typescript', 'function f() {▮', '\n  return 1;\n}\n\nfunction g() {\n}', '\n  return 1;\n}'],
    ['typescript', 'function f() {▮\n}\n', '\n  return 1;\n}\nf();', '\n  return 1;'],
    ['typescript', 'function f(a) {\n  if (a) {▮\n}\n', '\n    return 1;\n  }\n}', '\n    return 1;\n  }'],
    ['python', 'def f(x):▮\n', '\n    y = x\n\n    return y\n\ndef g():\n    pass', '\n    y = x\n\n    return y'],
    ['typescript', 'if (a) {▮', '\n  b();\n} else {\n  c();\n}\nd();', '\n  b();\n} else {\n  c();\n}'],
    ['c', 'int main()▮', '\n{\n  return 0;\n}\nint x;', '\n{\n  return 0;\n}'],
    [
      'rust',
      'fn f<E>▮\n',
      '(e: E)\nwhere\n    E: X,\n{\n    g();\n}\nfn h() {}',
      '(e: E)\nwhere\n    E: X,\n{\n    g();\n}',
    ],
    ['go', '\tif a {▮', '\n\t\tb()\n\t}\n\tc()', '\n\t\tb()\n\t}'],
  ])('takes the body of the block that the cursor opens, and its end: %s %s', (language, file, written, expected) => {
    for (const multiline of ['auto', 'always'] as const)
      expect(shown(file, written, { language, multiline })).toBe(expected);
  });

  it.each([
    ['java', 'switch (a) {\n  ▮\n\nint b;', 'case 1:\n    f();\n  default:\n    g();\n}', '\nint c;'],
    ['rust', 'match a {\n    A => ▮\n', 'x,\n    B => y,\n}', '\nfn f() {}'],
    ['ruby', 'begin\n  a(▮\nc\n', ')\n  b\nensure\n  d\nend', '\nc'],
    ['ruby', 'def a\n  ▮\n\ndef e\nend\n', 'b = 1\n\n  b + 1\nend', '\n\ndef f\nend'],
    ['lua', 'function a()\n  local b = ▮\n', '1\n  return b\nend', '\nprint(a())'],
    ['shellscript', 'if a; then\n  ▮\n', 'b\nelse\n  c\nfi', '\nd'],
    ['typescript', 'function f() {\n  const a = ▮\n', '1;\n  return a;\n}', '\nf();'],
  ])('takes the rest of a block that the file does not close: %s %s', (language, file, truth, more) => {
    for (const written of [truth, truth + more, `${truth})`])
      expect(shown(file, written, { language, multiline: 'auto' })).toBe(truth);
  });

  it('takes only the statement if the model does not close that block either', () => {
    const file = 'function f() {\n  const a = ▮\n';
    for (const written of ['1;\n  return a;', '1;\n  return a;\nf();'])
      expect(shown(file, written, { multiline: 'auto' })).toBe('1;');
    expect(shown('def a\n  b = ▮\n', '1\n  b + 1', { language: 'ruby', multiline: 'auto' })).toBe('1');
  });

  it.each([
    ['def a\n  ▮\nend\n', 'b = 1\n  c = 2\nend\n', 'b = 1\n  c = 2'],
    ['if a\n  b = ▮\nelse\n  c\nend\n', '1\n  c\n', '1'],
    ['def a; b; end\n▮\n', 'def c; d; end\n  e', 'def c; d; end'],
    ['a = %w[b (]\nc = ▮\n', 'd(1)\ne', 'd(1)'],
    ["a =~ %r{[']{2}}\nc = ▮\n", 'd(1)\ne', 'd(1)'],
    ["a = <<~END\n  it's (\nEND\nc = ▮\n", 'd(1)\ne', 'd(1)'],
    ['c = ▮\n', "<<~END\n  it's (\nEND\ne", "<<~END\n  it's (\nEND"],
    ['c = <<~END\n  #{a[▮]}\nEND\n', "'x'] + 1", "'x'"],
    ['c = ▮\n', 'd ? /^/ : /x/\ne = 1', 'd ? /^/ : /x/'],
    ["c = <<~'END'▮\n", "\n  it's (\nEND\ne", "\n  it's (\nEND"],
  ])('knows the words, literals and heredocs of Ruby: %s', (file, written, expected) => {
    expect(shown(file, written, { language: 'ruby', multiline: 'auto' })).toBe(expected);
  });

  it('ends after the statement that the cursor is in', () => {
    for (const multiline of ['auto', 'always'] as const) {
      expect(shown('const a = ▮\n', '[\n  1,\n];\nconst b = 2;', { multiline })).toBe('[\n  1,\n];');
      expect(shown('const a = ▮\n', '1;\nconst b = 2;\n', { multiline })).toBe('1;');
      expect(shown('const a = b▮\n', '\n  .c()\n  .d();\ne();', { multiline })).toBe('\n  .c()\n  .d();');
      expect(shown('f(▮\n', '\n  a,\n  b,\n);\ng();', { multiline })).toBe('\n  a,\n  b,\n);');
    }
  });

  it('takes statements as deep as the cursor where a body begins, until it is left or a line is empty', () => {
    const written = 'a = 1\n    b = 2\n\n    c = 3\nprint(f())';
    expect(shown('def f():\n    ▮\n', written, { language: 'python', multiline: 'auto' })).toBe('a = 1\n    b = 2');
    expect(shown('def f():\n    x = 1\n    ▮\n', written, { language: 'python', multiline: 'auto' })).toBe('a = 1');
    expect(shown('def f():\n    ▮\n', 'a = 1\nb()', { language: 'python' })).toBe('a = 1');
  });

  it('continues through else, catch and the like', () => {
    const written = '\n        b()\n    else:\n        c()\n    d()';
    expect(shown('    if a:▮\n', written, { language: 'python' })).toBe('\n        b()\n    else:\n        c()');
  });

  it('stops before the line that follows the cursor already', () => {
    expect(shown('a();\n▮\nc();\n', 'b();\nc();\nd();')).toBe('b();');
    expect(shown('a();\n▮\nc();\n', 'c();\nd();')).toBe('');
    expect(shown('if x▮\nend\n', '\n  y\nend\n', { language: 'ruby' })).toBe('\n  y');
  });

  it('ignores text inside a multi-line string', () => {
    const written = '"""\nSELECT\n  1\n"""\n    return q\nprint()';
    expect(shown('def f():\n    q = ▮\n', written, { language: 'python' })).toBe('"""\nSELECT\n  1\n"""');
  });

  it('judges only complete lines while the model writes', () => {
    const ended = false;
    expect(shape('  a {▮', '\n    b\n ', { ended }).complete).toBe(false);
    expect(shape('  a {▮', '\n    b\n  }\n  c', { ended }).complete).toBe(false);
    expect(shape('  a {▮', '\n    b\n  }\n  c(', { ended })).toEqual({ text: '\n    b\n  }', complete: true });
    const python = { ended, language: 'python' };
    expect(shape('def f():▮', '\n    return 1\n\nde', python).complete).toBe(false);
    expect(shape('def f():▮', '\n    return 1\n\ndef g', python)).toEqual({ text: '\n    return 1', complete: true });
    expect(shape('def f():▮', '\n    return 1\nels', python).complete).toBe(false);
    expect(shape('def f():▮', '\n    return 1\nelse:', python).complete).toBe(false);
  });

  it('has at most as many lines as one reads before accepting', () => {
    const written = Array.from({ length: 100 }, (_, index) => `  x${index}();`).join('\n');
    expect(shown('{\n▮', written).split('\n')).toHaveLength(24);
  });
});

describe('indentation', () => {
  it('is not doubled', () => {
    const python = { language: 'python' };
    expect(shown('def f():\n    ▮', '    return 1', python)).toBe('return 1');
    expect(shown('def f():\n▮', '    return 1', python)).toBe('    return 1');
    expect(shown('def f():\n    if a:\n    ▮', '    return 1', python)).toBe('    return 1');
  });
});

describe('a model that repeats itself', () => {
  it('is stopped within a line, before the word that loops', () => {
    const loop = 'assert is_fixture_is_not_fixture_is_not_fixture_is_not_fixture_is_not_';
    expect(shape('    ▮', loop, { language: 'python', ended: false })).toEqual({ text: 'assert', complete: true });
    const calls = 'a.value.next.value.next.value.next.value.next.value.next.value.next';
    expect(shown('x = ▮', calls).length).toBeLessThan(20);
  });

  it('is not stopped if the file has such lines', () => {
    const zeros = 'false, false, false, false, false, false,';
    expect(shown(`const t = [\n  ${zeros}\n  ▮\n];`, zeros, { multiline: 'never' })).toBe(zeros);
  });

  it('shows a repeated line once', () => {
    expect(shown('▮', 'xy();\nxy();\nxy();\nxy();')).toBe('xy();');
  });
});

describe('no completion', () => {
  const worthwhile = (file: string, language = 'typescript') => shapeAt(file, language, 'auto').isWorthwhile;

  it.each([
    ['in an empty file', '▮', 'typescript'],
    ['among blank lines only', '\n\n  ▮\n', 'typescript'],
    ['on a ruled line', 'x = 1\n# -----▮', 'python'],
    ['behind the end of a block comment', 'x;\n/* done */▮', 'typescript'],
    ['in the licence at the top of a file', '// Copyright 2026\n// Licensed ▮', 'typescript'],
    ['after three blank lines', 'a();\n\n\n\n▮', 'typescript'],
  ])('%s', (_, file, language) => {
    expect(worthwhile(file, language)).toBe(false);
  });

  it.each([
    ['two blank lines before a function', 'def f():\n    pass\n\n\n▮', 'python'],
    ['a selector of everything', 'a {}\n* {▮', 'css'],
    ['a glob', 'dist/**/*/▮', 'ignore'],
    ['a line of cron', '0 0 * * */▮', 'plaintext'],
    ['a product', 'int a = b\n  * ▮c;', 'c'],
    ['a comment that follows code', 'const x = 1;\n// this is ▮', 'typescript'],
    ['an #include', '#include <stdio.h>\n#▮', 'c'],
  ])('not so: %s', (_, file, language) => {
    expect(worthwhile(file, language)).toBe(true);
  });
});
