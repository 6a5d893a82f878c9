/** What a search of the repository offers to go with a question. */
import { limits } from '../../limits.ts';
import type { Passage } from '../../protocol/indexProtocol.ts';
import type { Candidate } from './planner.ts';

/** A candidate before its tokens are counted. */
export type Source = Omit<Candidate, 'tokens'>;

/** How much is asked of the index for one question. */
export const { passages: searchedPassages, mapChars } = limits.question;

/** `label`: how the user calls the map. */
export function mapSources(map: string, label: string): Source[] {
  if (map === '') return [];
  const lines = map.split('\n');
  const about = { path: label, languageId: '', firstLine: 0, fileLines: lines.length, centre: 0, divisible: true };
  return [{ id: mapId, tier: 'map', label, lines, ...about }];
}

export const mapId = 'map';

export function passageSource({ path, firstLine, lastLine, text }: Passage): Source {
  const name = path.slice(path.lastIndexOf('/') + 1);
  return {
    id: `found:${path}:${firstLine}`,
    tier: 'found',
    label: `${name}:${firstLine}–${lastLine}`,
    path,
    languageId: /\.(\w+)$/.exec(path)?.[1] ?? '',
    lines: text.split('\n'),
    firstLine,
    fileLines: 0,
    centre: 0,
    divisible: false,
  };
}
