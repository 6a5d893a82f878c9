/**
 * Finds citations such as `src/a.ts:12` and `src/a.ts:12-20` in an answer's prose and looks them up in the workspace. The
 * answer stays unchanged.
 */
import type { Token } from 'marked';
import { lexMarkdown, placeBorders } from '../answerMarkup.ts';
import { limits } from '../limits.ts';
import type { Citation } from '../messages.ts';

/** A file by its workspace path, and its number of lines. */
export interface Place {
  path: string;
  lines: number;
}

/** Finds the file that a model means by a path; undefined if there is none. */
export type FindPlace = (path: string) => Promise<Place | undefined>;

/** A place that an answer names. */
export interface Mention extends Citation {
  /** The text can only name a file, so it is missing if the workspace has no such file. */
  certain: boolean;
}

/** Commonly cited files without an extension. */
const bareNames = 'Makefile|Dockerfile|LICENSE|README|Gemfile|Rakefile|CMakeLists\\.txt';
/** A path whose extension begins with a letter, and a line. Excludes URLs, times and ratios. */
const place = String.raw`(?<path>(?:\.{0,2}/)?(?:[\w@+.-]+/)*(?:[\w@+-][\w@+.-]*\.[A-Za-z]\w{0,11}|${bareNames}))(?::L?|#L)(?<line>\d{1,7})(?:\s?[-–]\s?L?(?<end>\d{1,7}))?`;
const pattern = new RegExp(placeBorders.before + place + placeBorders.after, 'g');
const whole = new RegExp(`^${place}$`);

/** Extensions of source and text files. Other names, such as `db.internal:5432`, may be hosts. */
const endings = new Set(
  `astro bash bat bazel bzl c cc cfg cjs clj cmake conf cpp cs cshtml css csv cts cu cue cxx dart diff el elm ex exs f90
  fish fs fsx gitignore glsl go gradle graphql groovy h hcl hh hpp hs htm html hxx ini ipynb java jl js json json5 jsonc
  jsx kt kts less lisp lock log lua m md mdx mjs mk ml mli mm mts nim nix patch php pl pm proto ps1 py pyi pyx r rb rs rst
  s sass scala scm scss sh sol sql svelte svg swift tcl tex tf toml ts tsx txt v vb vhd vim vue wasm wat wgsl xml yaml yml
  zig zsh`.split(/\s+/),
);
/** Extensions that are also country domains: `get.docker.sh:443`. */
const domainEndings = /\.(?:cc|md|ml|mm|pl|pm|py|rs|sh|tf|vi)$/i;

/** All citations in prose: in text, and in code spans and link targets that contain nothing else. */
export function findCitations(answer: string): Mention[] {
  return [...spans(lexMarkdown(answer))].flatMap(({ text, exact }) => {
    if (!exact) return [...text.matchAll(pattern)].flatMap(mentionOf);
    const match = whole.exec(text);
    return match === null ? [] : mentionOf(match);
  });
}

function mentionOf(match: RegExpMatchArray): Mention[] {
  const { path, line, end } = match.groups ?? {};
  if (path === undefined) return [];
  const first = Number(line);
  const certain = isFileName(path) && !isFrame(match.input ?? '', match.index ?? 0);
  return [{ text: match[0], path, line: first, endLine: end === undefined ? first : Number(end), certain }];
}

/** Paths outside the workspace and names that look like hosts are uncertain. */
function isFileName(path: string): boolean {
  if (path.startsWith('/') || path.startsWith('../')) return false;
  const name = path.slice(path.lastIndexOf('/') + 1);
  const dot = name.lastIndexOf('.');
  if (dot >= 0 && !endings.has(name.slice(dot + 1).toLowerCase())) return false;
  const [first = ''] = path.split('/');
  return path.includes('/') ? !/\w\.[a-z]{2,}$/i.test(first) : !(domainEndings.test(name) && name.indexOf('.') < dot);
}

/** Stack frames such as `at f (timers.js:3)` and `ArrayList.forEach(ArrayList.java:1511)` also name library files. */
function isFrame(text: string, at: number): boolean {
  const line = text.slice(text.lastIndexOf('\n', at - 1) + 1, at);
  return /[\w>]\($/.test(line) || /^\s*(?:at|from|File|#?\d+:?)\s/.test(line);
}

export interface Checked {
  citations: Citation[];
  /** Citations of places that do not exist, as written in the answer. */
  missing: string[];
}

/** Looks up every citation, each file once. */
export async function checkCitations(answer: string, find: FindPlace): Promise<Checked> {
  const mentions = findCitations(answer).slice(0, limits.citations.places);
  const paths = [...new Set(mentions.map(({ path }) => path))].slice(0, limits.citations.files);
  const places = new Map<string, Place | undefined>();
  for (const path of paths) places.set(path, await find(path));
  const citations = new Map<string, Citation>();
  const missing = new Set<string>();
  for (const { certain, ...mention } of mentions) {
    const found = places.get(mention.path);
    if (found !== undefined && exists(mention, found)) citations.set(mention.text, { ...mention, path: found.path });
    else if (found !== undefined || (certain && places.has(mention.path))) missing.add(mention.text);
  }
  return { citations: [...citations.values()], missing: [...missing].filter((text) => !citations.has(text)) };
}

/** Lines named in a summary's outline, as citations of its file. */
export function outlineCitations(summary: string, { path, lines }: Place): Citation[] {
  const found = [...summary.matchAll(/\b[Ll]ines? (\d{1,7})(?:[–-](\d{1,7}))?/g)].map(([text, first, last]) => ({
    text,
    path,
    line: Number(first),
    endLine: Number(last ?? first),
  }));
  const existing = found.filter((citation) => exists(citation, { path, lines }));
  return [...new Map(existing.map((citation) => [citation.text, citation])).values()].slice(0, limits.citations.places);
}

const exists = ({ line, endLine }: Citation, { lines }: Place): boolean =>
  line >= 1 && endLine >= line && endLine <= lines;

interface Span {
  text: string;
  /** A citation must be the whole span. */
  exact: boolean;
}

/** Yields the text spans that may hold citations, in order. Skips code blocks, HTML and link labels. */
function* spans(tokens: readonly Token[]): Generator<Span> {
  let prose = '';
  for (const token of tokens) {
    // An escaped character is part of the surrounding text.
    if ((token.type === 'text' || token.type === 'escape') && !hasChildren(token)) {
      prose += token['text'];
      continue;
    }
    if (prose !== '') yield { text: prose, exact: false };
    prose = '';
    if (token.type === 'codespan') yield { text: token['text'], exact: true };
    else if (token.type === 'link') yield* linkSpans(token);
    else for (const children of childrenOf(token)) yield* spans(children);
  }
  if (prose !== '') yield { text: prose, exact: false };
}

/** A link into the repository cites its target. A web link cites nothing. */
function* linkSpans(link: Token): Generator<Span> {
  const target: unknown = 'href' in link ? link['href'] : undefined;
  if (typeof target === 'string' && !/^[a-z][a-z\d+-]*:\/\//i.test(target)) yield { text: target, exact: true };
}

const hasChildren = (token: Token): boolean => 'tokens' in token && token.tokens !== undefined;

/** Children of a table by cell, of a list by item, otherwise the token's own. */
function childrenOf(token: Token): readonly (readonly Token[])[] {
  if (token.type === 'list') return token['items'].map((item: Token) => [item]);
  if (token.type === 'table') return [token['header'], ...token['rows']].flat().map(({ tokens }) => tokens);
  return 'tokens' in token && token.tokens !== undefined ? [token.tokens] : [];
}
