/** Parses a question: stack frames, names, flags, literals, and what the question asks about them. Pure. */
import { isAboutTheWhole } from '../question/planner.ts';
import { partsOfIdentifier } from './wordIndex.ts';

/** A line of a file, as a trace or an error message names it. */
export interface NamedPlace {
  readonly path: string;
  /** From 1. */
  readonly line: number;
}

/** What the question asks about the names: callers, tests or definitions; undefined: their meaning. */
export type Relation = 'callers' | 'tests' | 'definition';

export interface Query {
  /** The question without headings of an issue template and without stack frames. */
  readonly text: string;
  /** The frame closest to the error first. */
  readonly places: readonly NamedPlace[];
  readonly relation: Relation | undefined;
  /** Identifiers as written. */
  readonly names: readonly string[];
  /** Command-line flags, without leading hyphens. */
  readonly flags: readonly string[];
  /** Texts that may occur literally in the sources: quoted or dotted text, or the constant parts of a message. */
  readonly literals: readonly string[];
  /** Files that the question names without a line. */
  readonly files: readonly string[];
  /** Two words in a row. */
  readonly pairs: readonly string[];
  readonly wants: ReadonlySet<PathClass>;
  /** The question is about the whole repository. */
  readonly whole: boolean;
}

/** Kinds of files that rank below sources unless the question asks for them. */
export const pathClasses = ['test', 'example', 'vendored', 'built', 'data', 'changelog', 'document'] as const;
export type PathClass = (typeof pathClasses)[number];

const asksFor: Readonly<Record<PathClass, RegExp>> = {
  test: /\b(?:tests?|tested|testing|specs?|unit ?tests?|coverage)\b/i,
  example: /\b(?:examples?|samples?|demos?|benchmarks?)\b/i,
  vendored: /\b(?:vendored|bundled|third[- ]party)\b/i,
  built: /\b(?:dist|minified|build output|generated (?:code|file|source)s?)\b/i,
  data: /\b(?:config(?:uration)?|settings?|fixtures?|locales?|translations?|ya?ml|json|toml|manifest|workflow)\b/i,
  changelog:
    /\b(?:licen[cs]e|changelog|release notes?|changed in|since (?:which )?version|which version|deprecated in)\b/i,
  document:
    /\b(?:docs?|documentation|documented|readme|guides?|tutorials?|manual|contribut\w+|install\w*|instructions?|wording|rephrase\w*|phrases?|sentences?|paragraphs?|sections?|links?|urls?)\b/i,
};

const relations: readonly (readonly [Relation, RegExp])[] = [
  [
    'tests',
    /\b(?:which|what|where|any|find|show|is there|are there)\b[^.?!\n]*\b(?:tests?|specs?)\b|\btests? (?:for|of)\b/i,
  ],
  [
    'callers',
    /\b(?:who|what|which \w+|where)\b[^.?!\n]*\b(?:calls?|called|invokes?|invoked|uses?|used|references?|referenced)\b|\b(?:callers?|usages?|uses|call sites?|references) (?:of|to|for)\b/i,
  ],
  ['definition', /\b(?:defined?|definition|declared?|declaration|implemented|implementation of)\b/i],
];

export function parseQuery(question: string): Query {
  const { text: untraced, places } = withoutFrames(question);
  const text = withoutTemplate(untraced);
  const names = namesIn(text);
  return {
    text,
    places,
    relation: names.length === 0 ? undefined : relations.find(([, asked]) => asked.test(text))?.[0],
    names,
    flags: distinct([...text.matchAll(/(?<![\w-])--?([a-z][\w]*(?:-\w+)*)\b/gi)].map(([, flag = '']) => flag)).filter(
      (flag) => flag.length > 2,
    ),
    literals: literalsIn(text),
    pairs: pairsIn(text),
    files: distinct([...(text.match(fileName) ?? []), ...capitalFiles(text)]).slice(0, 6),
    wants: new Set(pathClasses.filter((own) => asksFor[own].test(subjectOf(text)))),
    whole: isAboutTheWhole(text),
  };
}

