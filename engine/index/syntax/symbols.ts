/** Extracts the definitions and imports of a parsed file. */
import { type SymbolKind, symbolKinds } from '../../protocol/indexProtocol.ts';
import type { QueryMatch } from './treeSitter.ts';

export interface Definition {
  readonly name: string;
  readonly kind: SymbolKind;
  /** Names of the enclosing definitions, outermost first, joined by dots; '' at top level. */
  readonly container: string;
  /** Lines start at 1, end inclusive. */
  readonly firstLine: number;
  readonly lastLine: number;
  /** Line of the name. */
  readonly nameLine: number;
}

export interface FileSymbols {
  readonly definitions: readonly Definition[];
  /** Import targets as written, without quotes. */
  readonly imports: readonly string[];
}

/** Longer names are generated, or a parse error. */
const maxNameChars = 200;

/** A definition with its range, which determines nesting. */
interface Found {
  readonly definition: Definition;
  readonly start: number;
  readonly end: number;
}

export function symbolsOf(matches: readonly QueryMatch[]): FileSymbols {
  const found = new Map<string, Found>();
  const imports = new Set<string>();
  for (const match of matches) {
    const own = foundIn(match);
    if (own) {
      // Query patterns overlap: a constant that holds a function matches both.
      const key = `${own.definition.nameLine} ${own.definition.name}`;
      if ((found.get(key)?.definition.kind ?? 'constant') === 'constant') found.set(key, own);
    }
    const imported = match.captures.find(({ name }) => name === 'import')?.node.text;
    if (imported !== undefined) imports.add(imported.replaceAll(/^["'<]|["'>]$/g, ''));
  }
  return { definitions: withContainers([...found.values()]), imports: [...imports] };
}

function foundIn({ captures }: QueryMatch): Found | undefined {
  const named = captures.find(({ name }) => name === 'name')?.node;
  const whole = captures.find(({ name }) => isKind(name));
  if (!named || !whole || !isKind(whole.name)) return undefined;
  const name = plainName(named.text);
  if (name === '' || name.length > maxNameChars) return undefined;
  const { startIndex: start, endIndex: end, startPosition, endPosition } = whole.node;
  const firstLine = startPosition.row + 1;
  // The node of a C macro includes its line break and so ends on the next line.
  const lastLine = Math.max(firstLine, endPosition.row + (endPosition.column === 0 ? 0 : 1));
  const nameLine = named.startPosition.row + 1;
  return { definition: { name, kind: whole.name, container: '', firstLine, lastLine, nameLine }, start, end };
}

const isKind = (name: string): name is SymbolKind => symbolKinds.some((kind) => kind === name);

/** The name that callers use: `inner` for `Outer::inner<T>`, `secret` for `#secret`. */
function plainName(text: string): string {
  const scope = text.lastIndexOf('::');
  const last = scope < 0 ? text : text.slice(scope + 2);
  return /[\p{L}_$~][\p{L}\p{N}_$]*/u.exec(last)?.[0] ?? '';
}

function withContainers(found: Found[]): Definition[] {
  found.sort((a, b) => a.start - b.start || b.end - a.end);
  const open: Found[] = [];
  return found.map((own) => {
    while ((open.at(-1)?.end ?? Number.POSITIVE_INFINITY) < own.end) open.pop();
    const container = open.map(({ definition }) => definition.name).join('.');
    open.push(own);
    return { ...own.definition, container };
  });
}
