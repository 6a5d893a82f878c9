// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the strings are sources
/** Generates programs with nested blocks in eight languages, and positions where a block is missing. */

export interface BlockPlace {
  readonly path: string;
  readonly languageId: string;
  /** `whole`: the block's end is after the cursor; `open`: the model must write it. */
  readonly form: 'whole' | 'open';
  readonly prefix: string;
  readonly suffix: string;
  readonly truth: string;
  /** The expected text, and the text up to the end of the file. */
  readonly written: string;
}

interface Syntax {
  readonly path: string;
  readonly languageId: string;
  readonly head: (name: string) => string;
  readonly conditions: readonly string[];
  readonly statements: readonly string[];
  readonly frame?: readonly [string, string];
}

const tests = ['if (a > 1) {', 'while (a < 9) {', 'for (;;) {'];
const calls = ['run(a);', 'a = next(a, rows[1]);', 'log("}) of {" );', 'a = a / 2; // half {', 'return;'];

const braces: readonly Syntax[] = [
  {
    path: 'a.ts',
    languageId: 'typescript',
    head: (name) => `function ${name}(a: number) {`,
    conditions: tests,
    statements: [...calls, 'const t = `{${a}`;', 'b = /[{(]/.test(c);'],
  },
  {
    path: 'a.js',
    languageId: 'javascript',
    head: (name) => `async function ${name}(a) {`,
    conditions: [...tests, 'items.forEach((a) => {'],
    statements: [...calls, "s = 'it\\'s }';"],
  },
  {
    path: 'A.java',
    languageId: 'java',
    head: (name) => `void ${name}(int a) {`,
    conditions: [...tests, 'try {'],
    statements: [...calls, "char c = '}';"],
    frame: ['class A {', '}'],
  },
  {
    path: 'a.c',
    languageId: 'c',
    head: (name) => `void ${name}(int a) {`,
    conditions: tests,
    statements: [...calls, "char c = '{';"],
  },
  {
    path: 'a.cs',
    languageId: 'csharp',
    head: (name) => `void ${name}(int a) {`,
    conditions: [...tests, 'foreach (var b in c) {'],
    statements: [...calls, 'var s = $"{a["}"]}";'],
    frame: ['class A {', '}'],
  },
  {
    path: 'a.go',
    languageId: 'go',
    head: (name) => `func ${name}(a int) {`,
    conditions: ['if a > 1 {', 'for {'],
    statements: ['run(a)', 'a = next(a, []int{1, 2})', 's := `}`', "r := '{'"],
    frame: ['package a\n', ''],
  },
  {
    path: 'a.rs',
    languageId: 'rust',
    head: (name) => `fn ${name}<'a>(a: &'a str) {`,
    conditions: ['if a > 1 {', 'loop {'],
    statements: ['run(a);', "let c = '}';", 'let s = r#"}"#;', 'return;'],
  },
  {
    path: 'a.py',
    languageId: 'python',
    head: (name) => `def ${name}(a):`,
    conditions: ['if a > 1:', 'while a:', 'for b in a:'],
    statements: ['run(a)', 's = f\'{a["}"]}\'', 'a = next(a, [1, 2])', 'return'],
  },
];

export const blockLanguages: readonly string[] = braces.map(({ languageId }) => languageId);

/** @param random uniform in [0, 1) */
export function blockPlace(languageId: string, random: () => number): BlockPlace {
  const syntax = braces.find((own) => own.languageId === languageId);
  if (!syntax) throw new Error(`No programs are generated in ${languageId}.`);
  return new Program(syntax, random).place();
}

interface Block {
  /** Line numbers of its head, its body's first line, and the line after its body. */
  readonly head: number;
  readonly end: number;
}

class Program {
  readonly #syntax: Syntax;
  readonly #random: () => number;
  readonly #lines: string[] = [];
  readonly #blocks: Block[] = [];

  constructor(syntax: Syntax, random: () => number) {
    this.#syntax = syntax;
    this.#random = random;
    const [before, after] = syntax.frame ?? ['', ''];
    if (before !== '') this.#lines.push(before);
    const depth = before.endsWith('{') ? 1 : 0;
    for (const name of ['first', 'second', 'third']) {
      this.#block(syntax.head(name), depth, 0);
      this.#lines.push('');
    }
    if (after !== '') this.#lines.push(after);
  }

  place(): BlockPlace {
    const { path, languageId } = this.#syntax;
    const { head, end } = this.#pick(this.#blocks);
    const hasCloser = languageId !== 'python';
    const form = hasCloser && this.#random() < 0.5 ? 'open' : 'whole';
    const last = form === 'open' ? end + 1 : end;
    const prefix = this.#lines.slice(0, head + 1).join('\n');
    const truth = `\n${this.#lines.slice(head + 1, last).join('\n')}`;
    const suffix = `\n${this.#lines.slice(last).join('\n')}`;
    return { path, languageId, form, prefix, suffix, truth, written: truth + suffix };
  }

  #block(head: string, depth: number, nesting: number): void {
    const at = this.#lines.length;
    this.#line(head, depth);
    const count = 1 + Math.floor(this.#random() * 3);
    for (let i = 0; i < count; i++) {
      if (nesting < 2 && this.#random() < 0.4) this.#block(this.#pick(this.#syntax.conditions), depth + 1, nesting + 1);
      else
        this.#line(this.#pick(this.#syntax.statements.filter((own) => own !== this.#lines.at(-1)?.trim())), depth + 1);
    }
    this.#blocks.push({ head: at, end: this.#lines.length });
    if (this.#syntax.languageId === 'python') return;
    const closers: Readonly<Record<string, string>> = { 'try {': '} finally {}', 'items.forEach((a) => {': '});' };
    this.#line(closers[head] ?? '}', depth);
  }

  #line(text: string, depth: number): void {
    this.#lines.push((this.#syntax.languageId === 'go' ? '\t' : '    ').repeat(depth) + text);
  }

  #pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.#random() * items.length)];
    if (item === undefined) throw new Error('There is nothing to pick from.');
    return item;
  }
}
