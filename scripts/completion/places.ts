/** Positions in real files with their true text, and longer texts of which only the true text is right. */

import type { Node } from '../../engine/index/syntax/grammars.ts';
import { grammarOf } from '../../engine/index/syntax/grammars.ts';
import { withTree } from '../../engine/index/syntax/source.ts';
import type { CorpusFile } from './corpus.ts';

export interface Place {
  readonly file: CorpusFile;
  readonly prefix: string;
  readonly suffix: string;
  /** Text up to the end of the statement, or to the innermost closing bracket, which editors insert automatically. */
  readonly truth: string;
}

const truthChars = 400;
const truthLines = 12;

/** Returns a random position, or undefined if the file doesn't parse or the position is unsuitable. */
export async function placeIn(file: CorpusFile, random: () => number): Promise<Place | undefined> {
  const grammar = grammarOf(file.path);
  for (let attempt = 0; attempt < 30; attempt++) {
    const range = grammar
      ? await withTree(grammar, file.text, (root) => (root.hasError ? undefined : rangeInTree(root, file, random)))
      : rangeInLine(file.text, random);
    if (range === undefined) continue;
    const [start, end] = range;
    const truth = file.text.slice(start, end).trimEnd();
    if (truth.trim() === '' || truth.length > truthChars || truth.split('\n').length > truthLines) continue;
    if (isRemark(file, start, truth)) continue;
    const [prefix, suffix] = [file.text.slice(0, start), file.text.slice(start + truth.length)];
    // Editors don't complete in the middle of a word.
    if (/[\p{L}\p{N}_$]$/u.test(prefix) && /^[\p{L}\p{N}_$]/u.test(suffix)) continue;
    return { file, prefix, suffix, truth };
  }
  return undefined;
}

