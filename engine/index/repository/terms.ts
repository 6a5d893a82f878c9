/**
 * The words that the index knows of a text: identifiers whole and in their parts (`parseHttpUrl`, `parse`, `http`, `url`), in
 * lower case, and also without their accents. Scripts that write no blanks between words are cut into pairs of characters,
 * as search engines do. SQLite's tokenizer then only cuts at blanks and stems.
 */

/** Of each word of a text as many copies at most: BM25 hardly counts further ones, and the index shrinks by a third. */
const maxCopies = 4;
/** Longer words are digests, keys and data. */
const maxWordChars = 64;
const maxNumberChars = 8;
/** Words whose terms are remembered: a large repository has some hundred thousand different ones. */
const cachedWords = 50_000;

const cache = new Map<string, string>();

/** Terms separated by blanks, to be stored. */
export function termsOf(text: string): string {
  const copies = new Map<string, number>();
  for (const [word] of text.matchAll(/[\p{L}\p{N}_$]+/gu)) copies.set(word, (copies.get(word) ?? 0) + 1);
  let terms = '';
  for (const [word, count] of copies) {
    const own = termsOfWord(word);
    if (own === '') continue;
    for (let i = 0; i < Math.min(count, maxCopies); i++) terms += `${own} `;
  }
  return terms;
}

/** The different terms of a question, without the commonest words of English unless it has no others. */
export function questionTerms(question: string): string[] {
  const words = question.match(/[\p{L}\p{N}_$]+/gu) ?? [];
  const telling = words.filter((word) => !commonWords.has(word.toLowerCase()));
  const terms = (telling.length > 0 ? telling : words).flatMap((word) => termsOfWord(word).split(' '));
  const different = [...new Set(terms)].filter((term) => term !== '');
  // One character of such a script says little beside pairs.
  const hasPairs = different.some((term) => unspacedRun.test(term) && [...term].length > 1);
  return different.filter((term) => !hasPairs || !unspacedRun.test(term) || [...term].length > 1);
}

function termsOfWord(word: string): string {
  const known = cache.get(word);
  if (known !== undefined) return known;
  const terms = computeTerms(word);
  if (cache.size >= cachedWords) cache.clear();
  cache.set(word, terms);
  return terms;
}

function computeTerms(word: string): string {
  const runs = word.match(unspacedRuns) ?? [];
  const spaced = word.replaceAll(unspacedRuns, '_');
  return [...new Set([...termsOfSpaced(spaced), ...runs.flatMap(termsOfRun)])].join(' ');
}

function termsOfSpaced(word: string): string[] {
  if (word.length > maxWordChars) return [];
  if (word.length > maxNumberChars && /^\d/.test(word) && !hexadecimal.test(word)) return [];
  const whole = word.toLowerCase();
  const parts = [whole, ...partsOfIdentifier(word), ...(hexadecimal.exec(word)?.slice(1) ?? [])];
  const terms = parts.map((part) => part.toLowerCase()).filter((part) => /[^_$]/.test(part));
  return terms.flatMap((term) => [term, withoutAccents(term)]);
}

/** Addresses and magic numbers: others that are longer than a year are data. */
const hexadecimal = /^0x([\da-f]{1,16})$/i;

export const withoutAccents = (term: string): string => term.normalize('NFD').replaceAll(/\p{M}+/gu, '');

const unspaced = String.raw`[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}ー\p{sc=Hangul}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]+`;
const unspacedRuns = new RegExp(unspaced, 'gu');
const unspacedRun = new RegExp(`^${unspaced}$`, 'u');

/** Each character, for a question of one, and each with the next. */
function termsOfRun(run: string): string[] {
  const characters = [...run];
  return characters.flatMap((char, index) => [char, ...(index > 0 ? [`${characters[index - 1]}${char}`] : [])]);
}

/** `parseHTTPUrl_v2` is `parse`, `HTTP`, `Url`, `v2`. */
export function partsOfIdentifier(identifier: string): string[] {
  return identifier
    .split(/[_$]+|(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})/u)
    .filter((part) => part !== '');
}

const commonWords = new Set(
  `a about all also an and any are as at be been but by can could did do does explain find for from get give had has have
  here how i if in into is it its let like look me my need new no not of on or our please show should so some tell than that
  the their them then there these they this those to up us used uses using want was way we were what when where which who
  why will with work works would you your`.split(/\s+/),
);
