/** Whether a question is about the repository, and what to search for. Pure. */
import type { Passage } from '../../protocol/indexProtocol.ts';

const asksAboutTheWhole = [
  /\b(?:what|which|describe|explain|summari[sz]e|overview|tell me about|understand|structure|architecture)\b/i,
  /\b(?:this|the) (?:project|repo(?:sitory)?|code ?base|workspace|program|app(?:lication)?|package|library|extension)\b/i,
] as const;
/** Words of a question about the whole; another one makes it particular. */
const wordsOfTheWhole = new Set(
  `what whats is does do this the a an of project repo repository code base codebase workspace program app application
  package library extension about explain describe summarize summarise summary overview give me tell purpose for how it
  work works structured structure organized organised architecture main parts components in and please can you to
  understand i want high level brief briefly short kind s are which language languages written used general`.split(
    /\s+/,
  ),
);

/** About the repository as a whole: a map answers it, and the README, better than any passage. */
export function isAboutTheWhole(text: string): boolean {
  const words = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
  return asksAboutTheWhole.every((part) => part.test(text)) && words.every((word) => wordsOfTheWhole.has(word));
}

export interface Search {
  /** What the index is asked. */
  readonly question: string;
  /** Passages must hold enough of the question's words to go along; not where the user asked for the repository. */
  readonly floor: boolean;
}

const politeness =
  /^(?:hi|hello|hey|hiya|yo|howdy|hallo|hola|bonjour|salut|ciao|moin|servus|good (?:morning|afternoon|evening|night)|thanks?|thank you|thx|ty|merci|danke|gracias|ok(?:ay)?|great|nice|cool|perfect|awesome|good|bye|goodbye|see you|yes|no|sure|test(?:ing)?|ping|who are you|what(?:'s| is) your name|how are you(?: doing)?|what can you do|help)$/i;
/** Words that may stand around such a phrase. */
const filler =
  /\b(?:there|all|everyone|hearth|bot|so much|very much|a lot|again|then|please|for (?:the|your) help|you|today)\b/gi;

/** A text of another kind than code, or a calculation. */
const general = [
  /^(?:please )?(?:can you |could you )?(?:write|tell|compose|give|sing|make up)\s+(?:me\s+)?(?:a|an|another|some)\s+(?:\w+\s+){0,2}(?:story|poem|joke|haiku|song|limerick|fairy ?tale|essay|rhyme|riddle|recipe|letter|fun fact|quote)\b/i,
  /^(?:what(?:'s| is)|calculate|compute)?\s*[\d\s.+*/^()%-]+[\s=?]*$/i,
  /^what(?:'s| is) the (?:time|date|weather|capital|population|meaning of life)\b/i,
  /^translate\b[^\n]*\b(?:in)?to (?:english|german|french|spanish|italian|chinese|japanese|portuguese|russian)\b/i,
];

/** Changes the last answer: nothing new has to be known. */
const reworks =
  /^(?:please |now |and |ok,? |can you |could you )*(?:make (?:that|it|this)\b|shorten|shorter|longer|simpler|simplify (?:that|it)|rephrase|reword|rewrite (?:that|it|this)\b|summari[sz]e (?:that|it|this|your)\b|translate (?:that|it|this)\b|continue|go on|keep going|more|again|try again|repeat|say (?:that|it) again|in (?:english|german|french|spanish|one sentence|short|other words)|format (?:that|it)|as (?:a |an )?(?:list|table|bullet)|are you sure|why\??$|really\??$)/i;

const pointsBack =
  /\b(?:it|its|that|this|they|them|their|these|those|there|he|she|the same|above|previous|former|latter|the (?:function|method|class|file|error|code|module|variable|type|test))\b/i;
const continues = /^(?:and|but|also|so|then|or|what about|how about|where|why|which|who|when)\b/i;
const fewWords = 12;
/** Names, paths and the like: the question says itself what it is about. */
const codeLike = /`|[\w$]+\(|\w[_.:/\\]\w|\p{Ll}\p{Lu}|--?\w{3}/u;

/** What to search the repository for; undefined: nothing. `earlier`: the conversation's questions, the last one last. */
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

/** The last question that says by itself what it is about. */
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

/** Of its words by rarity, what the best passage must hold at least; no twenty lines hold much of a long question. */
const leastCoverage = (words: number): number => Math.min(0.3, 9 / Math.max(1, words));
/** Below this the best must stand out from the others. */
const sureCoverage = (words: number): number => Math.max(leastCoverage(words), 0.5 - 0.01 * Math.max(0, words - 10));
/** Of a question with code in it, which is hardly about anything else. */
const codeCoverage = 0.25;
/** The best's score over that of the tenth: about 1 where nothing fits better than the rest. */
const gapRank = 9;
const leastGap = 1.15;

/** What is worth showing the model: nothing where the repository doesn't hold what the question is about. */
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

/** Whether the file in the editor is what the question is about, rather than what happens to be open. */
export const isAboutOpenFile = (question: string): boolean => aboutOpenFile.test(question);
