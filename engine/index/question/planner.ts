/** Which of the things that could go with a question do, and how much of each. Pure: no editor, no disk, no clock. */
import { limits } from '../../limits.ts';
import type { Passage } from '../../protocol/indexProtocol.ts';

// How much text may go with a question.

/** Of a model's card. */
export interface Reader {
  readonly contextTokens: number;
  readonly backend: string;
}

/**
 * Tokens that text may have which goes with a question. What the conversation fills is not there for it; but as the
 * engine leaves out the beginning of a long one, half of the share always is. `reader` undefined: no model is loaded yet.
 */
export function contextBudget(reader: Reader | undefined, conversationTokens: number): number {
  const { attachmentShare, attachmentTokens, answerShare, assumedContextTokens, cpuAttachmentTokens } = limits.question;
  const contextTokens = reader?.contextTokens ?? assumedContextTokens;
  const share = Math.floor(contextTokens * attachmentShare);
  const free = Math.floor(contextTokens * (1 - answerShare)) - conversationTokens;
  const room = Math.min(attachmentTokens, Math.max(Math.min(share, free), Math.floor(share / 2)));
  return readsFast(reader) ? room : Math.min(room, cpuAttachmentTokens);
}

/** A GPU, here or in a server: on a CPU a prompt is read at some hundred tokens a second. */
export const readsFast = (reader: Pick<Reader, 'backend'> | undefined): boolean =>
  reader?.backend === 'webgpu' || reader?.backend === 'remote';

export const estimatedTokens = (text: string): number => Math.ceil(text.length / limits.question.charsPerToken);

/** What the user asked for, what they look at, what the repository is, what a search found: in the order they are served. */
export const tiers = ['asked', 'editor', 'map', 'found'] as const;
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
const caps: Readonly<Record<Tier, number>> = { asked: 1, editor: 0.6, map: 0.2, found: 1 };
/** A part smaller than this says nothing. */
const leastTokens = 24;

/**
 * Tier by tier. Within a tier what can be cut shares the room evenly, so that a long file leaves some for a short one;
 * what cannot goes whole or not at all, first come first served.
 */
export function plan(candidates: readonly Candidate[], budgetTokens: number): Plan {
  const result: Plan = { chosen: [], omitted: [], tokens: 0 };
  tiers.forEach((tier, index) => {
    const members = candidates.filter((candidate) => candidate.tier === tier);
    const rest = candidates.some((candidate) => tiers.indexOf(candidate.tier) > index);
    const left = budgetTokens - result.tokens;
    serve(members, rest ? Math.min(left, Math.floor(budgetTokens * caps[tier])) : left, result);
  });
  return result;
}

function serve(members: readonly Candidate[], roomTokens: number, result: Plan): void {
  const shares = evenly(members, roomTokens);
  let left = roomTokens;
  for (const candidate of members) {
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
}

/** Beside the text, not in the system prompt: small models follow best what stands last. */
export const citing = 'Name the lines that an answer rests on like this: `path:line`.';

export const quote = (quoted: Quoted): string => `${title(quoted)}:\n\n${fenced(quoted)}`;

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
