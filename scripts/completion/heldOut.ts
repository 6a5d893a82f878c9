/** Lines held out of real files: the text before and after the cursor, and the true line. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { IgnoreRules, walk } from '../../engine/index/repository/ignored.ts';
import type { Repository } from '../../engine/index/repository/repository.ts';
import { grammarOf } from '../../engine/index/syntax/grammars.ts';
import { type Moment, momentAt } from '../../extension/completion/moment.ts';

export interface HeldOut {
  readonly path: string;
  readonly languageId: string;
  /** Line number, starting at 0. */
  readonly line: number;
  /** The file without the held-out text. */
  readonly lines: readonly string[];
  /** Start of the line's text, and the cursor: after at least one token and before three fifths of the line. */
  readonly start: number;
  readonly cursor: number;
  /** The rest of the line. */
  readonly expected: string;
}

const languages: Readonly<Record<string, string>> = {
  c: 'c',
  cc: 'cpp',
  go: 'go',
  h: 'cpp',
  java: 'java',
  js: 'javascript',
  py: 'python',
  rb: 'ruby',
  rs: 'rust',
  ts: 'typescript',
};
const comment = /^(\/\/|\/\*|\*|#|"""|''')/;

/** Tries per file, because wanted lines may be rare in it. */
const triesPerFile = 20;

/** `count` random lines of code for which `isWanted` is true, each from a different file. */
export function heldOutLines(
  folder: string,
  count: number,
  random: () => number,
  isWanted: (held: HeldOut) => boolean = () => true,
): HeldOut[] {
  const paths = [...walk(folder, new IgnoreRules(folder, []))].flat().map(({ path }) => path);
  const held: HeldOut[] = [];
  for (const path of shuffled(paths, random)) {
    const languageId = languages[path.split('.').at(-1) ?? ''];
    if (held.length === count) break;
    if (languageId === undefined || grammarOf(path) === undefined) continue;
    const lines = readFileSync(join(folder, path), 'utf8').split('\n');
    for (let i = 0; i < triesPerFile; i++) {
      const one = holdOut(path, languageId, lines, random);
      if (one === undefined || !isWanted(one)) continue;
      held.push(one);
      break;
    }
  }
  return held;
}

/** Names in the rest of the line that another file defines and its own doesn't. */
export function foreignNames(repository: Repository, { path, expected }: HeldOut): string[] {
  return namesIn(expected).filter((name) => {
    const places = repository.definitions(name, 20).filter((own) => own.name === name);
    return places.length > 0 && places.every((own) => own.path !== path);
  });
}

/** Names that are long enough to be distinctive. */
export const namesIn = (text: string): string[] => [...new Set(text.match(/[\p{L}_$][\p{L}\p{N}_$]{3,}/gu) ?? [])];

function holdOut(path: string, languageId: string, all: string[], random: () => number): HeldOut | undefined {
  const codes = all.flatMap((text, line) => (isCode(text.trim()) ? [line] : []));
  const line = codes[Math.floor(random() * codes.length)];
  const text = line === undefined ? undefined : all[line]?.trimEnd();
  if (line === undefined || text === undefined) return undefined;
  const start = text.length - text.trimStart().length;
  const tokens = [...text.matchAll(/[\p{L}\p{N}_$]+|[=!<>&|+*:.-]+|\S/gu)].map(({ index }) => index);
  const cursors = tokens.slice(1).filter((at) => at - start < 0.6 * (text.length - start));
  const cursor = cursors[Math.floor(random() * cursors.length)];
  if (cursor === undefined) return undefined;
  const lines = all.with(line, text.slice(0, cursor));
  return { path, languageId, line, lines, start, cursor, expected: text.slice(cursor) };
}

const isCode = (text: string): boolean =>
  text.length >= 20 && text.length <= 120 && /[=(.:]/.test(text) && /\p{L}{2}/u.test(text) && !comment.test(text);

/** The document as the extension sees it with the cursor at `character`. */
export function momentIn({ languageId, line, lines }: HeldOut, character: number): Moment {
  const typed = lines.with(line, (lines[line] ?? '').slice(0, character));
  const document = { languageId, lineCount: typed.length, lineAt: (at: number) => ({ text: typed[at] ?? '' }) };
  return momentAt(document, { line, character });
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, key: random() }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item);
}
