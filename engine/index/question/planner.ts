/** Chooses which sources are attached to a question, and how much of each. Pure: no editor, no disk, no clock. */
import { limits } from '../../limits.ts';
import type { Passage, RepositoryMap } from '../../protocol/indexProtocol.ts';

// How much text may be attached to a question.

/** The fields of a model card that set the budget. */
export interface Reader {
  readonly contextTokens: number;
  readonly backend: string;
  /** Absent: not known. */
  readonly parameters?: number;
}

/**
 * Most tokens of text attached to a question. The conversation reduces it, but at most to half, because the engine
 * drops the beginning of a long conversation. `reader` undefined: no model is loaded yet.
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

/**
 * Whether prefill is fast: on a GPU, here or in a server. A CPU, even for some of the layers, prefills only some
 * hundred tokens a second.
 */
export const readsFast = (reader: Pick<Reader, 'backend'> | undefined): boolean =>
  reader?.backend === 'webgpu' || reader?.backend === 'remote';

/** Lines from 1, inclusive; one line is one number. */
export const lineRange = (first: number, last: number): string => (first === last ? `${first}` : `${first}–${last}`);

export const estimatedTokens = (text: string): number => Math.ceil(text.length / limits.question.charsPerToken);

/**
 * In order of priority: the repository's rules, what the user attached, what the editor shows, the repository map, and
 * search results.
 */
const tiers = ['rules', 'asked', 'editor', 'map', 'found'] as const;
type Tier = (typeof tiers)[number];

export interface Candidate {
  id: string;
  tier: Tier;
  /** Label of the chip. */
  label: string;
  path: string;
  languageId: string;
  lines: readonly string[];
  /** Number of the first line in its file, from 1; 0 if the text is not from a file. */
  firstLine: number;
  /** Lines of the whole file; 0: not known. */
  fileLines: number;
  /** Index of the line from which a cut grows in both directions. */
  centre: number;
  /** Tokens of all lines. */
  tokens: number;
  /** Whether a part of it is useful. */
  divisible: boolean;
  /** First lines of the enclosing definitions that are not part of the text. */
  within?: string;
}

/** The chosen lines of a candidate; indexes, end inclusive. */
export interface Chosen {
  candidate: Candidate;
  start: number;
  end: number;
  tokens: number;
  text: string;
}

interface Plan {
  chosen: Chosen[];
  /** Candidates that did not fit at all. */
  omitted: Candidate[];
  tokens: number;
}

/** Largest share of the budget for a tier while a later one has candidates. */
const caps: Readonly<Record<Tier, number>> = { rules: 0.25, asked: 1, editor: 0.25, map: 0.5, found: 1 };
/** The editor's share if the question is about the open file. */
const openFileCap = 0.6;
/** Smaller parts are not useful. */
const leastTokens = 24;

/**
 * Fills the budget tier by tier. In a tier, divisible candidates share the room evenly, so that a long file leaves room
 * for a short one. The others are taken whole or not at all, in their order.
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

/** Whether the chosen source already shows all lines of a chunk. */
function holds({ candidate, start, end }: Chosen, { tier, path, firstLine, lines }: Candidate): boolean {
  if (tier !== 'found' || firstLine === 0 || candidate.firstLine === 0 || candidate.path !== path) return false;
  const first = candidate.firstLine + start;
  return first <= firstLine && firstLine + lines.length <= candidate.firstLine + end + 1;
}

/** Tokens for each divisible candidate: small ones get all they need, the others equal parts of the rest. */
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

// Formats attached text for the prompt.

interface Quoted {
  readonly path: string;
  readonly languageId: string;
  readonly text: string;
  /** Line in its file, from 1; 0 if the text is not from a file. */
  readonly firstLine: number;
  /** True if the text is the whole file. */
  readonly whole: boolean;
  /** First lines of the enclosing definitions that are not part of the text. */
  readonly within?: string | undefined;
}

/** Placed after the text, not in the system prompt, because small models follow the end of a prompt best. */
export const citing = 'Name the lines that an answer rests on like this: `path:line`.';

export const quote = (quoted: Quoted): string => {
  const { within = '' } = quoted;
  return `${title(quoted)}${within === '' ? '' : `, in ${inline(within)}`}:\n\n${fenced(quoted)}`;
};

/** As inline code, whatever backticks it contains. */
const inline = (code: string): string => `\`${code.replaceAll('`', "'")}\``;

/** The citation that an answer should use. */
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

// Searches the repository for sources of a question.

/** A candidate before its tokens are counted. */
export type Source = Omit<Candidate, 'tokens'>;

/** Limits of what the index returns for one question. */
const { passages: searchedPassages, mapChars } = limits.question;

