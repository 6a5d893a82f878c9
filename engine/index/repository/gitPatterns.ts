/**
 * Patterns of git (gitignore(5), wildmatch.c). A pattern is asked of a path alone, as git asks it: libraries answer for
 * the folders above it as well, which a rule in a deeper folder may have taken back.
 */

export type Verdict = 'ignored' | 'taken back' | undefined;

interface Pattern {
  readonly takesBack: boolean;
  readonly foldersOnly: boolean;
  /** Of a path relative to the file that the pattern is in, or of its last part. */
  readonly matches: (path: string) => boolean;
}

/** The patterns of one file, or of several that hold for one folder. */
export class GitPatterns {
  /** The last one that matches decides. */
  readonly #backwards: readonly Pattern[];

  constructor(text: string, ignoresCase: boolean) {
    this.#backwards = bytes(text)
      .split(/\r?\n/)
      .flatMap((line) => patternOf(line, ignoresCase))
      .reverse();
  }

  get isEmpty(): boolean {
    return this.#backwards.length === 0;
  }

  verdict(path: string, isFolder: boolean): Verdict {
    const written = bytes(path);
    const found = this.#backwards.find(({ foldersOnly, matches }) => (isFolder || !foldersOnly) && matches(written));
    if (found === undefined) return undefined;
    return found.takesBack ? 'taken back' : 'ignored';
  }
}

/** Git matches bytes: a `?` is one of the two of `ü`. */
const bytes = (text: string): string =>
  /[^\p{ASCII}]/u.test(text) ? Buffer.from(text, 'utf8').toString('latin1') : text;

function patternOf(line: string, ignoresCase: boolean): Pattern[] {
  if (line.startsWith('#')) return [];
  // Blanks at the end count only behind a backslash.
  const trimmed = line.replace(/((?:\\.|[^\\ ])?) +$/, '$1');
  const takesBack = trimmed.startsWith('!');
  const written = takesBack ? trimmed.slice(1) : trimmed;
  const foldersOnly = written.endsWith('/');
  const body = foldersOnly ? written.slice(0, -1) : written;
  if (body === '') return [];
  const source = sourceOf(body.replace(/^\//, ''));
  if (source === undefined) return [];
  const pattern = new RegExp(`^${source}$`, ignoresCase ? 'is' : 's');
  const ofWholePath = body.includes('/');
  const matches = (path: string) => pattern.test(ofWholePath ? path : path.slice(path.lastIndexOf('/') + 1));
  return [{ takesBack, foldersOnly, matches }];
}

/** A regular expression; undefined: it matches nothing (a class without end, a backslash at the end). */
function sourceOf(glob: string): string | undefined {
  let source = '';
  for (let at = 0; at < glob.length; ) {
    const rest = glob.slice(at);
    const stars = /^\*+/.exec(rest)?.[0].length ?? 0;
    if (stars > 0) {
      const [piece, taken] = starsOf(glob, at, stars);
      source += piece;
      at += taken;
    } else if (rest.startsWith('?')) {
      source += '[^/]';
      at += 1;
    } else if (rest.startsWith('[')) {
      const set = classOf(rest);
      if (set === undefined) return undefined;
      source += set.source;
      at += set.length;
    } else {
      const isEscaped = rest.startsWith('\\');
      const char = rest.charAt(Number(isEscaped));
      if (isEscaped && rest.length === 1) return undefined;
      source += escaped(char);
      at += char.length + Number(isEscaped);
    }
  }
  return source;
}

/** Two stars between slashes or ends go through folders; others stay within one. */
function starsOf(glob: string, at: number, stars: number): [source: string, taken: number] {
  const opens = at === 0 || glob.charAt(at - 1) === '/';
  const after = glob.charAt(at + stars);
  if (stars < 2 || !opens || (after !== '' && after !== '/')) return ['[^/]*', stars];
  return after === '/' ? ['(?:.*/)?', stars + 1] : [at === 0 ? '.*' : '.+', stars];
}

const posix: Readonly<Record<string, string>> = {
  ...{ alpha: 'a-zA-Z', digit: '0-9', alnum: 'a-zA-Z0-9', upper: 'A-Z', lower: 'a-z', xdigit: '0-9a-fA-F' },
  ...{ space: String.raw`\s`, blank: String.raw` \t`, punct: String.raw`!-\/:-@\[-\x60\{-~` },
};

function classOf(text: string): { source: string; length: number } | undefined {
  const match = /^\[([!^]?)(\]?(?:\[:[a-z]+:\]|\\.|[^\]\\])*)\]/s.exec(text);
  if (match === null) return undefined;
  const [whole, negation = '', inside = ''] = match;
  const items = inside.match(/\[:[a-z]+:\]|\\.|./gs) ?? [];
  const written = items.map((item, index) => {
    if (item.startsWith('[:')) return posix[item.slice(2, -2)] ?? '';
    const isRange = item === '-' && index > 0 && index < items.length - 1;
    return isRange ? '-' : escapedInClass(item.replace(/^\\(?=.)/s, ''));
  });
  // No class matches a slash.
  return { source: `(?!/)[${negation === '' ? '' : '^'}${written.join('')}]`, length: whole.length };
}

const escaped = (char: string): string => (/[\\^$.*+?()[\]{}|/]/.test(char) ? `\\${char}` : char);
const escapedInClass = (char: string): string => (/[\\\]^[-]/.test(char) ? `\\${char}` : char);
