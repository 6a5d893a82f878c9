import type { Suggestion } from '../extension/messages.ts';
import type { Icon } from './dom.ts';

/** Of what a question may mention, and what the planner adds by itself. */
const icons: Readonly<Record<Suggestion['kind'] | 'found' | 'map', Icon>> = {
  file: 'file',
  folder: 'folder',
  symbol: 'symbol',
  selection: 'selection',
  problems: 'warning',
  diff: 'diff',
  terminal: 'terminal',
  repository: 'search',
  found: 'search',
  map: 'map',
};
const known: ReadonlyMap<string, Icon> = new Map(Object.entries(icons));

export const contextIcon = (kind: string): Icon => known.get(kind) ?? icons.file;
