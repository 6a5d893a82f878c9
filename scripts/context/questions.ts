/**
 * Generates questions from code, with the files that answer them: the definition, a caller or a test of a name, the subject of
 * a comment, the file of a held-out line, a stack trace, and an issue in a template.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { IgnoreRules, walk } from '../../engine/index/repository/ignored.ts';
import { grammarOf } from '../../engine/index/syntax/grammars.ts';
import type { Definition } from '../../engine/index/syntax/source.ts';
import { partsOf } from '../../engine/index/syntax/source.ts';

export const questionKinds = [
  'definition',
  'caller',
  'test',
  'description',
  'held-out line',
  'trace',
  'template',
  'commit',
  'document',
] as const;
export type QuestionKind = (typeof questionKinds)[number];

export interface Question {
  readonly kind: QuestionKind;
  readonly text: string;
  /** Any of these files answers the question. */
  readonly files: ReadonlySet<string>;
  /** Any of these lines answers it; line numbers from 1. */
  readonly places: readonly Place[];
}

export interface Place {
  readonly path: string;
  readonly line: number;
}

interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly definitions: readonly Definition[];
  readonly words: ReadonlySet<string>;
}

export const isTest = (path: string): boolean => /(^|[/_.-])tests?([/_.-]|$)|_test\.|\.test\./.test(path);

/** Makes at most `perKind` questions of each kind. Removes the held-out lines from the files in `folder`. */
export async function makeQuestions(folder: string, perKind: number, random: () => number): Promise<Question[]> {
  const files = await readFiles(folder);
  const named = shuffled(uniqueNames(files), random);
  const make = (kind: QuestionKind, one: (own: Named) => Omit<Question, 'kind' | 'files'> | undefined): Question[] => {
    const made: Question[] = [];
    for (const own of named) {
      const question = made.length < perKind ? one(own) : undefined;
      if (question && question.places.length > 0) made.push({ kind, files: pathsOf(question.places), ...question });
    }
    return made;
  };
  return [
    ...make('definition', (own) => ({ text: `Where is ${own.name} defined?`, places: [placeOf(own)] })),
    ...make('caller', (own) => {
      const callers = filesCalling(files, own).filter(({ path }) => !isTest(path));
      // Calls in the name's own file answer too.
      if (callers.length > 0 && callsOf([own.file], own).length > 0) callers.push(own.file);
      // If a name is called everywhere, any answer would be right.
      if (callers.length > 3) return undefined;
      return { text: `What calls ${own.name}?`, places: callsOf(callers, own) };
    }),
    ...make('test', (own) => {
      const tests = isTest(own.file.path) ? [] : filesCalling(files, own).filter(({ path }) => isTest(path));
      if (tests.length > 3) return undefined;
      return { text: `Where is the test of ${own.name}?`, places: callsOf(tests, own) };
    }),
    ...make('description', (own) => {
      const text = descriptionOf(own.file, own.definition, own.name);
      return text === undefined ? undefined : { text, places: [placeOf(own)] };
    }),
    ...make('trace', (own) => {
      if (isTest(own.file.path) || !['function', 'method'].includes(own.definition.kind)) return undefined;
      return { text: traceOf(own, named, random), places: [{ path: own.file.path, line: lastLineOf(own) }] };
    }),
    ...make('template', (own) => {
      const text = isTest(own.file.path) ? undefined : descriptionOf(own.file, own.definition, own.name);
      return text === undefined ? undefined : { text: issueOf(text), places: [placeOf(own)] };
    }),
    ...heldOutLines(folder, files, perKind, random),
  ];
}

async function readFiles(folder: string): Promise<SourceFile[]> {
  const found: SourceFile[] = [];
  for (const { path, bytes } of [...walk(folder, new IgnoreRules(folder, []))].flat()) {
    if (grammarOf(path) === undefined || bytes > 500_000) continue;
    const text = readFileSync(join(folder, path), 'utf8');
    const { definitions } = await partsOf(path, text);
    found.push({ path, text, definitions, words: new Set(text.match(/[\p{L}_$][\p{L}\p{N}_$]*/gu) ?? []) });
  }
  return found;
}

interface Named {
  readonly name: string;
  readonly definition: Definition;
  readonly file: SourceFile;
}

/** Names with exactly one definition. */
function uniqueNames(files: readonly SourceFile[]): Named[] {
  const byName = new Map<string, Named[]>();
  for (const file of files) {
    for (const definition of file.definitions) {
      const { name } = definition;
      if (name.length < 6) continue;
      byName.set(name, [...(byName.get(name) ?? []), { name, definition, file }]);
    }
  }
  return [...byName.values()].flatMap((all) => (all.length === 1 ? all : []));
}

const callOf = (name: string): RegExp => new RegExp(`(?<![\\w$])${name.replaceAll('$', '\\$')}\\s*\\(`);

function filesCalling(files: readonly SourceFile[], { name, file }: Named): SourceFile[] {
  const call = callOf(name);
  return files.filter((own) => own !== file && own.words.has(name) && call.test(own.text));
}

const placeOf = ({ file, definition }: Named): Place => ({ path: file.path, line: definition.nameLine });
const lastLineOf = ({ definition: { firstLine, lastLine } }: Named): number => Math.max(firstLine, lastLine - 1);

