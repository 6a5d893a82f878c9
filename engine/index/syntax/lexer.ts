/** Splits source text into tokens and tracks open brackets, strings (with interpolated code) and comments. */
import type { Lexicon, StringForm } from './lexicons.ts';

/** An open bracket, string or comment. */
export interface Frame {
  readonly kind: 'bracket' | 'string' | 'comment';
  /** The closing text. */
  readonly closer: string;
  /** Offset of its opening mark. */
  readonly start: number;
  readonly form?: StringForm;
  /** Indentation of the line that opens it, in columns. */
  readonly indentation: number;
  /** True if the content is an expression (parentheses, list, literal), not a block of statements. */
  readonly isExpression?: boolean;
}

export interface Token {
  /** A word, a punctuation mark or a line break. Other whitespace is skipped. */
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** Open frames before the token, and the minimum since the start of the text. */
  readonly depth: number;
  readonly floor: number;
  /** True outside strings and comments. For a line break: whether the next line starts in code. */
  readonly isCode: boolean;
  /** The frame that this token closes. */
  readonly closes?: Frame;
  /** True for a closing bracket without an opening one. */
  readonly isStray?: true;
}

export interface Lexed {
  readonly tokens: readonly Token[];
  /** Frames open at the end of the text, innermost last. */
  readonly frames: readonly Frame[];
  /** Number of strings that ended at the end of their line without a closing mark. */
  readonly cutStrings: number;
}

/**
 * @param frames open at the start of the text
 * @param lineSoFar text before `text` on its first line
 */
export function lex(text: string, lexicon: Lexicon, frames: readonly Frame[] = [], lineSoFar = ''): Lexed {
  const lexer = new Lexer(text, lexicon, frames, lineSoFar);
  return lexer.run();
}

