/** `src/a.ts:12` and `src/a.ts:12-20` in an answer: found, checked, and taken out where there is no such place. */
import type { Citation } from '../messages.ts';

/** A file as the workspace names it, and how many lines it has. */
export interface Place {
  path: string;
  lines: number;
}

/** The file that a model means by a path; undefined: there is none. */
export type FindPlace = (path: string) => Promise<Place | undefined>;

/** Files without an ending that are commonly cited. */
const bareNames = 'Makefile|Dockerfile|LICENSE|README|Gemfile|Rakefile|CMakeLists\\.txt';
/** No address of the web, no time of day, no ratio: a path with an ending that begins with a letter, and a line. */
const pattern = new RegExp(
  String.raw`(?<![\w/:.@+-])(?<path>(?:\.{0,2}/)?(?:[\w@+.-]+/)*(?:[\w@+-][\w@+.-]*\.[A-Za-z]\w{0,11}|${bareNames}))(?::L?|#L)(?<line>\d{1,7})(?:\s?[-–]\s?L?(?<end>\d{1,7}))?(?![\w:/.]*\w)`,
  'g',
);
/** A citation with what encloses it alone: brackets, backticks. */
const bare = pattern.source.replaceAll(/\(\?<[a-z]+>/g, '(?:');
const wrapped = new RegExp(String.raw`\s?\(\x60?${bare}\x60?\)|\x60${bare}\x60|${bare}`, 'g');
/** A link to a place in the repository, which markdown would show without its target. */
const linked = new RegExp(String.raw`\[([^\]\n]{0,200})\]\((${bare})\)`, 'g');
const domain = /^(?:localhost|[\w.-]+\.(?:com|org|net|io|dev|local|example|test))$/i;

/** All citations of the text that stand outside of code blocks. */
export function findCitations(answer: string): Citation[] {
  return proseOf(answer).flatMap(({ text }) => [...text.matchAll(pattern)].flatMap(citationOf));
}

function citationOf(match: RegExpMatchArray): Citation[] {
  const { path, line, end } = match.groups ?? {};
  if (path === undefined || domain.test(path)) return [];
  const first = Number(line);
  return [{ text: match[0], path, line: first, endLine: end === undefined ? first : Number(end) }];
}

export interface Checked {
  answer: string;
  citations: Citation[];
  /** Citations of places that do not exist, taken out of the answer. */
  removed: number;
}

/** Keeps what exists. Of a file that exists the name stays where the line does not; of one that does not, nothing. */
export async function checkCitations(answer: string, find: FindPlace): Promise<Checked> {
  const places = new Map<string, Place | undefined>();
  for (const { path } of findCitations(answer)) {
    if (!places.has(path)) places.set(path, await find(path));
  }
  const kept = new Map<string, Citation>();
  let removed = 0;
  const checked = (text: string) =>
    text.replaceAll(wrapped, (around: string) => {
      const [citation] = [...around.matchAll(pattern)].flatMap(citationOf);
      if (citation === undefined) return around;
      const place = places.get(citation.path);
      if (place !== undefined && exists(citation, place)) {
        kept.set(citation.text, { ...citation, path: place.path });
        return around;
      }
      removed += 1;
      return place === undefined ? '' : around.replace(citation.text, citation.path);
    });
  const parts = proseOf(answer, true).map(({ text, code }) => (code ? text : checked(unlinked(text))));
  return { answer: tidied(parts.join(''), removed), citations: [...kept.values()], removed };
}

/** The lines that the outline of a summary names, as places in the file that it is about. */
export function outlineCitations(summary: string, { path, lines }: Place): Citation[] {
  const found = [...summary.matchAll(/\b[Ll]ines? (\d{1,7})(?:[–-](\d{1,7}))?/g)].map(([text, first, last]) => ({
    text,
    path,
    line: Number(first),
    endLine: Number(last ?? first),
  }));
  const existing = found.filter((citation) => exists(citation, { path, lines }));
  return [...new Map(existing.map((citation) => [citation.text, citation])).values()];
}

const unlinked = (text: string): string =>
  text.replaceAll(linked, (_, label: string, target: string) =>
    label === '' || target.includes(label.replaceAll('`', '')) ? `\`${target}\`` : `${label} (\`${target}\`)`,
  );

const exists = ({ line, endLine }: Citation, { lines }: Place): boolean =>
  line >= 1 && endLine >= line && endLine <= lines;

/** Blanks before punctuation and pairs of them, where something was taken out. */
function tidied(answer: string, removed: number): string {
  return removed === 0 ? answer : answer.replaceAll(/(?<=\S) +(?=[.,;:!?)](?:\s|$))/g, '');
}

interface Part {
  text: string;
  code: boolean;
}

/** The text outside of fenced blocks, or everything in order with `all`. A block that never ends is code to the end. */
function proseOf(answer: string, all = false): Part[] {
  const parts: Part[] = [];
  let fence = '';
  for (const line of answer.split(/(?<=\n)/)) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1] ?? '';
    const opens = fence === '' && mark !== '';
    const closes = fence !== '' && mark.startsWith(fence) && line.trim() === mark;
    parts.push({ text: line, code: opens || fence !== '' });
    if (opens) fence = mark;
    else if (closes) fence = '';
  }
  return all ? parts : parts.filter(({ code }) => !code);
}
