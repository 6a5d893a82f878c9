/** Which of the things that could go with a question do, and how much of each. Pure: no editor, no disk, no clock. */
import { limits } from '../../limits.ts';
import type { Passage, RepositoryMap } from '../../protocol/indexProtocol.ts';
import { isAboutTheWhole, relevant, searchFor } from './about.ts';

// How much text may go with a question.

/** Of a model's card. */
export interface Reader {
  readonly contextTokens: number;
  readonly backend: string;
  /** Absent: not known. */
  readonly parameters?: number;
}

/**
 * Tokens that text may have which goes with a question. What the conversation fills is not there for it; but as the
 * engine leaves out the beginning of a long one, half of the share always is. `reader` undefined: no model is loaded yet.
 */
export function contextBudget(reader: Reader | undefined, conversationTokens: number): number {
  const { attachmentShare, attachmentTokens, answerShare, assumedContextTokens, cpuAttachmentTokens } = limits.question;
  const { parametersPerAttachedToken, leastAttachmentTokens } = limits.question;
  const contextTokens = reader?.contextTokens ?? assumedContextTokens;
  const share = Math.floor(contextTokens * attachmentShare);
  const free = Math.floor(contextTokens * (1 - answerShare)) - conversationTokens;
  const read = Math.floor((reader?.parameters ?? Number.POSITIVE_INFINITY) / parametersPerAttachedToken);
  const most = Math.min(attachmentTokens, Math.max(read, leastAttachmentTokens));
  const room = Math.min(most, Math.max(Math.min(share, free), Math.floor(share / 2)));
  return readsFast(reader) ? room : Math.min(room, cpuAttachmentTokens);
}

/** A GPU, here or in a server: on a CPU a prompt is read at some hundred tokens a second. */
export const readsFast = (reader: Pick<Reader, 'backend'> | undefined): boolean =>
  reader?.backend === 'webgpu' || reader?.backend === 'remote';

/** Lines from 1, inclusive; one line is one number. */
export const lineRange = (first: number, last: number): string => (first === last ? `${first}` : `${first}–${last}`);

export const estimatedTokens = (text: string): number => Math.ceil(text.length / limits.question.charsPerToken);

/** The repository's rules, what the user asked for, what they look at, what the repository is, what a search found: in the order they are served. */
export const tiers = ['rules', 'asked', 'editor', 'map', 'found'] as const;
export type Tier = (typeof tiers)[number];

export interface Candidate {
  id: string;
  tier: Tier;
  /** What the chip shows. */
  label: string;
  path: string;
  languageId: string;
  lines: readonly string[];
  /** Number of the first line in its file, from 1; 0: these are no lines of a file. */
  firstLine: number;
  /** Lines of the whole file; 0: not known. */
  fileLines: number;
  /** Index of the line that a cut keeps, and grows from. */
  centre: number;
  /** Of all the lines. */
  tokens: number;
  /** Whether a part of it is of use. */
  divisible: boolean;
  /** First lines of the definitions that enclose it, which it doesn't show. */
  within?: string;
}

/** Lines of a candidate that go along; indexes, end inclusive. */
export interface Chosen {
  candidate: Candidate;
  start: number;
  end: number;
  tokens: number;
  text: string;
}

export interface Plan {
  chosen: Chosen[];
  /** What did not fit at all. */
  omitted: Candidate[];
  tokens: number;
}

/** Share of the budget that a tier may take while a later one has something to offer. */
const caps: Readonly<Record<Tier, number>> = { rules: 0.25, asked: 1, editor: 0.25, map: 0.5, found: 1 };
/** The editor's, where the question is about the open file. */
const openFileCap = 0.6;
/** A part smaller than this says nothing. */
const leastTokens = 24;

/**
 * Tier by tier. Within a tier what can be cut shares the room evenly, so that a long file leaves some for a short one;
 * what cannot goes whole or not at all, first come first served.
 */
export function plan(candidates: readonly Candidate[], budgetTokens: number, aboutOpenFile = false): Plan {
  const result: Plan = { chosen: [], omitted: [], tokens: 0 };
  tiers.forEach((tier, index) => {
    const members = candidates.filter((candidate) => candidate.tier === tier);
    const rest = candidates.some((candidate) => tiers.indexOf(candidate.tier) > index);
    const left = budgetTokens - result.tokens;
    const cap = tier === 'editor' && aboutOpenFile ? openFileCap : caps[tier];
    serve(members, rest ? Math.min(left, Math.floor(budgetTokens * cap)) : left, result);
  });
  return result;
}

function serve(members: readonly Candidate[], roomTokens: number, result: Plan): void {
  const shares = evenly(members, roomTokens);
  let left = roomTokens;
  for (const candidate of members) {
    if (result.chosen.some((earlier) => holds(earlier, candidate))) continue;
    const room = Math.min(left, candidate.divisible ? (shares.get(candidate) ?? 0) : left);
    const chosen = candidate.tokens <= room ? whole(candidate) : cut(candidate, room);
    if (chosen === undefined) {
      result.omitted.push(candidate);
      continue;
    }
    result.chosen.push(chosen);
    result.tokens += chosen.tokens;
    left -= chosen.tokens;
  }
}

/** Whether what was chosen shows all lines of a passage already. */
function holds({ candidate, start, end }: Chosen, { tier, path, firstLine, lines }: Candidate): boolean {
  if (tier !== 'found' || firstLine === 0 || candidate.firstLine === 0 || candidate.path !== path) return false;
  const first = candidate.firstLine + start;
  return first <= firstLine && firstLine + lines.length <= candidate.firstLine + end + 1;
}

