/** Which lines of a completion belong to the statement or block of the cursor, and where a model goes round in circles. */
import { indentationOf, type Token } from '../index/syntax/lexer.ts';
import type { Lexicon } from '../index/syntax/lexicons.ts';

export const opensBlock = (line: string, { opensBlock: own }: Lexicon): boolean =>
  /[{([]\s*$|=>\s*$/.test(line) || own?.test(line.trimEnd()) === true;

/** Takes the lines of a completion one by one and says before which the cursor's scope is left. */
export class Scope {
  readonly #lexicon: Lexicon;
  readonly #indentation: number;
  readonly #depth: number;
  readonly #takesSiblings: boolean;
  #last: string;
  #isFirst = true;
  #hasOpened = false;
  #isOpen = false;
  #hasText = false;
  #isBehindBlank = false;
  /** Where the text ends if the scope is left: behind the last line that was not blank. */
  end = 0;

  /**
   * @param depth frames open where the statement may end
   * @param takesSiblings lines as deep as the cursor belong to it, up to an empty one
   */
  constructor(lexicon: Lexicon, linePrefix: string, depth: number, takesSiblings: boolean) {
    this.#lexicon = lexicon;
    this.#indentation = indentationOf(linePrefix);
    this.#last = linePrefix;
    this.#depth = depth;
    this.#takesSiblings = takesSiblings;
  }

  take(line: string, lineBreak: Token): void {
    const shown = this.#isFirst ? this.#last + line : line;
    this.#isFirst = false;
    this.#isOpen = lineBreak.depth > this.#depth || !lineBreak.isCode;
    this.#isBehindBlank = shown.trim() === '';
    if (this.#isBehindBlank) return;
    this.#hasText = true;
    this.#last = shown;
    this.#hasOpened ||= opensBlock(shown, this.#lexicon);
    this.end = lineBreak.start;
  }

  /** @param line begun at least with its first word */
  endsBefore(line: string): boolean {
    if (this.#isOpen || !this.#hasText || line.trim() === '') return false;
    const indentation = indentationOf(line);
    if (indentation < this.#indentation) return true;
    if (indentation > this.#indentation)
      return !(this.#hasOpened || this.#takesSiblings || continues(this.#last, line));
    if (this.#takesSiblings) return this.#isBehindBlank;
    return !((this.#hasOpened && endsBlock.test(line)) || continuesBlock.test(line));
  }
}

/** Lines that belong to the block above them although they stand as far left as its head. */
const endsBlock = /^\s*([)\]}]|end\b|fi\b|done\b|esac\b)/;
const continuesBlock = /^\s*(\{|(else|elif|elsif|except|finally|catch|ensure|rescue|then|do)\b)/;

/** A deeper line that goes on with the expression of the line above. */
const continues = (above: string, line: string): boolean =>
  /(?:[-+*/%=,&|<?:({[\\]|\b(?:and|or|in|is|not|return|extends|implements|where))\s*$/.test(above) ||
  /^\s*(?:[.?:&|+*/%=<>{-]|(?:and|or|is|in|as|implements|extends|throws|where)\b)/.test(line);

/** Repetitions need not be whole tokens: `is_not_fixture_is_not_fixture_is_not_`. */
const loop = /(\S[^\n]{9,79}?)\1{2,}[^\n]{0,79}$|(\S[^\n]{3,79}?)\2{3,}[^\n]{0,79}$/;
const searchedChars = 480;

/** Where a line has begun to repeat itself; undefined: it has not, or the file has such lines already. */
export function loopStart(text: string, tokens: readonly Token[], prefix: string): number | undefined {
  const searched = Math.max(text.lastIndexOf('\n') + 1, text.length - searchedChars);
  const found = loop.exec(text.slice(searched));
  const unit = found?.[1] ?? found?.[2];
  if (!found || unit === undefined || !/\p{L}{3}/u.test(unit) || prefix.includes(unit + unit)) return undefined;
  const first = searched + found.index;
  const second = first + unit.length;
  if (tokens.some(({ start }) => start === second) && tokens.some(({ start }) => start === first)) return second;
  return tokens.findLast(({ start }) => start <= first)?.start;
}

/** Where the third copy of a line, and more to come, begins to say nothing new. */
export function repeatedLines(lines: readonly string[], prefix: string): number | undefined {
  const third = lines.findIndex(
    (line, i) => i > 1 && /\p{L}{2}/u.test(line) && line === lines[i - 1] && line === lines[i - 2],
  );
  return third < 0 || prefix.includes(`${lines[third]}\n${lines[third]}\n`) ? undefined : third - 1;
}
