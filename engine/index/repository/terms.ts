/**
 * The words that the index knows of a text: identifiers whole and in their parts (`parseHttpUrl`, `parse`, `http`, `url`), in
 * lower case. SQLite's tokenizer then only cuts at blanks and stems.
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
  return [...new Set(terms)].filter((term) => term !== '');
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
  if (word.length > maxWordChars || (word.length > maxNumberChars && /^\d/.test(word))) return '';
  const parts = partsOfIdentifier(word).map((part) => part.toLowerCase());
  const whole = word.toLowerCase();
  return parts.length > 1 ? [whole, ...parts].join(' ') : whole;
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