/** `label`: the map's name for the user. */
function mapSources(map: string, label: string): Source[] {
  if (map === '') return [];
  const lines = map.split('\n');
  const about = { path: label, languageId: '', firstLine: 0, fileLines: lines.length, centre: 0, divisible: true };
  return [{ id: mapId, tier: 'map', label, lines, ...about }];
}

export const mapId = 'map';

function passageSource({ path, firstLine, lastLine, text, within }: Passage): Source {
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

/** The part of an index that a question needs, in this process or another. */
interface Searched {
  searchByMeaning(question: string, limit: number): Promise<Passage[]>;
  map(request: { maxChars: number }): RepositoryMap | Promise<RepositoryMap>;
}

interface Question {
  readonly text: string;
  /** The earlier questions of the conversation, the latest last. */
  readonly earlier: readonly string[];
  /** The user asked for the repository, so it is searched whatever the question is. */
  readonly explicit: boolean;
  /** Label of the map; '' if it was attached before. */
  readonly mapLabel: string;
}

/** The repository's sources for a question: none for small talk, a map only for a question about the whole. */
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

// Whether a question is about the repository, and what to search for. Pure.

const asksAboutTheWhole = [
  /\b(?:what|which|describe|explain|summari[sz]e|overview|tell me about|understand|structure|architecture)\b/i,
  /\b(?:this|the) (?:project|repo(?:sitory)?|code ?base|workspace|program|app(?:lication)?|package|library|extension)\b/i,
] as const;
/** A question with only these words is about the whole repository; any other word makes it specific. */
const wordsOfTheWhole = new Set(
  `what whats is does do this the a an of project repo repository code base codebase workspace program app application
  package library extension about explain describe summarize summarise summary overview give me tell purpose for how it
  work works structured structure organized organised architecture main parts components in and please can you to
  understand i want high level brief briefly short kind s are which language languages written used general`.split(
    /\s+/,
  ),
);

/** Whether the question is about the whole repository. The map and the README answer it better than any chunk. */
export function isAboutTheWhole(text: string): boolean {
  const words = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
  return asksAboutTheWhole.every((part) => part.test(text)) && words.every((word) => wordsOfTheWhole.has(word));
}

interface Search {
  /** The query to the index. */
  readonly question: string;
  /** Drop chunks with too few of the question's words. False if the user asked for the repository. */
  readonly floor: boolean;
}

const politeness =
  /^(?:hi|hello|hey|hiya|yo|howdy|hallo|hola|bonjour|salut|ciao|moin|servus|good (?:morning|afternoon|evening|night)|thanks?|thank you|thx|ty|merci|danke|gracias|ok(?:ay)?|great|nice|cool|perfect|awesome|good|bye|goodbye|see you|yes|no|sure|test(?:ing)?|ping|who are you|what(?:'s| is) your name|how are you(?: doing)?|what can you do|help)$/i;
/** Words that may surround such a phrase. */
const filler =
  /\b(?:there|all|everyone|hearth|bot|so much|very much|a lot|again|then|please|for (?:the|your) help|you|today)\b/gi;

/** Requests for text other than code, and calculations. */
const general = [
  /^(?:please )?(?:can you |could you )?(?:write|tell|compose|give|sing|make up)\s+(?:me\s+)?(?:a|an|another|some)\s+(?:\w+\s+){0,2}(?:story|poem|joke|haiku|song|limerick|fairy ?tale|essay|rhyme|riddle|recipe|letter|fun fact|quote)\b/i,
  /^(?:what(?:'s| is)|calculate|compute)?\s*[\d\s.+*/^()%-]+[\s=?]*$/i,
  /^what(?:'s| is) the (?:time|date|weather|capital|population|meaning of life)\b/i,
  /^translate\b[^\n]*\b(?:in)?to (?:english|german|french|spanish|italian|chinese|japanese|portuguese|russian)\b/i,
];

/** Requests to change the last answer, which need no search. */
const reworks =
  /^(?:please |now |and |ok,? |can you |could you )*(?:make (?:that|it|this)\b|shorten|shorter|longer|simpler|simplify (?:that|it)|rephrase|reword|rewrite (?:that|it|this)\b|summari[sz]e (?:that|it|this|your)\b|translate (?:that|it|this)\b|continue|go on|keep going|more|again|try again|repeat|say (?:that|it) again|in (?:english|german|french|spanish|one sentence|short|other words)|format (?:that|it)|as (?:a |an )?(?:list|table|bullet)|are you sure|why\??$|really\??$)/i;

const pointsBack =
  /\b(?:it|its|that|this|they|them|their|these|those|there|he|she|the same|above|previous|former|latter|the (?:function|method|class|file|error|code|module|variable|type|test))\b/i;
const continues = /^(?:and|but|also|so|then|or|what about|how about|where|why|which|who|when)\b/i;
const fewWords = 12;
/** Names, paths and similar: the question states its own subject. */
const codeLike = /`|[\w$]+\(|\w[_.:/\\]\w|\p{Ll}\p{Lu}|--?\w{3}/u;

/** The search text for a question; undefined: no search. `earlier`: the conversation's questions, the latest last. */
export function searchFor(question: string, earlier: readonly string[]): Search | undefined {
  const text = question.trim();
  if (isSmallTalk(text) || general.some((kind) => kind.test(text))) return undefined;
  const last = earlier.at(-1);
  if (last === undefined || codeLike.test(text) || text.includes('\n')) return { question: text, floor: true };
  if (reworks.test(text)) return undefined;
  const words = text.split(/\s+/).length;
  if (words > fewWords || !(pointsBack.test(text) || (continues.test(text) && words <= 4))) {
    return { question: text, floor: true };
  }
  const before = subjectOf(earlier);
  return before === undefined ? undefined : { question: `${text}\n${before}`, floor: true };
}

/** The last question that states its own subject. */
function subjectOf(earlier: readonly string[]): string | undefined {
  return earlier.findLast(
    (text) =>
      !isSmallTalk(text) && !general.some((kind) => kind.test(text)) && !(reworks.test(text) && !codeLike.test(text)),
  );
}

function isSmallTalk(text: string): boolean {
  const plain = text.replaceAll(/[\p{P}\p{S}\p{Emoji_Presentation}]+/gu, (mark) => (mark === "'" ? mark : ' '));
  const parts = plain
    .replaceAll(filler, ' ')
    .trim()
    .split(/\s{2,}|\s*,\s*/);
  return text === '' || parts.every((part) => part === '' || politeness.test(part.trim()));
}

/**
 * Minimum share of the question's words, weighted by rarity, in the best chunk. Twenty lines contain few words of a
 * long question.
 */
const leastCoverage = (words: number): number => Math.min(0.3, 9 / Math.max(1, words));
/** Below this coverage, the best chunk must stand out from the others. */
const sureCoverage = (words: number): number => Math.max(leastCoverage(words), 0.5 - 0.01 * Math.max(0, words - 10));
/** For a question that contains code, which is almost always about the repository. */
const codeCoverage = 0.25;
/** The best score divided by the tenth: about 1 if no chunk fits better than the rest. */
const gapRank = 9;
const leastGap = 1.15;

/** The chunks worth attaching; none if the repository has nothing about the question. */
export function relevant(passages: readonly Passage[], question: string): readonly Passage[] {
  const words = new Set(question.match(/[\p{L}\p{N}_]{3,}/gu)).size;
  const best = Math.max(0, ...passages.slice(0, 5).map(({ coverage }) => coverage));
  const sure = Math.min(sureCoverage(words), codeLike.test(question) ? codeCoverage : 1);
  if (best >= sure) return passages;
  const [first, other] = [passages[0], passages[Math.min(gapRank, passages.length - 1)]];
  if (best < leastCoverage(words) || first === undefined || other === undefined) return [];
  return passages.length <= gapRank || first.score >= leastGap * other.score ? passages : [];
}

const aboutOpenFile =
  /\b(?:this|the current|the open(?:ed)?|my) (?:file|function|class|method|code|component|module|line|test|script|struct|type|selection)\b|\b(?:in|over|right) here\b|\bhere\?/i;

/** Whether the question is about the file in the editor, which otherwise just happens to be open. */
export const isAboutOpenFile = (question: string): boolean => aboutOpenFile.test(question);

/** The import lines of a file. A prompt keeps them when the rest of the file's beginning is cut off. */

const importLine =
  /^\s*(?:import\b|from\s+\S+\s+import\b|(?:pub(?:\([^)]*\))?\s+)?(?:(?:use|using)\s+[\w:]|mod\s+\w+\s*;)|extern crate\b|#\s*include\b|package\s+\w|namespace\s+[\w\\.]+;|require(?:_relative|_once)?\b|include_once\b|(?:const|let|var|local)\s+[^=]{1,200}=\s*(?:await\s+)?(?:require|import)\s*\(|@import\b|@use\b|library\()/;

/** Includes the lines between the brackets that an import opens. */
export function importsIn(text: string): string[] {
  let open = false;
  return text.split('\n').filter((line) => {
    const inside = open || importLine.test(line);
    if (inside) open = open ? !/[)}]/.test(line) : /[({][^)}]*$/.test(line);
    return inside && line.length < 300;
  });
}