const closerOf: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };
const openerOf: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{', '>': '<' };
const wordAt = /[\p{L}\p{N}_$]+/uy;
const blanksAt = /[^\S\n]+/y;
const patternAt = /\/(?![*/])(?:\\[^\n]|\[(?:\\[^\n]|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/y;
/** After these, `/` starts a regular expression, not a division. */
const beforePattern = /^(?:[(,=:[!&|?{};+\-*%~^\n]|return|typeof|case|in|of|when|and|or|not|if|unless)$/;
/** After these, `{` starts a literal, not a block. */
const beforeLiteral = /^(?:[(,=:[?&|]|return|export|import|type)$/;

class Lexer {
  readonly #text: string;
  readonly #lexicon: Lexicon;
  readonly #frames: Frame[];
  readonly #tokens: Token[] = [];
  #at = 0;
  #floor: number;
  #indentation: number;
  /** True if the line has only whitespace so far. */
  #isLineStart: boolean;
  /** Closing words of the heredocs that begin on the next line. */
  #heredocs: string[];
  #lastCode = '\n';
  #cutStrings = 0;

  constructor(text: string, lexicon: Lexicon, frames: readonly Frame[], lineSoFar: string) {
    this.#text = text;
    this.#lexicon = lexicon;
    this.#frames = [...frames];
    this.#floor = frames.length;
    this.#isLineStart = lineSoFar.trim() === '';
    this.#indentation = indentationOf(this.#isLineStart ? lineSoFar + lineAt(text, 0) : lineSoFar);
    const isText = frames.at(-1)?.kind === 'string' || frames.at(-1)?.kind === 'comment';
    this.#heredocs = lineSoFar === '' || isText ? [] : heredocsOf(lex(lineSoFar, lexicon), lexicon);
  }

  run(): Lexed {
    while (this.#at < this.#text.length) {
      const top = this.#frames.at(-1);
      if (this.#text[this.#at] === '\n') this.#newLine(top);
      else if (this.#match(blanksAt)) this.#at = blanksAt.lastIndex;
      else if (top?.kind === 'comment') this.#inComment(top);
      else if (top?.kind === 'string') this.#inString(top);
      else this.#inCode(top);
    }
    return { tokens: this.#tokens, frames: this.#frames, cutStrings: this.#cutStrings };
  }

  #newLine(top: Frame | undefined): void {
    const isInText = top?.kind === 'comment' ? top.closer !== '\n' : top?.form?.spansLines === true;
    if (top && top.kind !== 'bracket' && !isInText) {
      this.#pop();
      if (top.kind === 'string') this.#cutStrings++;
    }
    this.#emit('\n', { isCode: !isInText && this.#heredocs.length === 0 });
    for (const closer of this.#heredocs.reverse()) this.#push({ kind: 'string', closer, form: this.#heredocForm });
    this.#heredocs = [];
    this.#isLineStart = true;
    this.#indentation = indentationOf(lineAt(this.#text, this.#at));
  }

  #inComment(top: Frame): void {
    if (this.#startsWith(top.closer)) this.#close(top, top.closer);
    else this.#plain(false);
  }

  #inString(top: Frame): void {
    const escaped = top.form?.escape;
    const opener = top.form?.nests ? openerOf[top.closer] : undefined;
    const twice = top.closer + top.closer;
    const interpolation = top.form?.interpolations?.find(([open]) => this.#startsWith(open));
    const isHeredoc = top.form?.open === never;
    if (escaped === 'doubled' && this.#startsWith(twice)) this.#emit(twice, {});
    // A doubled brace in Python and C# strings is a literal brace.
    else if (interpolation?.[0] === '{' && this.#startsWith('{{')) this.#emit('{{', {});
    else if (interpolation) {
      const [open, closer] = interpolation;
      this.#emit(open, {});
      this.#push({ kind: 'bracket', closer });
    } else if (escaped === 'backslash' && this.#text[this.#at] === '\\')
      this.#emit(this.#text.slice(this.#at, this.#at + 2), {});
    else if (opener !== undefined && this.#startsWith(opener)) {
      this.#emit(opener, {});
      this.#push({ kind: 'string', closer: top.closer, ...(top.form && { form: top.form }) });
    } else if (this.#startsWith(top.closer) && (!isHeredoc || this.#isAlone(top.closer))) this.#close(top, top.closer);
    else this.#plain(false);
  }

  /** Whether `word` begins the line as a whole word. */
  #isAlone(word: string): boolean {
    return this.#isLineStart && this.#match(wordAt)?.[0] === word;
  }

  #inCode(top: Frame | undefined): void {
    if (this.#opensComment() || this.#opensHeredoc() || this.#opensString() || this.#opensPattern()) return;
    const mark = this.#text[this.#at] ?? '';
    const closer = this.#lexicon.brackets ? closerOf[mark] : undefined;
    if (closer !== undefined) {
      const isExpression = mark !== '{' || this.#lexicon.isData || beforeLiteral.test(this.#lastCode);
      this.#emit(mark, { isCode: true });
      this.#push({ kind: 'bracket', closer, isExpression });
    } else if (this.#lexicon.brackets && ')]}'.includes(mark)) this.#closeBracket(mark, top);
    else this.#plain(true);
  }

  /** A complete regular expression is one token. If the text ends inside it (at the cursor), it stays open like a string. */
  #opensPattern(): boolean {
    if (this.#text[this.#at] !== '/' || !this.#lexicon.patterns || !beforePattern.test(this.#lastCode)) return false;
    const pattern = this.#match(patternAt);
    if (pattern) this.#emit(pattern[0], { isCode: true });
    else if (this.#text.includes('\n', this.#at)) return false;
    else {
      this.#emit('/', {});
      this.#push({ kind: 'string', closer: '/', form: { open: patternAt, escape: 'backslash' } });
    }
    return true;
  }

  #opensComment(): boolean {
    const block = this.#lexicon.blockComments.find(([open]) => this.#startsWith(open));
    const opening = block ? block[0] : this.#lexicon.lineComments.find((mark) => this.#startsWith(mark));
    if (opening === undefined) return false;
    const before = this.#text[this.#at - 1];
    // In languages with `#` comments, `$#`, `a#b` and colours are not comments.
    if (opening === '#' && before !== undefined && !/\s|[;)]/.test(before)) return false;
    this.#emit(opening, {});
    this.#push({ kind: 'comment', closer: block ? block[1] : '\n' });
    return true;
  }

  get #heredocForm(): StringForm {
    const { interpolations = [] } = this.#lexicon.strings.find((form) => form.interpolations) ?? {};
    return { open: never, escape: 'none', interpolations, spansLines: true };
  }

  /** The heredoc itself begins on the next line. */
  #opensHeredoc(): boolean {
    const opening = this.#lexicon.heredoc && this.#match(this.#lexicon.heredoc);
    if (!opening) return false;
    this.#heredocs.push(opening.at(-1) ?? '');
    this.#emit(opening[0], { isCode: true });
    return true;
  }

  #opensString(): boolean {
    const before = this.#text[this.#at - 1] ?? '';
    const isInWord = /[\p{L}\p{N}_]/u.test(before);
    for (const form of this.#lexicon.strings) {
      const opening = this.#match(form.open);
      if (!opening || (isInWord && (/^\w/.test(opening[0]) || opening[0] === "'"))) continue;
      const closer = form.close ? form.close(opening) : (opening.at(-1) ?? '');
      this.#emit(opening[0], {});
      this.#push({ kind: 'string', closer, form });
      return true;
    }
    return false;
  }

  /**
   * Closes the innermost bracket of its kind. A closing bracket at the start of a line prefers the bracket whose line has the
   * same indentation; brackets inside it were never closed.
   */
  #closeBracket(mark: string, top: Frame | undefined): void {
    const fits = (frame: Frame): boolean => frame.kind === 'bracket' && frame.closer === mark;
    const isMisplaced = this.#isLineStart && top !== undefined && top.indentation > this.#indentation;
    const aligned = isMisplaced ? this.#alignedFrame(fits) : -1;
    const outermost = this.#frames.findLastIndex(({ kind }) => kind !== 'bracket') + 1;
    const last = this.#frames.findLastIndex((frame, i) => i >= outermost && fits(frame));
    const index = aligned >= 0 ? aligned : last;
    const closes = this.#frames[index];
    if (closes === undefined) {
      this.#emit(mark, { isCode: true, isStray: true });
      return;
    }
    const isStray = aligned < 0 && index < this.#frames.length - 1;
    this.#emit(mark, { isCode: true, closes, ...(isStray && { isStray }) });
    while (this.#frames.length > index) this.#pop();
  }

  /** If a literal and a block have the same indentation, the text after the bracket decides between them. */
  #alignedFrame(fits: (frame: Frame) => boolean): number {
    const isAligned = (frame: Frame): boolean => fits(frame) && frame.indentation === this.#indentation;
    const endsLiteral = /^.[^\S\n]*[;,)\]]/.test(this.#text.slice(this.#at, this.#at + 80));
    const alike = this.#frames.findLastIndex(
      (frame) => isAligned(frame) && (frame.isExpression === true) === endsLiteral,
    );
    return alike >= 0 ? alike : this.#frames.findLastIndex(isAligned);
  }

  #close(top: Frame, text: string): void {
    this.#emit(text, { closes: top });
    this.#pop();
    this.#lastCode = ')';
  }

  #plain(isCode: boolean): void {
    const text = this.#match(wordAt)?.[0] ?? String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 0);
    this.#emit(text, { isCode });
  }

  #emit(text: string, { isCode = false, ...marks }: Partial<Pick<Token, 'isCode' | 'closes' | 'isStray'>>): void {
    const start = this.#at;
    this.#at += text.length;
    this.#tokens.push({ text, start, end: this.#at, depth: this.#frames.length, floor: this.#floor, isCode, ...marks });
    if (isCode && text !== '\n') this.#lastCode = text;
    this.#isLineStart = false;
  }

  #push(frame: Omit<Frame, 'indentation' | 'start'>): void {
    this.#frames.push({ ...frame, indentation: this.#indentation, start: this.#tokens.at(-1)?.start ?? 0 });
    this.#lastCode = '(';
  }

  #pop(): void {
    this.#frames.pop();
    this.#floor = Math.min(this.#floor, this.#frames.length);
  }

  #startsWith(text: string): boolean {
    return this.#text.startsWith(text, this.#at);
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    return pattern.exec(this.#text);
  }
}

/** Never matches: a heredoc has no opening mark at its beginning. */
const never = /(?!)/y;

function heredocsOf({ tokens }: Lexed, { heredoc }: Lexicon): string[] {
  if (heredoc === undefined) return [];
  return tokens.flatMap(({ text, isCode }) => {
    heredoc.lastIndex = 0;
    const closer = isCode ? heredoc.exec(text)?.at(-1) : undefined;
    return closer === undefined ? [] : [closer];
  });
}

const tabColumns = 4;

/** Indentation of a line, in columns. */
export function indentationOf(line: string): number {
  let columns = 0;
  for (const mark of line) {
    if (mark === ' ') columns++;
    else if (mark === '\t') columns += tabColumns - (columns % tabColumns);
    else break;
  }
  return columns;
}

function lineAt(text: string, start: number): string {
  const end = text.indexOf('\n', start);
  return text.slice(start, end < 0 ? undefined : end);
}