/** Skips comments, where any bracket or line is valid, and partial statements of languages without a grammar. */
function isRemark({ text, path }: CorpusFile, start: number, truth: string): boolean {
  if (/\/\/|(^|\s)(#|--)\s|\/\*/.test(truth.split('\n').at(-1) ?? '')) return true;
  if (grammarOf(path) !== undefined) return false;
  const before = text.slice(0, start);
  const line = before.slice(before.lastIndexOf('\n') + 1);
  if (goesOn.test(line + truth)) return true;
  return before.lastIndexOf('/*') > before.lastIndexOf('*/') || /^\s*(\/\/|#|--|\*|<!--)|\s(\/\/|--|#)\s/.test(line);
}

/** Without a grammar: from a token boundary to the end of the line. */
function rangeInLine(text: string, random: () => number): [number, number] | undefined {
  const lines = [...text.matchAll(/[^\n]+/g)];
  const line = lines[Math.floor(random() * lines.length)];
  if (line === undefined) return undefined;
  const borders = [...line[0].matchAll(/[\p{L}\p{N}_$]+|[^\s\p{L}\p{N}_$]/gu)].slice(1).map(({ index }) => index);
  const border = borders[Math.floor(random() * borders.length)];
  return border === undefined ? undefined : [line.index + border, line.index + line[0].length];
}

/** Nodes whose children are statements. */
const bodies =
  /^(program|module|source_file|translation_unit|compilation_unit|stylesheet|statement_block|statement_list|preproc_if|preproc_ifdef|preproc_else|block|compound_statement|class_body|declaration_list|field_declaration_list|interface_body|object_type|body_statement|constructor_body|do_block|then|switch_body|enum_body|method_body)$/;

const shellBodies = /^(program|do_group|if_statement|elif_clause|else_clause|case_item|compound_statement|subshell)$/;

function rangeInTree(root: Node, { text, languageId }: CorpusFile, random: () => number): [number, number] | undefined {
  const leaf = root.descendantForIndex(Math.floor(random() * text.length));
  if (leaf === null || leaf.childCount > 0 || isText(leaf)) return undefined;
  const start = leaf.startIndex;
  const parents = languageId === 'shellscript' ? shellBodies : bodies;
  const statement = () => statementAround(leaf, start, parents);
  return random() < 0.5 ? (bracketAround(leaf, start) ?? statement()) : statement();
}

const isText = (leaf: Node): boolean =>
  /comment|string|content|fragment|text|heredoc/.test(leaf.type) || leaf.parent?.type.includes('comment') === true;

function statementAround(leaf: Node, start: number, parents: RegExp): [number, number] | undefined {
  for (let node: Node = leaf; node.parent; node = node.parent) {
    if (parents.test(node.parent.type)) return node.startIndex < start ? [start, node.endIndex] : undefined;
  }
  return undefined;
}

function bracketAround(leaf: Node, start: number): [number, number] | undefined {
  for (let node = leaf.parent; node && !bodies.test(node.type); node = node.parent) {
    const [opener, ...others] = node.children;
    const closer = others.at(-1);
    if (!opener || !closer || !/^[([{]$/.test(opener.type) || !/^[)\]}]$/.test(closer.type)) continue;
    return start >= opener.endIndex && start < closer.startIndex ? [start, closer.startIndex] : undefined;
  }
  return undefined;
}

/** Text that models write in addition to the true text. Undefined if the kind does not apply here. */
export type Continuation = (place: Place) => string | undefined;

const lineOf = ({ prefix }: Place): string => prefix.slice(prefix.lastIndexOf('\n') + 1);
const indentation = (place: Place): string => /^[ \t]*/.exec(lineOf(place))?.[0] ?? '';
/** Indentation of the last line of the true text. */
const lastIndentation = (place: Place): string =>
  /^[ \t]*/.exec((lineOf(place) + place.truth).split('\n').at(-1) ?? '')?.[0] ?? '';
const beginsStatement =
  /^\s*(?!(?:else|elif|elsif|except|finally|catch|rescue|ensure|end|and|or|then|do|when|in|is)\b)[\w$]/;
/** Matches lines that are not a complete statement or end in a comment. */
const goesOn =
  /[{([:,=+\-*/&|\\]\s*$|\b(do|then|else|begin|return)\s*$|\bfunction\b[^()]*\([^()]*\)$|^\s*@|\/\/|(^|\s)(#|--)\s|\/\*/;
/** A line of the file above the cursor. */
function sibling({ prefix }: Place): string {
  const lines = prefix.split('\n').slice(0, -1);
  return lines.findLast((line) => beginsStatement.test(line) && !goesOn.test(line))?.trim() ?? 'x = 1';
}
/** Only for code, because any bracket is valid in prose. */
const prose = new Set(['markdown', 'html', 'yaml', 'shellscript']);
const inCode =
  (continuation: Continuation): Continuation =>
  (place) =>
    prose.has(place.file.languageId) ? undefined : continuation(place);

const functions: Readonly<Record<string, string>> = {
  python: 'def another(a):\n    return a\n',
  ruby: 'def another(a)\n  a\nend\n',
  lua: 'function another(a)\n  return a\nend\n',
  go: 'func another(a int) int {\n\treturn a\n}\n',
  rust: 'fn another(a: u32) -> u32 {\n    a\n}\n',
  css: '.another {\n  color: red;\n}\n',
  scss: '.another {\n  color: red;\n}\n',
};

export const continuations: Readonly<Record<string, Continuation>> = {
  'nothing else': ({ truth }) => truth,
  'the rest of the line': ({ truth, suffix }) => {
    const rest = suffix.split('\n')[0] ?? '';
    return rest.trim() === '' ? undefined : truth + rest;
  },
  'the beginning of the rest': ({ truth, suffix }) => {
    const rest = /^[^\S\n]*[^\s\p{L}\p{N}_$]/u.exec(suffix)?.[0];
    return rest === undefined ? undefined : truth + rest;
  },
  'the next three lines': ({ truth, suffix }) => truth + suffix.split('\n').slice(0, 4).join('\n'),
  'all that follows': ({ truth, suffix }) => truth + suffix.slice(0, 600),
  'the next function': ({ truth, file }) =>
    `${truth}\n\n${functions[file.languageId] ?? 'function another(a) {\n  return a;\n}\n'}`,
  'a parenthesis too many': inCode(({ truth }) => `${truth})`),
  'brackets too many': inCode(({ truth }) => `${truth})]})`),
  'a brace too many, on a line': inCode((place) => `${place.truth}\n${indentation(place)}}`),
  'two blocks closed': inCode(({ truth }) => `${truth}\n}\n}\n`),
  'blanks at the end': ({ truth }) => `${truth}   `,
  'a line break and blanks': (place) => `${place.truth}\n${indentation(place)}`,
  'Windows line ends': (place) => `${place.truth}\n${indentation(place)}${sibling(place)}\n`.replaceAll('\n', '\r\n'),
  'a line as deep': (place) => `${place.truth}\n${indentation(place)}${sibling(place)}\n`,
  'a line less deep': (place) => `${place.truth}\n${indentation(place).slice(0, -2)}${sibling(place)}\n`,
  'a deeper line': (place) => `${place.truth}\n${lastIndentation(place)}    ${sibling(place)}\n`,
  'a line in tabs': (place) => `${place.truth}\n\t${lastIndentation(place)}\t${sibling(place)}\n`,
  'a line after empty ones': (place) => `${place.truth}\n\n\n${indentation(place)}${sibling(place)}\n`,
  'itself, again and again': (place) => {
    const last = (lineOf(place) + place.truth).split('\n').at(-1);
    return `${place.truth}${`\n${last}`.repeat(5)}`;
  },
  'a framing word': inCode(({ truth }) => `${truth}<|endoftext|>The next`),
  'an explanation': ({ truth }) => `${truth}\n\`\`\`\n\nThis code does what was asked.\n`,
};

export type Verdict = 'exact' | 'beginning' | 'nothing' | 'wrong';

/** A prefix of the true text is right if the file parses with it. */
export async function judge({ file, prefix, suffix, truth }: Place, shown: string): Promise<Verdict> {
  if (shown.trimEnd() === truth.trimEnd()) return 'exact';
  if (shown === '') return 'nothing';
  const grammar = grammarOf(file.path);
  if (grammar === undefined || !truth.startsWith(shown)) return 'wrong';
  const parses = await withTree(grammar, prefix + shown + suffix, (root) => !root.hasError);
  return parses ? 'beginning' : 'wrong';
}
