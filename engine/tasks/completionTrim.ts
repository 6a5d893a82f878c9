/** Where an inline completion ends: by the scope of the cursor, and before it repeats what follows the cursor. */

export interface Cursor {
  /** Text before and after the cursor. */
  readonly prefix: string;
  readonly suffix: string;
  readonly multiline: boolean;
}

export interface Trimmed {
  readonly text: string;
  /** Nothing that the model adds would change the text. */
  readonly complete: boolean;
}

/**
 * @param generated what the model wrote so far.
 * @param ended whether the model is done, so that the last line is a whole one.
 */
export function trimCompletion(generated: string, cursor: Cursor, ended: boolean): Trimmed {
  const restOfLine = firstLine(cursor.suffix).trim();
  const closed = restOfLine === '' ? generated : cutAtRepeatedCloser(generated, restOfLine);
  // Text behind the cursor on its line: only that line can be completed.
  const multiline = cursor.multiline && restOfLine === '';
  const scope = multiline ? multilineScope(closed, cursor, ended) : singleLine(closed);
  const text = withoutRepeatedRest(scope.text, restOfLine).trimEnd();
  return { text: text.trim() === '' ? '' : text, complete: scope.complete || closed.length < generated.length };
}

const firstLine = (text: string): string => text.slice(0, endOfLine(text));

function endOfLine(text: string): number {
  const end = text.indexOf('\n');
  return end < 0 ? text.length : end;
}

function singleLine(text: string): Trimmed {
  const end = endOfLine(text);
  return { text: text.slice(0, end), complete: end < text.length };
}

function multilineScope(generated: string, cursor: Cursor, ended: boolean): Trimmed {
  const cursorLine = cursor.prefix.slice(cursor.prefix.lastIndexOf('\n') + 1);
  const nextSuffixLine = cursor.suffix
    .split('\n')
    .find((line, i) => i > 0 && line.trim() !== '')
    ?.trimEnd();
  const scope = new Scope(cursorLine, nextSuffixLine);
  const lines = generated.split('\n');
  // While the model writes, its last line may still grow.
  const whole = ended ? lines.length : lines.length - 1;
  for (let i = 0; i < whole; i++) {
    const kept = scope.take(lines[i] ?? '');
    if (kept !== undefined) return { text: lines.slice(0, kept).join('\n'), complete: true };
  }
  const kept = ended ? undefined : scope.leftBy(lines[whole] ?? '');
  return kept === undefined
    ? { text: generated, complete: false }
    : { text: lines.slice(0, kept).join('\n'), complete: true };
}

/** Takes the lines of a completion one by one and says when it has left the scope that the cursor is in. */
class Scope {
  readonly #cursorLine: string;
  readonly #nextSuffixLine: string | undefined;
  readonly #indentation: number;
  /** The cursor stands on an empty line, so lines as deep as it are siblings; otherwise they follow its statement. */
  readonly #siblings: boolean;
  #lines: string[] = [];
  /** Brackets opened and not closed since the start of the cursor's line. */
  #depth: number;
  #hasText = false;
  #blankSince: number | undefined;

  constructor(cursorLine: string, nextSuffixLine: string | undefined) {
    this.#cursorLine = cursorLine;
    this.#nextSuffixLine = nextSuffixLine;
    this.#indentation = indentationOf(cursorLine);
    this.#siblings = cursorLine.trim() === '';
    this.#depth = depthOf(cursorLine);
  }

  /** How many lines belong to the completion, once that is known. */
  take(line: string): number | undefined {
    const index = this.#lines.length;
    const shown = index === 0 ? this.#cursorLine + line : line;
    const end = this.#endBefore(shown, index);
    this.#lines.push(shown);
    if (end !== undefined) return end;
    this.#depth += depthOf(line);
    if (shown.trim() === '') {
      if (this.#hasText) this.#blankSince ??= index;
      return undefined;
    }
    this.#hasText = true;
    this.#blankSince = undefined;
    const closes = index > 0 && !this.#siblings && endsBlock.test(line) && indentationOf(line) === this.#indentation;
    return closes && this.#depth <= 0 ? index + 1 : undefined;
  }

  /** As `take`, for a line that is still being written: known once its first word is, which spares the rest of it. */
  leftBy(line: string): number | undefined {
    const index = this.#lines.length;
    const firstWordStands = /^\s*(\w+\W|[^\w\s])/.test(line);
    return index > 0 && firstWordStands ? this.#endByIndentation(line) : undefined;
  }

  #endBefore(line: string, index: number): number | undefined {
    if (line.trim() === '') return undefined;
    const end = this.#blankSince ?? index;
    if (line.trimEnd() === this.#nextSuffixLine && (index > 0 || this.#siblings)) return end;
    if (index > 1 && line === this.#lines[index - 1] && line === this.#lines[index - 2]) return index - 1;
    return index === 0 ? undefined : this.#endByIndentation(line);
  }

  #endByIndentation(line: string): number | undefined {
    const end = this.#blankSince ?? this.#lines.length;
    const indentation = indentationOf(line);
    if (indentation < this.#indentation) return end;
    if (indentation > this.#indentation) return undefined;
    if (this.#siblings) return this.#blankSince;
    return this.#depth > 0 || endsBlock.test(line) || continuesBlock.test(line) ? undefined : end;
  }
}

const tabColumns = 4;

function indentationOf(line: string): number {
  let columns = 0;
  for (const character of line) {
    if (character === ' ') columns++;
    else if (character === '\t') columns += tabColumns - (columns % tabColumns);
    else break;
  }
  return columns;
}

const openers = '([{';
const closers = ')]}';

/** Brackets opened minus brackets closed. Those inside strings count too: a small error, where a parser would cost a grammar. */
function depthOf(text: string): number {
  let depth = 0;
  for (const character of text) {
    if (openers.includes(character)) depth++;
    else if (closers.includes(character)) depth--;
  }
  return depth;
}

/** Lines that belong to the block above them although they stand as far left as its head. */
const endsBlock = /^\s*([)\]}]|end\b)/;
const continuesBlock = /^\s*(\{|(else|elif|elsif|except|finally|catch|ensure|rescue)\b)/;

/** Cuts before the first bracket that closes what was opened before the cursor, where the line already closes it. */
function cutAtRepeatedCloser(generated: string, restOfLine: string): string {
  const closer = restOfLine.charAt(0);
  if (!closers.includes(closer)) return generated;
  let depth = 0;
  for (let i = 0; i < generated.length; i++) {
    const character = generated.charAt(i);
    if (openers.includes(character)) depth++;
    else if (closers.includes(character)) depth--;
    if (depth < 0) return character === closer ? generated.slice(0, i) : generated;
  }
  return generated;
}

/** Removes from the end what stands behind the cursor already: all of it, or closing marks of it. */
function withoutRepeatedRest(text: string, restOfLine: string): string {
  const trimmed = text.trimEnd();
  for (let length = restOfLine.length; length > 0; length--) {
    const start = restOfLine.slice(0, length);
    const isClosing = /^[)\]}'"`;,>]+$/.test(start);
    if ((length === restOfLine.length || isClosing) && trimmed.endsWith(start)) return trimmed.slice(0, -length);
  }
  return text;
}
