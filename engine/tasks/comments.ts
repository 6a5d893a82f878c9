/** How a comment begins in a language, by VS Code's language identifiers; `//` in all that are not named. */
const marks: Readonly<Record<string, string>> = {
  bat: 'REM',
  clojure: ';',
  coffeescript: '#',
  dockerfile: '#',
  elixir: '#',
  erlang: '%',
  fortran: '!',
  haskell: '--',
  ini: ';',
  julia: '#',
  latex: '%',
  lisp: ';',
  lua: '--',
  makefile: '#',
  matlab: '%',
  perl: '#',
  powershell: '#',
  properties: '#',
  python: '#',
  r: '#',
  ruby: '#',
  scheme: ';',
  shellscript: '#',
  sql: '--',
  tex: '%',
  toml: '#',
  vb: "'",
  yaml: '#',
};

const blocks: Readonly<Record<string, readonly [string, string]>> = {
  css: ['/*', '*/'],
  html: ['<!--', '-->'],
  markdown: ['<!--', '-->'],
  ocaml: ['(*', '*)'],
  vue: ['<!--', '-->'],
  xml: ['<!--', '-->'],
};

/** `text` as a comment on a line of its own. */
export function commentLine(languageId: string | undefined, text: string): string {
  const block = blocks[languageId ?? ''];
  if (block) return `${block[0]} ${text} ${block[1]}\n`;
  return `${marks[languageId ?? ''] ?? '//'} ${text}\n`;
}