function callsOf(files: readonly SourceFile[], { name, file, definition }: Named): Place[] {
  const call = callOf(name);
  return files.flatMap(({ path, text }) =>
    text
      .split('\n')
      .flatMap((line, at) => (call.test(line) ? [{ path, line: at + 1 }] : []))
      .filter(({ line }) => path !== file.path || line !== definition.nameLine),
  );
}

/** A stack trace of nine frames in the language's format, eight of other functions, with another machine's paths. */
function traceOf(own: Named, named: readonly Named[], random: () => number): string {
  const others = shuffled(
    named.filter(({ file }) => file !== own.file),
    random,
  ).slice(0, 8);
  const ending = own.file.path.slice(own.file.path.lastIndexOf('.') + 1);
  const frameOf = frames[ending] ?? inBrackets;
  const last = (ending === 'py' ? [...others, own] : [own, ...others]).map((frame) =>
    frameOf(`/srv/build/app/${frame.file.path}`, lastLineOf(frame), frame.name),
  );
  const first = ending === 'py' ? 'Traceback (most recent call last):' : 'Error: it failed';
  return `It fails since yesterday.\n\n${[first, ...last].join('\n')}`;
}

type Frame = (path: string, line: number, name: string) => string;
const inBrackets: Frame = (path, line, name) => `    at ${name} (${path}:${line}:5)`;
const javaFrame: Frame = (path, line, name) =>
  `\tat ${path
    .replace(/^.*?\/(?=com|org|net|io)/, '')
    .replaceAll('/', '.')
    .replace(/\.java$|\.kt$/, '')}.${name}(${path.slice(path.lastIndexOf('/') + 1)}:${line})`;
const frames: Readonly<Record<string, Frame>> = {
  py: (path, line, name) => `  File "${path}", line ${line}, in ${name}`,
  java: javaFrame,
  kt: javaFrame,
  go: (path, line, name) => `main.${name}(...)\n\t${path}:${line} +0x1d`,
  rs: (path, line, name) => `   4: app::${name}\n             at ${path}:${line}:9`,
  rb: (path, line, name) => `\tfrom ${path}:${line}:in \`${name}'`,
  php: (path, line, name) => `#1 ${path}(${line}): ${name}()`,
  cs: (path, line, name) => `   at App.${name}() in ${path}:line ${line}`,
};

/** A filled-in issue template, as on repository hosts. */
const issueOf = (text: string): string => `### Checklist
- [x] I have searched the existing issues for duplicates
- [x] I have read the documentation and the contributing guide
- [ ] I am willing to open a pull request

### Description
${text}

### Steps to reproduce
See the test case above.

### Environment
- OS: Ubuntu 24.04
- Version: 3.12.1
- Node version: 22.1.0

### Expected behaviour
No error.`;

const pathsOf = (files: readonly { readonly path: string }[]): Set<string> => new Set(files.map(({ path }) => path));

/** The comment above a definition or the docstring below it, with the name removed. */
function descriptionOf({ text }: SourceFile, { firstLine, kind }: Definition, name: string): string | undefined {
  if (!['function', 'method', 'class'].includes(kind)) return undefined;
  const lines = text.split('\n');
  const above = lines.slice(Math.max(0, firstLine - 6), firstLine - 1).join('\n');
  const below = lines.slice(firstLine, firstLine + 4).join('\n');
  const comment =
    /(?:\/\/\/?|\*) ?([^\n]{30,200})\n?[^\n]*$/.exec(above)?.[1] ?? /"""\s*([^\n"]{30,200})/.exec(below)?.[1];
  const plain = comment
    ?.replaceAll(name, '')
    .replaceAll(/[^\p{L}\p{N}_ ]/gu, ' ')
    .trim();
  return plain !== undefined && plain.split(/\s+/).length >= 5 ? plain : undefined;
}

/** Unique lines of the repository; each is blanked in its file. */
function heldOutLines(folder: string, files: readonly SourceFile[], count: number, random: () => number): Question[] {
  const seen = new Map<string, number>();
  const lineKey = (line: string): string => line.trim();
  for (const { text } of files)
    for (const line of text.split('\n')) seen.set(lineKey(line), (seen.get(lineKey(line)) ?? 0) + 1);
  const questions: Question[] = [];
  for (const { path, text } of shuffled(
    files.filter(({ path }) => !isTest(path)),
    random,
  )) {
    if (questions.length === count) break;
    const lines = text.split('\n');
    const candidates = lines.flatMap((line, at) =>
      // Excludes rows of numbers, which nobody asks about.
      line.trim().length >= 30 &&
      (line.match(/[\p{L}_]{3,}/gu) ?? []).length >= 3 &&
      seen.get(lineKey(line)) === 1 &&
      !/^\s*(\/\/|\*|#|import|from)/.test(line)
        ? [at]
        : [],
    );
    const at = candidates[Math.floor(random() * candidates.length)];
    if (at === undefined) continue;
    const places = [{ path, line: Math.max(1, at) }];
    questions.push({ kind: 'held-out line', text: (lines[at] ?? '').trim(), files: new Set([path]), places });
    // Keeps the numbers of other lines.
    writeFileSync(join(folder, path), lines.with(at, '').join('\n'));
  }
  return questions;
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, key: random() }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item);
}