/** What each divisible candidate may take: the small ones all they need, the others equal parts of the rest. */
function evenly(members: readonly Candidate[], roomTokens: number): Map<Candidate, number> {
  const shares = new Map<Candidate, number>();
  const waiting = members.filter(({ divisible }) => divisible).sort((a, b) => a.tokens - b.tokens);
  let room = roomTokens;
  waiting.forEach((candidate, index) => {
    const share = Math.min(candidate.tokens, Math.floor(room / (waiting.length - index)));
    shares.set(candidate, share);
    room -= share;
  });
  return shares;
}

const whole = (candidate: Candidate): Chosen => ({
  candidate,
  start: 0,
  end: candidate.lines.length - 1,
  tokens: candidate.tokens,
  text: candidate.lines.join('\n'),
});

/** As many lines around the centre as fit; a line that is too long alone is cut. */
function cut(candidate: Candidate, roomTokens: number): Chosen | undefined {
  if (!candidate.divisible || roomTokens < leastTokens) return undefined;
  const { lines, tokens } = candidate;
  const chars = lines.reduce((sum, line) => sum + line.length + 1, 0);
  const roomChars = Math.floor((roomTokens * chars) / tokens);
  const { start, end } = growing(lines, candidate.centre, roomChars);
  const text = lines
    .slice(start, end + 1)
    .join('\n')
    .slice(0, roomChars);
  return { candidate, start, end, tokens: Math.min(roomTokens, Math.ceil((text.length * tokens) / chars)), text };
}

/** Grows from the centre to both sides while there is room. */
function growing(lines: readonly string[], centre: number, roomChars: number): { start: number; end: number } {
  const cost = (line: number): number => (lines[line]?.length ?? 0) + 1;
  let start = Math.min(Math.max(centre, 0), lines.length - 1);
  let end = start;
  let room = roomChars - cost(start);
  for (;;) {
    const canDown = end < lines.length - 1 && cost(end + 1) <= room;
    if (canDown) room -= cost(++end);
    const canUp = start > 0 && cost(start - 1) <= room;
    if (canUp) room -= cost(--start);
    if (!canDown && !canUp) return { start, end };
  }
}

// How text that goes with a question stands in the prompt.

interface Quoted {
  readonly path: string;
  readonly languageId: string;
  readonly text: string;
  /** In its file, from 1; 0: it is no part of one. */
  readonly firstLine: number;
  /** The whole file. */
  readonly whole: boolean;
  /** First lines of what encloses it, which it doesn't show. */
  readonly within?: string | undefined;
}

/** Beside the text, not in the system prompt: small models follow best what stands last. */
export const citing = 'Name the lines that an answer rests on like this: `path:line`.';

export const quote = (quoted: Quoted): string => {
  const { within = '' } = quoted;
  return `${title(quoted)}${within === '' ? '' : `, in ${inline(within)}`}:\n\n${fenced(quoted)}`;
};

/** As one run of code, whatever backticks it has. */
const inline = (code: string): string => `\`${code.replaceAll('`', "'")}\``;

/** As an answer should cite it. */
export function title({ path, firstLine, whole, text }: Quoted): string {
  if (firstLine === 0 || whole) return `\`${path}\``;
  return `\`${path}:${firstLine}-${firstLine + text.split('\n').length - 1}\``;
}

/** The fence is longer than any in the text, so that a file cannot end its own block. */
function fenced({ languageId, text }: Quoted): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}${languageId}\n${text}\n${fence}`;
}

// What a search of the repository offers to go with a question.

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

export function passageSource({ path, firstLine, lastLine, text, within }: Passage): Source {
  const name = path.slice(path.lastIndexOf('/') + 1);
  return {
    id: `found:${path}:${firstLine}`,
    tier: 'found',
    label: `${name}:${lineRange(firstLine, lastLine)}`,
    path,
    languageId: /\.(\w+)$/.exec(path)?.[1] ?? '',
    lines: text.split('\n'),
    firstLine,
    fileLines: 0,
    centre: 0,
    divisible: false,
    ...(within !== '' && { within }),
  };
}

/** What a question needs of an index, in this process or another. */
export interface Searched {
  searchByMeaning(question: string, limit: number): Promise<Passage[]>;
  map(request: { maxChars: number }): RepositoryMap | Promise<RepositoryMap>;
}

export interface Question {
  readonly text: string;
  /** Those of the conversation before, the last one last. */
  readonly earlier: readonly string[];
  /** The user asked for the repository: it is searched whatever the question is. */
  readonly explicit: boolean;
  /** Of the map; '' where it went along before. */
  readonly mapLabel: string;
}

/** What the repository offers for a question: nothing for small talk, a map only for a question about the whole. */
export async function repositorySources(repository: Searched, question: Question): Promise<Source[]> {
  const { text, earlier, explicit, mapLabel } = question;
  const search = explicit ? { question: text, floor: false } : searchFor(text, earlier);
  if (search === undefined) return [];
  const whole = isAboutTheWhole(search.question);
  const found = await repository.searchByMeaning(search.question, searchedPassages);
  const passages = search.floor && !whole ? relevant(found, search.question) : found;
  const wantsMap = whole && mapLabel !== '' && found.length > 0;
  const map = wantsMap ? mapSources((await repository.map({ maxChars: mapChars })).text, mapLabel) : [];
  return [...map, ...passages.map(passageSource)];
}