/** A file with an extension that distinguishes it from code: `README.md`, `src/a.ts`, never `this.name`. */
const fileName =
  /(?<![\w/.@-])(?:[\w@.-]+\/)*[\w@-][\w@.-]*\.(?:[a-z]{1,3}|[a-z]\w{0,2}[0-9+]|java|html|json|yaml|toml|scala|swift|proto|gradle|cmake|lock|cfg)(?![\w/.(])/gi;

/** `the README`, `CONTRIBUTING`: files that are named without their extension. */
function capitalFiles(text: string): string[] {
  const names = text.match(/(?<![\w./-])(?:[A-Z]{5,}|readme)(?![\w./-])/g) ?? [];
  return distinct(names.map((name) => name.toUpperCase())).flatMap((name) => [`${name}.md`, `${name}.rst`]);
}

/**
 * The first line, which states the request. Later text, for example of an issue, may mention tests without asking for
 * them.
 */
function subjectOf(text: string): string {
  const [line = ''] = text.split('\n').filter((own) => own.trim() !== '');
  return line.length <= 200 ? line : line.slice(0, line.indexOf('. ') + 1 || 200);
}

// Stack traces.

const path = String.raw`(?:[A-Za-z]:)?[\w@.~+/\\-]*[\w@+-]\.[A-Za-z]\w{0,9}`;
/** Python's frames, then those with `path:line`, then MSBuild's and Java's with the line in brackets. */
const frame = new RegExp(
  [
    String.raw`File "(?<a>[^"\n]+)", line (?<al>\d+)`,
    String.raw`(?<b>${path}):(?:line )?(?<bl>\d+)(?::\d+)?`,
    String.raw`(?<c>${path})\((?<cl>\d+)(?:,\d+)?\)`,
    String.raw`(?<d>${path}) on line (?<dl>\d+)`,
  ].join('|'),
  'g',
);
const framesBeforeError = /most recent call last/i;

/**
 * Extracts the places from the lines of a trace and removes the lines, because their other text belongs to other files.
 */
function withoutFrames(question: string): { text: string; places: NamedPlace[] } {
  const places: NamedPlace[] = [];
  const kept = question.split('\n').map((line) =>
    line.replaceAll(frame, (whole, ...args) => {
      const groups: unknown = args.at(-1);
      const place = placeOf(groups);
      if (place === undefined) return whole;
      places.push(place);
      return place.path.slice(place.path.lastIndexOf('/') + 1);
    }),
  );
  if (framesBeforeError.test(question)) places.reverse();
  const seen = new Map(places.map((own) => [`${own.path}:${own.line}`, own] as const).toReversed());
  return { text: kept.join('\n'), places: [...seen.values()].toReversed() };
}

function placeOf(groups: unknown): NamedPlace | undefined {
  if (typeof groups !== 'object' || groups === null) return undefined;
  const found: Record<string, unknown> = { ...groups };
  const key = ['a', 'b', 'c', 'd'].find((own) => typeof found[own] === 'string');
  if (key === undefined) return undefined;
  const named = String(found[key]).replaceAll('\\', '/');
  // A place without a folder needs a short extension, so that `localhost.example:8080` isn't one.
  return { path: named, line: Number(found[`${key}l`]) };
}

// Issue templates.

const heading = /^\s*(?:#{1,6}\s+\S.*|\*\*[^*\n]+\*\*:?)\s*$/;
const checkbox = /^\s*[-*]\s*\[[ xX]?\]/;
const environment = /^\s*[-*]?\s*\**[\p{L}][\p{L}\p{N} ./()_-]{1,40}\**\s*[:=]\**\s*`?v?\d+(?:\.\d+)*[\w .+-]*`?\s*$/u;
const system =
  /^\s*[-*]?\s*\**(?:os|operating system|platform|browser|device|environment|version|distribution|arch(?:itecture)?)\b[^:\n]{0,30}:/i;

/** Removes an issue template's headings, checkboxes and versions, which every issue has. */
function withoutTemplate(text: string): string {
  const lines = text.replaceAll(/<!--[\s\S]*?-->/g, '').split('\n');
  const formal = lines.filter((line) => heading.test(line) || checkbox.test(line)).length;
  if (formal < 2) return text;
  const kept = lines.filter((line, at) => {
    if (checkbox.test(line) || environment.test(line) || system.test(line)) return false;
    // The first heading of a text is its title, unless boxes follow it.
    const isFirst = lines.slice(0, at).every((before) => before.trim() === '');
    const next = lines.slice(at + 1).find((own) => own.trim() !== '') ?? '';
    const ofForm = !/^\s*#\s/.test(line) && (checkbox.test(next) || heading.test(next));
    return !heading.test(line) || (isFirst && !ofForm);
  });
  return kept.every((line) => line.trim() === '') ? text : kept.join('\n');
}

// Names and literals.

/** Words in backticks, calls, and words with a form that prose doesn't have. */
function namesIn(text: string): string[] {
  // Only the last part of a qualified name identifies it; the other parts enclose half the repository.
  const marked = [...text.matchAll(/`([^`\n]{2,80})`/g)].flatMap(
    ([, code = '']) =>
      code.replaceAll(/[\p{L}_$][\p{L}\p{N}_$]*(?:::|->|\.)(?=[\p{L}_$])/gu, '').match(identifiers) ?? [],
  );
  const called = [...text.matchAll(/([\p{L}_$][\p{L}\p{N}_$]*)(?=\()/gu)].map(([name]) => name);
  const formed = (text.match(identifiers) ?? []).filter(isCodeLike);
  const asked = [...text.matchAll(askedName)].map((match) => match.slice(1).find((own) => own !== undefined) ?? '');
  return distinct([
    ...marked,
    ...called,
    ...formed,
    ...asked.filter((name) => !articles.has(name.toLowerCase())),
  ]).filter((name) => name.length > 1);
}

const identifiers = /[\p{L}_$][\p{L}\p{N}_$]*/gu;
const isCodeLike = (word: string): boolean =>
  /[\p{L}\p{N}][_$][\p{L}\p{N}]|\p{Ll}\p{Lu}|\p{L}\p{N}+\p{L}/u.test(word) ||
  (partsOfIdentifier(word).length > 1 && /[_$]/.test(word));
/** `What calls parse?`, `Where is parse defined?`, `the test of parse`: here a plain word is a name. */
const askedName =
  /\b(?:calls?|invokes?|uses|callers? of|usages? of|references? to|tests? (?:of|for))\s+(?:the\s+)?([\p{L}_$][\p{L}\p{N}_$]*)|\b(?:is|are)\s+(?:the\s+)?(?:function\s+|method\s+|class\s+|type\s+)?([\p{L}_$][\p{L}\p{N}_$]*)\s+(?:defined|declared|implemented|called|used|tested|invoked)\b/giu;
const articles = new Set([
  'the',
  'a',
  'an',
  'this',
  'that',
  'it',
  'these',
  'those',
  'which',
  'what',
  'and',
  'or',
  'in',
]);

const literalChars = { least: 4, most: 120 };

function literalsIn(text: string): string[] {
  const quoted = [
    ...text.matchAll(/"([^"\n]+)"|`([^`\n]+)`|(?<![\p{L}\p{N}])'([^'\n]+)'(?![\p{L}\p{N}])|“([^”\n]+)”/gu),
  ]
    .map((match) => match.slice(1).find((own) => own !== undefined) ?? '')
    .flatMap((own) => [own, ...constantParts(own)]);
  const messages = text.split('\n').flatMap((line) => {
    const message = /\b(?:\w*(?:error|exception|warning|panic\w*|failure|fatal))\b(?:\[\w+\])?\s*:\s*(.+)$/i.exec(
      line,
    )?.[1];
    return message === undefined ? [] : constantParts(message);
  });
  const dotted = text.match(/(?<![\w/.])[\p{L}_]\w*(?:(?:\.|::|->)[\p{L}_]\w*)+(?![\w/])/gu) ?? [];
  return distinct([...quoted, ...messages, ...dotted].map((own) => own.trim())).filter(
    ({ length }) => length >= literalChars.least && length <= literalChars.most,
  );
}

/** Parts of a formatted message: numbers, quoted text and paths are not in the sources. */
function constantParts(message: string): string[] {
  return message
    .split(/"[^"]*"|'[^']*'|`[^`]*`|<[^>]*>|[({[\])}]|\S*[\d/\\]\S*/)
    .map((part) => part.replace(/^[\s:,.;=-]+|[\s:,.;=-]+$/g, ''))
    .filter((part) => part.split(/\s+/).length >= 2);
}

function pairsIn(text: string): string[] {
  const words = text.toLowerCase().match(/[\p{L}\p{N}_$]+/gu) ?? [];
  return distinct(words.slice(1).map((word, at) => `${words[at]} ${word}`)).slice(0, 30);
}

const distinct = (items: readonly string[]): string[] => [...new Set(items)];
