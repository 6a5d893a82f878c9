/** Comments, strings and brackets of each language, by VS Code's language identifier. */

export interface StringForm {
  /** Sticky pattern. The text of its last group closes the string, unless `close` is set. */
  readonly open: RegExp;
  readonly close?: (opening: RegExpExecArray) => string;
  /** How the string escapes its closing mark: with a backslash, by doubling, or not at all. */
  readonly escape: 'backslash' | 'doubled' | 'none';
  /** Opening and closing marks of interpolated code. */
  readonly interpolations?: readonly (readonly [string, string])[];
  readonly spansLines?: true;
  /** Brackets of the closing mark's kind nest: `%r{a{2}}`. */
  readonly nests?: true;
}

export interface Lexicon {
  readonly lineComments: readonly string[];
  readonly blockComments: readonly (readonly [string, string])[];
  readonly strings: readonly StringForm[];
  /** `/` after an operator starts a regular expression. */
  readonly patterns?: true;
  /** Brackets must match; false for prose. */
  readonly brackets: boolean;
  /** A data language without statements: every bracket contains values. */
  readonly isData?: true;
  /** A line with this ending opens an indented block, in addition to lines that end with a bracket. */
  readonly opensBlock?: RegExp;
  /** A line with this beginning closes such a block; one that matches `continuesBlock` continues it. */
  readonly closesBlock?: RegExp;
  readonly continuesBlock?: RegExp;
  /** Sticky pattern of the text that announces a heredoc. Its last group is the closing line. */
  readonly heredoc?: RegExp;
  /** A line with this ending continues on the next line. */
  readonly openEnd?: RegExp;
}

