/** How often the engine shows the true text of places in real files, whatever a model writes beside it. */
import type { CorpusFile } from './corpus.ts';
import { continuations, judge, type Place, placeIn, type Verdict } from './places.ts';
import { shownOf } from './shown.ts';

export interface Tally extends Record<Verdict, number> {
  places: number;
  cases: number;
  /** Of each text, the longest time without a break. */
  readonly blockedMs: number[];
}

export interface Case {
  readonly place: Place;
  readonly continuation: string;
  readonly shown: string;
  readonly verdict: Verdict;
}

/**
 * @param places so many, each in another file while there are others
 * @param onCase is told of every text
 */
export async function measure(
  files: readonly CorpusFile[],
  places: number,
  random: () => number,
  onCase: (one: Case) => void = () => {},
): Promise<Tally> {
  const drawn = files.map((file) => ({ file, key: random() })).toSorted((a, b) => a.key - b.key);
  const tally: Tally = { places: 0, cases: 0, exact: 0, beginning: 0, nothing: 0, wrong: 0, blockedMs: [] };
  for (let i = 0; tally.places < places && i < 5 * places; i++) {
    const file = drawn[i % drawn.length]?.file;
    const place = file && (await placeIn(file, random));
    if (!place) continue;
    tally.places++;
    for (const [continuation, make] of Object.entries(continuations)) {
      const written = make(place);
      if (written === undefined) continue;
      const { text, longestMs } = await shownOf(place, written);
      const verdict = await judge(place, text);
      tally.cases++;
      tally[verdict]++;
      tally.blockedMs.push(longestMs);
      onCase({ place, continuation, shown: text, verdict });
    }
  }
  return tally;
}
