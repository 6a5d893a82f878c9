/** `node scripts/models-table.ts` writes docs/models.md: which models run how on which machines. A test fails if it is outdated. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { usualContextTokens } from '../engine/backend/memoryPlan.ts';
import { type Device, speedOf } from '../engine/backend/speed.ts';
import { type CatalogueEntry, catalogue, defaultModelId } from '../engine/catalogue/catalogue.ts';
import { choosePair } from '../engine/catalogue/choice.ts';
import { type Hardware, longestContext, memoryNeededBytes, placeOf } from '../engine/catalogue/fit.ts';
import { showBytes } from '../engine/errors.ts';
import { machines } from './shared/machines.ts';
import { projectRoot } from './shared/paths.ts';

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;

function pairTable(): string[] {
  const rows = Object.entries(machines).map(([name, hardware]) => {
    const { chat, completion } = choosePair(catalogue, hardware, { fallbackId: defaultModelId });
    const bytes = (entry: CatalogueEntry | undefined): number =>
      entry ? memoryNeededBytes(entry, placeOf(entry, hardware)?.kind ?? 'processor') : 0;
    return row([name, chat?.name ?? '', completion?.name ?? 'the same', showBytes(bytes(chat) + bytes(completion))]);
  });
  return [row(['machine', 'answers', 'completes', 'memory']), row(['---', '---', '---', '---:']), ...rows];
}

function modelTable(entry: CatalogueEntry): string[] {
  const rows = Object.entries(machines).flatMap(([name, hardware]) => {
    const place = placeOf(entry, hardware);
    if (place === undefined) return [];
    const { decode, prefill } = speedOf(entry, place);
    return [row([name, shownPlace(place), context(entry, place, hardware), shown(decode), shown(prefill)])];
  });
  const needs = `Needs ${showBytes(memoryNeededBytes(entry, 'card'))} on a GPU with a context of ${Math.min(8192, entry.contextTokens)} tokens.`;
  if (rows.length === 0) return ['', `## ${entry.name}`, '', `${needs} Fits on none of these machines.`];
  const head = row(['machine', 'runs on', 'longest context', 'decode, tokens/s', 'prefill, tokens/s']);
  return ['', `## ${entry.name}`, '', needs, '', head, row(['---', '---', '---:', '---:', '---:']), ...rows];
}

const placeName = { card: 'card', shared: 'GPU, shared memory', processor: 'CPU', split: 'CPU' };

function shownPlace({ kind, cardShare, expertsOutside }: Device): string {
  if (expertsOutside !== undefined) return `card, experts of ${expertsOutside} layers CPU`;
  return cardShare === undefined ? placeName[kind] : `${Math.round(100 * cardShare)} % card, ${placeName[kind]}`;
}

const shown = (speed: number): string => (speed < 10 ? speed.toFixed(1) : Math.round(speed).toLocaleString('en'));

function context(entry: CatalogueEntry, { kind }: Device, hardware: Hardware): string {
  const { downloadBytes, cacheBytesPerToken, contextTokens } = entry;
  // Layers are placed beside a cache of this size.
  if (kind === 'split') return Math.min(usualContextTokens, contextTokens).toLocaleString('en');
  const cacheBytes = (tokens: number): number => tokens * cacheBytesPerToken;
  const needs = { weightBytes: downloadBytes, cacheBytes, longestTokens: contextTokens };
  const tokens = longestContext(needs, entry, hardware);
  return tokens.toLocaleString('en');
}

export function modelsDocument(): string {
  return [
    '# Models by machine',
    '',
    '<!-- made by scripts/models-table.ts -->',
    '',
    'What Hearth recommends and expects, before any download. Speeds are estimates from published memory bandwidths (`engine/backend/speed.ts`), not measurements;',
    'contexts assume that no other program uses the memory. A model runs on the card if it fits there; otherwise on card and CPU, or on the CPU: the CPU computes experts of some layers or whole layers, whichever is expected to answer first.',
    '',
    ...pairTable(),
    ...catalogue.filter(({ roles }) => !roles.includes('embedding')).flatMap(modelTable),
    '',
  ].join('\n');
}

export const modelsPath = join(projectRoot, 'docs', 'models.md');

if (import.meta.main) writeFileSync(modelsPath, modelsDocument());
