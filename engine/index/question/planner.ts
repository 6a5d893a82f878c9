/** Which of the things that could go with a question do, and how much of each. Pure: no editor, no disk, no clock. */

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
