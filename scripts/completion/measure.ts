/** Measures how often the engine shows the true text at positions in real files when a model writes more than that. */

import { completedText } from '../../engine/tasks/complete.ts';
import { CompletionShape, type Multiline } from '../../engine/tasks/completionShape.ts';
import type { CorpusFile } from './corpus.ts';
import { continuations, judge, type Place, placeIn, type Verdict } from './places.ts';

export interface Tally extends Record<Verdict, number> {
  places: number;
  cases: number;
  /** Longest uninterrupted step of each text. */
  readonly blockedMs: number[];
}

export interface Case {
  readonly place: Place;
  readonly continuation: string;
  readonly shown: string;
  readonly verdict: Verdict;
}

/**
 * @param places number of positions, each in a different file if possible
 * @param onCase called for every text
 */
export async function measure(
  files: readonly CorpusFile[],
  places: number,
  random: () => number,
  onCase: (one: Case) => void = () => {},
): Promise<Tally> {
  const shuffled = files.map((file) => ({ file, key: random() })).toSorted((a, b) => a.key - b.key);
  const tally: Tally = { places: 0, cases: 0, exact: 0, beginning: 0, nothing: 0, wrong: 0, blockedMs: [] };
  for (let i = 0; tally.places < places && i < 5 * places; i++) {
    const file = shuffled[i % shuffled.length]?.file;
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

// Runs the engine's completion shaping on a text, one simulated token at a time, as `complete` does.

/** Typical characters a token. */
const pieceChars = 4;

interface Shown {
  readonly text: string;
  /** CPU time of the longest step in milliseconds. All reparses of shortened texts count as one step. */
  readonly longestMs: number;
}

async function shownOf(place: Place, written: string, multiline: Multiline = 'auto'): Promise<Shown> {
  let longestMs = 0;
  const timed = <Result>(work: () => Result): Result => {
    const startMs = processorMs();
    const result = work();
    longestMs = Math.max(longestMs, processorMs() - startMs);
    return result;
  };
  const { prefix, suffix, file } = place;
  const cursor = { prefix, suffix, languageId: file.languageId, path: file.path, multiline };
  const shape = timed(() => new CompletionShape(cursor));
  let text = '';
  let finish: 'stop' | 'length' = 'stop';
  for (let at = 0; at < written.length; at += pieceChars) {
    text = written.slice(0, at + pieceChars);
    if (timed(() => shape.shape(text, false)).complete) break;
  }
  if (text.length > 2_000) finish = 'length';
  const startMs = processorMs();
  const shown = await completedText(shape, text, finish, cursor);
  return { text: shown, longestMs: Math.max(longestMs, processorMs() - startMs) };
}

function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
