import { describe, expect, it } from 'vitest';
import { grammars } from '../../../../engine/index/syntax/grammars.ts';
import { partsOf } from '../../../../engine/index/syntax/source.ts';

/** One source a grammar, with what stands in it by hand: `kind container.name`, and the imports. */
const samples: Readonly<Record<(typeof grammars)[number], readonly [string, string, string[], string[]]>> = {
  bash: ['a.sh', 'f() {\n  echo\n}', ['function f'], []],
  'c-sharp': [
    'a.cs',
    'using System.Text;\nclass A { int P { get; } void M() {} }',
    ['class A', 'field A.P', 'method A.M'],
    ['System.Text'],
  ],
  cpp: [
    'a.c',
    '#include <stdio.h>\n#define MAX 3\nstruct point { int x; };\nstatic char *name(int a)\n{\n  return 0;\n}\nint Box::area() { return 1; }',
    ['constant MAX', 'struct point', 'function name', 'function area'],
    ['stdio.h'],
  ],
  css: ['a.css', 'a {\n  color: red;\n}', [], []],
  go: [
    'a.go',
    'package a\nimport "fmt"\ntype T struct{}\nfunc (t *T) M() {}\nfunc F() {}',
    ['type T', 'method M', 'function F'],
    ['fmt'],
  ],
  java: ['a.java', 'import a.b.C;\nclass A { int f; void m() {} }', ['class A', 'field A.f', 'method A.m'], ['a.b.C']],
  javascript: [
    'a.js',
    'const fs = require("fs");\nexports.run = function () {};\nconst go = () => 1;',
    ['constant fs', 'function run', 'function go'],
    ['fs'],
  ],
  php: ['a.php', '<?php use A\\B; class C { function m() {} }', ['class C', 'method C.m'], ['A\\B']],
  python: [
    'a.py',
    'from .x import y\nimport os.path\nA = 1\nclass C:\n  def m(self): pass',
    ['constant A', 'class C', 'function C.m'],
    ['.x', 'os.path'],
  ],
  ruby: [
    'a.rb',
    'require "x"\nmodule M\n class C\n  def m; end\n end\nend',
    ['module M', 'class M.C', 'method M.C.m'],
    ['x'],
  ],
  rust: [
    'a.rs',
    'use a::b;\nstruct S;\nimpl S { fn m() {} }\nmacro_rules! mm { () => {} }',
    ['struct S', 'function m', 'function mm'],
    ['a::b'],
  ],
  tsx: ['a.tsx', 'import x from "y";\nexport const A = () => <div/>;', ['function A'], ['y']],
  typescript: [
    'a.ts',
    'import type { Q } from "./q.ts";\nexport interface I { m(): void }\nexport class A { #x = 1; get y() { return 1; } }\ntype T = 1;',
    ['interface I', 'method I.m', 'class A', 'field A.x', 'method A.y', 'type T'],
    ['./q.ts'],
  ],
};

describe('a source file', () => {
  it.each(grammars.map((grammar) => [grammar, ...samples[grammar]] as const))(
    'in %s has its definitions and imports',
    async (_, path, text, definitions, imports) => {
      const parts = await partsOf(path, text);
      const named = parts.definitions.map(
        ({ kind, container, name }) => `${kind} ${container === '' ? '' : `${container}.`}${name}`,
      );
      expect([named, parts.imports]).toEqual([definitions, imports]);
    },
  );

  const method = (name: string, lines: number): string =>
    [
      `  /** What ${name} does. */`,
      `  ${name}() {`,
      ...Array.from({ length: lines }, (_, i) => `    step(${i});`),
      '  }',
    ].join('\n');

  it('is cut between members, a comment going with what follows it', async () => {
    const text = ['class A {', method('one', 30), method('two', 30), method('three', 10), '}'].join('\n');
    const { chunks } = await partsOf('a.js', text);
    expect(chunks).toEqual([
      { firstLine: 1, lastLine: 34 },
      { firstLine: 35, lastLine: 81 },
    ]);
  });

  it.each(['a.js', 'a.txt'])('as %s has every line in exactly one chunk', async (path) => {
    const text = Array.from({ length: 500 }, (_, i) => (i % 17 === 0 ? '' : `call(${i});`)).join('\n');
    const { chunks } = await partsOf(path, text);
    const covered = chunks.flatMap(({ firstLine, lastLine }) =>
      Array.from({ length: lastLine - firstLine + 1 }, (_, i) => firstLine + i),
    );
    expect(covered).toEqual(Array.from({ length: 500 }, (_, i) => i + 1));
    for (const { firstLine, lastLine } of chunks) expect(lastLine - firstLine).toBeLessThan(50);
  });

  it('with syntax errors is parsed as far as possible', async () => {
    const { definitions } = await partsOf('a.ts', 'export function whole() {}\nfunction half( {\nclass');
    expect(definitions.map(({ name }) => name)).toContain('whole');
  });
});