const double: StringForm = { open: /(")/y, escape: 'backslash' };
const single: StringForm = { open: /(')/y, escape: 'backslash' };
/** `'a'` is a character literal; `'a` in Rust, OCaml or Haskell is not. At the end of the text it may still become one. */
const character: StringForm = {
  open: /'(?=(?:\\[^\n]{1,10}?|[^\\'\n])'|(?:\\[^\n]{0,10}|[^\\'\n])?$)/y,
  close: () => "'",
  escape: 'backslash',
};
const slashes = { lineComments: ['//'], blockComments: [['/*', '*/']], brackets: true } as const;
const hash = { lineComments: ['#'], blockComments: [], brackets: true } as const;
const doubled = (quote: string): StringForm => ({
  open: new RegExp(`(${quote})`, 'y'),
  escape: 'doubled',
  spansLines: true,
});
const tripled = (interpolations: StringForm['interpolations'] = []): StringForm => ({
  open: /(""")/y,
  escape: 'backslash',
  interpolations,
  spansLines: true,
});
const tripledSingle: StringForm = { open: /(''')/y, escape: 'backslash', spansLines: true };
const within = (form: StringForm, ...interpolations: (readonly [string, string])[]): StringForm => ({
  ...form,
  interpolations,
});

const ecmaScript: Lexicon = {
  ...slashes,
  strings: [double, single, { open: /(`)/y, escape: 'backslash', interpolations: [['${', '}']], spansLines: true }],
  patterns: true,
};
const c: Lexicon = {
  ...slashes,
  strings: [
    { open: /R"([^\s()\\]{0,16})\(/y, close: ([, mark = '']) => `)${mark}"`, escape: 'none', spansLines: true },
    double,
    character,
  ],
};
const java: Lexicon = { ...slashes, strings: [tripled(), double, character] };
const css: Lexicon = {
  lineComments: [],
  blockComments: [['/*', '*/']],
  strings: [double, single],
  brackets: true,
  openEnd: /,\s*$/,
};
const scss: Lexicon = { ...css, lineComments: ['//'] };
const markup: Lexicon = {
  lineComments: [],
  blockComments: [['<!--', '-->']],
  // Only attribute values are strings; quotes and apostrophes in text are ordinary punctuation.
  strings: [{ open: /(?<==)(["'])/y, escape: 'none', spansLines: true }],
  brackets: false,
};
const prose: Lexicon = { lineComments: [], blockComments: [], strings: [], brackets: false };
const settings: Lexicon = { ...hash, strings: [double, single] };

const python: Lexicon = {
  ...hash,
  strings: [
    {
      open: /(?:[fFtT][rR]?|[rR][fFtT])("""|''')/y,
      escape: 'backslash',
      interpolations: [['{', '}']],
      spansLines: true,
    },
    { open: /(?:[fFtT][rR]?|[rR][fFtT])("|')/y, escape: 'backslash', interpolations: [['{', '}']] },
    { open: /(?:[uUbB]|[bB]?[rR]|[rR][bB])?("""|''')/y, escape: 'backslash', spansLines: true },
    { open: /(?:[uUbB]|[bB]?[rR]|[rR][bB])?("|')/y, escape: 'backslash' },
  ],
  opensBlock: /:$/,
};
const percentClosers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}', '<': '>' };
const percent = (open: RegExp, interpolations: StringForm['interpolations'] = []): StringForm => ({
  ...{ open, interpolations, escape: 'backslash', spansLines: true, nests: true },
  close: ([, mark = '']) => percentClosers[mark] ?? mark,
});
const ruby: Lexicon = {
  ...hash,
  blockComments: [['\n=begin', '\n=end']],
  strings: [
    // `$'` and `` $` `` are variables, `?"` is a character.
    { open: /(?<![$?])(["`])/y, escape: 'backslash', interpolations: [['#{', '}']], spansLines: true },
    { open: /(?<![$?])(')/y, escape: 'backslash', spansLines: true },
    percent(/%(?:[QWIrx]|(?<=[=(,[{]\s*%))([([{<|!])/y, [['#{', '}']]),
    percent(/%[qwis]([([{<|!])/y),
  ],
  patterns: true,
  heredoc: /(?<!<)<<[-~]?(["'`]?)([A-Z_][\p{L}\p{N}_]*)\1/uy,
  opensBlock:
    /(^|\s)(do|then|else|begin|ensure)$|\bdo\s*\|[^|]*\|$|^\s*(\w+ )?def\s+(?![^\s(]+(\([^)]*\))?\s*=\s)|^\s*(class|module|unless|while|until|when|elsif|rescue)\b|(^|=)\s*(if|unless|case)\b/,
  closesBlock: /^\s*end\b/,
  continuesBlock: /^\s*(else|elsif|when|in|rescue|ensure)\b/,
};
const shell: Lexicon = {
  ...hash,
  strings: [
    {
      open: /(")/y,
      escape: 'backslash',
      interpolations: [
        ['$(', ')'],
        ['${', '}'],
      ],
      spansLines: true,
    },
    { open: /(')/y, escape: 'none', spansLines: true },
  ],
  heredoc: /(?<!<)<<-?[^\S\n]*(["']?)([\p{L}_][\p{L}\p{N}_]*)\1/uy,
  opensBlock: /(^|[\s;])(do|then|else)$|^\s*case\b.*\bin$/,
  closesBlock: /^\s*(fi|done|esac)\b/,
  continuesBlock: /^\s*(else|elif)\b/,
};
const lua: Lexicon = {
  lineComments: ['--'],
  blockComments: [['--[[', ']]']],
  brackets: true,
  strings: [
    double,
    single,
    { open: /\[(=*)\[/y, close: ([, mark = '']) => `]${mark}]`, escape: 'none', spansLines: true },
  ],
  opensBlock: /(^|\s)(do|then|else|repeat)$|\bfunction\b[^()]*\([^()]*\)$/,
  closesBlock: /^\s*(end|until)\b/,
  continuesBlock: /^\s*(else|elseif)\b/,
};

const lexicons: Readonly<Record<string, Lexicon>> = {
  bat: { ...prose, lineComments: ['REM ', '::'] },
  c,
  clojure: { lineComments: [';'], blockComments: [], strings: [{ ...double, spansLines: true }], brackets: true },
  cpp: c,
  csharp: {
    ...slashes,
    strings: [
      { open: /\$+("""+)/y, escape: 'none', interpolations: [['{', '}']], spansLines: true },
      { open: /("""+)/y, escape: 'none', spansLines: true },
      { open: /(?:\$@|@\$)(")/y, escape: 'doubled', interpolations: [['{', '}']], spansLines: true },
      { open: /@(")/y, escape: 'doubled', spansLines: true },
      { open: /\$(")/y, escape: 'backslash', interpolations: [['{', '}']] },
      double,
      character,
    ],
  },
  css,
  'cuda-cpp': c,
  dart: {
    ...slashes,
    strings: [
      { open: /r("""|'''|"|')/y, escape: 'none', spansLines: true },
      tripled([['${', '}']]),
      within(tripledSingle, ['${', '}']),
      within(double, ['${', '}']),
      within(single, ['${', '}']),
    ],
  },
  dockerfile: settings,
  elixir: {
    ...hash,
    strings: [tripled([['#{', '}']]), { ...within(double, ['#{', '}']), spansLines: true }],
    opensBlock: /(^|\s)(do|else|->)$/,
    closesBlock: /^\s*end\b/,
    continuesBlock: /^\s*(else|rescue|after|catch)\b/,
  },
  erlang: { lineComments: ['%'], blockComments: [], strings: [{ ...double, spansLines: true }], brackets: true },
  go: { ...slashes, strings: [double, { open: /(`)/y, escape: 'none', spansLines: true }, character] },
  graphql: { ...hash, strings: [tripled(), double] },
  groovy: { ...slashes, strings: [tripled([['${', '}']]), tripledSingle, within(double, ['${', '}']), single] },
  haskell: { lineComments: ['--'], blockComments: [['{-', '-}']], strings: [double, character], brackets: true },
  html: markup,
  ignore: { ...prose, lineComments: ['#'] },
  ini: { ...settings, lineComments: [';', '#'] },
  java,
  javascript: ecmaScript,
  javascriptreact: ecmaScript,
  json: { ...slashes, strings: [double], isData: true },
  jsonc: { ...slashes, strings: [double], isData: true },
  julia: { ...hash, strings: [tripled([['$(', ')']]), within(double, ['$(', ')']), character] },
  kotlin: { ...slashes, strings: [tripled([['${', '}']]), within(double, ['${', '}']), character] },
  less: scss,
  lua,
  makefile: { ...hash, strings: [] },
  markdown: { ...prose, blockComments: [['<!--', '-->']] },
  nim: { ...hash, strings: [tripled(), double], opensBlock: /[:=]$/ },
  'objective-c': c,
  ocaml: {
    lineComments: [],
    blockComments: [['(*', '*)']],
    strings: [{ ...double, spansLines: true }, character],
    brackets: true,
  },
  perl: {
    ...hash,
    heredoc: /<<~?(["']?)([A-Z_][A-Z0-9_]*)\1/y,
    strings: [
      { ...double, spansLines: true },
      { ...single, spansLines: true },
    ],
  },
  php: {
    heredoc: /<<<[^\S\n]*(["']?)([\p{L}_][\p{L}\p{N}_]*)\1/uy,
    lineComments: ['//', '#'],
    blockComments: [['/*', '*/']],
    strings: [
      { ...within(double, ['{$', '}']), spansLines: true },
      { ...single, spansLines: true },
    ],
    brackets: true,
  },
  plaintext: prose,
  powershell: {
    ...hash,
    blockComments: [['<#', '#>']],
    strings: [{ open: /(")/y, escape: 'doubled', interpolations: [['$(', ')']], spansLines: true }, doubled("'")],
  },
  properties: { ...prose, lineComments: ['#', '!'] },
  proto3: { ...slashes, strings: [double, single] },
  python,
  r: settings,
  ruby,
  rust: {
    ...slashes,
    strings: [
      { open: /b?r(#*)"/y, close: ([, mark = '']) => `"${mark}`, escape: 'none', spansLines: true },
      { ...double, spansLines: true },
      character,
    ],
  },
  scala: {
    ...slashes,
    strings: [
      { open: /[a-z]+(""")/y, escape: 'none', interpolations: [['${', '}']], spansLines: true },
      tripled(),
      { open: /[a-z]+(")/y, escape: 'backslash', interpolations: [['${', '}']] },
      double,
      character,
    ],
  },
  scss,
  shellscript: shell,
  sql: { lineComments: ['--'], blockComments: [['/*', '*/']], strings: [doubled("'"), doubled('"')], brackets: true },
  svelte: markup,
  swift: { ...slashes, strings: [tripled([['\\(', ')']]), within(double, ['\\(', ')'])] },
  toml: {
    ...hash,
    isData: true,
    strings: [
      tripled(),
      { open: /(''')/y, escape: 'none', spansLines: true },
      double,
      { open: /(')/y, escape: 'none' },
    ],
  },
  typescript: ecmaScript,
  typescriptreact: ecmaScript,
  vb: { lineComments: ["'"], blockComments: [], strings: [doubled('"')], brackets: true },
  vue: markup,
  xml: markup,
  yaml: {
    ...hash,
    isData: true,
    strings: [double, { open: /(')/y, escape: 'doubled', spansLines: true }],
    opensBlock: /:$/,
  },
  zig: { ...slashes, strings: [double, character] },
};

/** Used for unknown languages: prose without strings, comments or brackets. */
export const lexiconOf = (languageId: string | undefined): Lexicon => lexicons[languageId ?? ''] ?? prose;
