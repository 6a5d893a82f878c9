/**
 * Keeps a completion from breaking the file: nothing is offered that no longer parses where the text parsed before. What
 * it opened and did not close is closed; where that does not help, lines are taken off its end.
 */

/** How many places of a text do not parse; undefined where that cannot be told. */
export type SyntaxErrors = (path: string, text: string) => Promise<number | undefined>;

export interface Place {
  readonly prefix: string;
  readonly suffix: string;
  readonly path?: string | undefined;
}

/** Each is parsed; a longer completion is cut at once to this many lines. */
const maxCandidates = 8;

export async function withoutBreaking(text: string, place: Place, errors: SyntaxErrors): Promise<string> {
  const { path, prefix, suffix } = place;
  if (path === undefined || text === '') return text;
  const before = await errors(path, prefix + suffix);
  if (before === undefined) return text;
  for (const candidate of candidatesOf(text, prefix)) {
    const after = await errors(path, prefix + candidate + suffix);
    if (after !== undefined && after <= before) return candidate;
  }
  // Unfinished code around the cursor: the model knows as much as the parser.
  return before > 0 ? text : '';
}

function candidatesOf(text: string, prefix: string): string[] {
  const lines = text.split('\n');
  const shorter = lines.map((_, i) =>
    lines
      .slice(0, lines.length - i)
      .join('\n')
      .trimEnd(),
  );
  const candidates = shorter.flatMap((own) => [own, closed(own, prefix)]).filter((own) => own.trim() !== '');
  return [...new Set(candidates)].slice(0, maxCandidates);
}

const closers: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

/** With the brackets that it opened closed: on the same line, or each block on a line of its own as deep as it began. */
function closed(text: string, prefix: string): string {
  const open: { readonly bracket: string; readonly indentation: string }[] = [];
  let line = prefix.slice(prefix.lastIndexOf('\n') + 1);
  let indentation = indentationOf(line);
  for (const char of text) {
    if (char === '\n') {
      line = '';
      indentation = '';
      continue;
    }
    line += char;
    indentation = indentationOf(line);
    if (char in closers) open.push({ bracket: char, indentation });
    else if (char === closers[open.at(-1)?.bracket ?? '']) open.pop();
  }
  return open.reverse().reduce((whole, own) => {
    const closer = closers[own.bracket] ?? '';
    return own.bracket === '{' && text.includes('\n') ? `${whole}\n${own.indentation}${closer}` : whole + closer;
  }, text);
}

const indentationOf = (line: string): string => /^[ \t]*/.exec(line)?.[0] ?? '';
