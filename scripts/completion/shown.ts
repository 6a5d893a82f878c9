/** What the engine offers of a text that a model writes piece by piece, as `complete` takes it. */
import { completedText } from '../../engine/tasks/complete.ts';
import { CompletionShape, type Multiline } from '../../engine/tasks/completionShape.ts';
import type { Place } from './places.ts';

/** Characters that a token has about. */
const pieceChars = 4;

export interface Shown {
  readonly text: string;
  /** Processor time of the longest step, in milliseconds; parsing again for each shorter text is counted as one step. */
  readonly longestMs: number;
}

export async function shownOf(place: Place, written: string, multiline: Multiline = 'auto'): Promise<Shown> {
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
