/** What a lexer must know of a language: its comments, strings and brackets, by VS Code's language identifiers. */

export interface StringForm {
  /** Sticky; what the last group captured closes the string, unless `close` says otherwise. */
  readonly open: RegExp;
  readonly close?: (opening: RegExpExecArray) => string;
  /** How the closing mark is written inside: behind a backslash, twice, or never. */
  readonly escape: 'backslash' | 'doubled' | 'none';
  /** Code within the string, as its opening and closing marks. */
  readonly interpolations?: readonly (readonly [string, string])[];
  readonly spansLines?: true;
}

export interface Lexicon {
  readonly lineComments: readonly string[];
  readonly blockComments: readonly (readonly [string, string])[];
  readonly strings: readonly StringForm[];
  /** `/` after an operator begins a pattern. */
  readonly patterns?: true;
  /** Brackets pair up; in prose they need not. */
  readonly brackets: boolean;
  /** There are no statements: every bracket holds values. */
  readonly isData?: true;
  /** A line that ends so opens a block of deeper lines, beside one that ends in a bracket. */
  readonly opensBlock?: RegExp;
  /** A line that ends so goes on with the next. */
  readonly openEnd?: RegExp;
}

const double: StringForm = { open: /(")/y, escape: 'backslash' };
const single: StringForm = { open: /(')/y, escape: 'backslash' };
/** `'a'` is a character, `'a` in Rust, OCaml or Haskell is not; at the end of a text it may become one. */
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
  // Values of attributes alone: in text a quote or an apostrophe is a mark like any other.
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
const ruby: Lexicon = {
  ...hash,
  blockComments: [['\n=begin', '\n=end']],
  strings: [
    { open: /(["`])/y, escape: 'backslash', interpolations: [['#{', '}']], spansLines: true },
    { ...single, spansLines: true },
  ],
  patterns: true,
  opensBlock:
    /(^|\s)(do|then|else|begin|ensure)$|\bdo\s*\|[^|]*\|$|^\s*(def|class|module|if|unless|while|until|case|when|elsif|rescue)\b/,
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
  opensBlock: /(^|[\s;])(do|then|else)$/,
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
  dart: { ...slashes, strings: [tripled([['${', '}']]), within(double, ['${', '}']), within(single, ['${', '}'])] },
  dockerfile: settings,
  elixir: {
    ...hash,
    strings: [tripled([['#{', '}']]), { ...within(double, ['#{', '}']), spansLines: true }],
    opensBlock: /(^|\s)(do|else|->)$/,
  },
  erlang: { lineComments: ['%'], blockComments: [], strings: [{ ...double, spansLines: true }], brackets: true },
  go: { ...slashes, strings: [double, { open: /(`)/y, escape: 'none', spansLines: true }, character] },
  graphql: { ...hash, strings: [tripled(), double] },
  groovy: { ...slashes, strings: [tripled([['${', '}']]), within(double, ['${', '}']), single] },
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
    strings: [
      { ...double, spansLines: true },
      { ...single, spansLines: true },
    ],
  },
  php: {
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
      tripled([['${', '}']]),
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

/** Prose where the language is not known: nothing is taken for a string, a comment or a bracket. */
export const lexiconOf = (languageId: string | undefined): Lexicon => lexicons[languageId ?? ''] ?? prose;
