/** Which file the code of an answer is for. Pure: files are given, and nothing is asked. */
import type { CodeBlock } from './codeBlock.ts';
import { definedNames } from './placement.ts';

/** A file that the code may be for: it went with the question, or is in the editor. */
export interface Candidate {
  readonly path: string;
  readonly languageId: string;
  /** Names that it defines. */
  readonly symbols: readonly string[];
}

export type Choice =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'new'; readonly path: string }
  | { readonly kind: 'untitled' }
  | { readonly kind: 'terminal' };

export type Destination = Choice | { readonly kind: 'ask'; readonly choices: readonly Choice[] };

export interface Files {
  /** What went with the question first, then what is in the editor. */
  readonly candidates: readonly Candidate[];
  /** The workspace's file that a path of the answer means; undefined where there is none. */
  readonly found: ReadonlyMap<string, string>;
}

const families: readonly (readonly string[])[] = [
  [
    'javascript',
    'js',
    'jsx',
    'mjs',
    'cjs',
    'javascriptreact',
    'typescript',
    'ts',
    'tsx',
    'mts',
    'cts',
    'typescriptreact',
  ],
  ['python', 'py', 'pyi', 'python3'],
  ['c', 'h', 'cpp', 'c++', 'cc', 'cxx', 'hpp', 'hh'],
  ['csharp', 'cs', 'c#'],
  ['rust', 'rs'],
  ['go', 'golang'],
  ['ruby', 'rb'],
  ['kotlin', 'kt', 'kts'],
  ['json', 'jsonc', 'json5'],
  ['yaml', 'yml'],
  ['markdown', 'md'],
  ['html', 'htm'],
  ['css', 'scss', 'less'],
  ['shellscript', 'shell', 'sh', 'bash', 'zsh', 'fish', 'console', 'terminal', 'shell-session', 'shellsession'],
  ['powershell', 'ps1', 'pwsh', 'ps'],
  ['bat', 'cmd', 'batch', 'dosbatch'],
];
const shells = new Set(['shellscript', 'powershell', 'bat']);
const noLanguage = new Set(['', 'text', 'txt', 'plaintext', 'plain', 'code']);

const family = (name: string): string => families.find((names) => names.includes(name))?.[0] ?? name;
const endingOf = (path: string): string => /\.(\w+)$/.exec(path)?.[1]?.toLowerCase() ?? '';

export const isShell = (language: string): boolean => shells.has(family(language));

/** Whether code of that fence can be in the file; a fence without a language says nothing against it. */
function agrees(language: string, path: string, languageId = ''): boolean {
  const wanted = family(language);
  const ending = endingOf(path);
  return (
    noLanguage.has(language) ||
    [family(languageId), family(ending)].includes(wanted) ||
    (ending === '' && languageId === '')
  );
}

/** A path that may be created: below the workspace's folder, and not in Git's own. */
export function mayCreate(path: string): boolean {
  const parts = path.replace(/^\.\//, '').split(/[\\/]/);
  return (
    !/^([\\/~]|[A-Za-z]:)/.test(path) && parts.every((part) => part !== '' && part !== '..' && !/^\.git$/i.test(part))
  );
}

export function destination(block: CodeBlock, { candidates, found }: Files): Destination {
  const { language, path } = block;
  const named = path !== undefined && agrees(language, path) ? choiceOf(path, found) : undefined;
  if (named !== undefined) return named;
  const mentioned = block.mentioned.flatMap((known) => {
    const choice = agrees(language, known) ? choiceOf(known, found) : undefined;
    return choice?.kind === 'file' ? [choice] : [];
  });
  const near = distinct(mentioned);
  if (near.length === 1 && near[0] !== undefined) return near[0];
  const fitting = candidates.filter((candidate) => agrees(language, candidate.path, candidate.languageId));
  if (isShell(language))
    return fitting.length === 0 ? { kind: 'terminal' } : ask({ kind: 'terminal' }, ...asFiles(fitting));
  const names = definedNames(block.code);
  const defining = fitting.filter(({ symbols }) => symbols.some((name) => names.includes(name)));
  const best = defining.length > 0 ? defining : fitting;
  const choices = distinct([...near, ...asFiles(best)]);
  const [only] = choices;
  if (choices.length === 1 && only !== undefined) return only;
  return ask(...choices, ...(choices.length === 0 ? asFiles(candidates) : []));
}

function choiceOf(path: string, found: ReadonlyMap<string, string>): Choice | undefined {
  const known = found.get(path);
  if (known !== undefined) return { kind: 'file', path: known };
  return mayCreate(path) ? { kind: 'new', path: path.replace(/^\.\//, '') } : undefined;
}

const asFiles = (candidates: readonly Candidate[]): Choice[] => candidates.map(({ path }) => ({ kind: 'file', path }));

const ask = (...choices: Choice[]): Destination => ({ kind: 'ask', choices: [...choices, { kind: 'untitled' }] });

const distinct = (choices: readonly Choice[]): Choice[] => [
  ...new Map(choices.map((choice) => [JSON.stringify(choice), choice])).values(),
];
