/**
 * Foresees the next edit of a file from the last ones. A model that was trained on edits rewrites the lines round the cursor; any other one
 * is shown the last edits as a diff, and writes the other half of a diff for lines that resemble the edited one.
 */
import { limits } from '../limits.ts';
import type { FinishReason, NextEditParams, NextEditResult } from '../protocol/engineProtocol.ts';
import { HealedText } from '../sampling/logitsProcessor.ts';
import { greedy } from '../sampling/sampler.ts';
import type { Submitter } from '../scheduler/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { ConfidenceMeter } from './complete.ts';
import { diffTitle, type EditModel, encodeEdits } from './editModels.ts';
import { generate } from './generate.ts';

interface EditRequest extends Readonly<NextEditParams> {
  readonly random: () => number;
  readonly signal?: AbortSignal | undefined;
}

/** Less likely edits are not shown: measured on histories of ten repositories (docs/proof.md, "Edits that a model foresees"). */
export const leastEditLogProbability = -0.3;

interface Writer {
  readonly scheduler: Submitter;
  readonly tokenizer: Tokenizer;
  readonly contextTokens: number;
}

/** The surest edit, if it is sure enough. `trained`: how the model was trained on edits, if it was. */
export async function foreseeEdit(
  writer: Writer,
  request: EditRequest,
  trained: EditModel | undefined,
): Promise<NextEditResult> {
  const { edit, finish } = trained
    ? await rewriteWindow(writer, request, trained)
    : await rewriteLines(writer, request);
  const isSure = edit !== undefined && edit.logProbability >= leastEditLogProbability;
  return { finish, ...(isSure && { edit }) };
}

/** @returns the surest change of a place, sure enough or not. */
export async function rewriteLines(writer: Writer, request: EditRequest): Promise<NextEditResult> {
  let best: NextEditResult['edit'];
  let finish: FinishReason = 'stop';
  for (const place of request.places) {
    const prompt = plain(writer.tokenizer, linePrompt(request, place));
    const written = await write(writer, request, { prompt, maxTokens: limits.nextEdit.lineTokens, stop: '\n' });
    ({ finish } = written);
    if (finish === 'cancelled') break;
    const { text, logProbability } = written;
    // The model may not see an end where the line is cut off.
    if (finish !== 'stop' || text.trim() === '' || text === place.text) continue;
    if (best === undefined || logProbability > best.logProbability) best = { line: place.line, text, logProbability };
  }
  return { finish, ...(best && { edit: best }) };
}

/** Ends where the new line begins, behind the mark of an added one. The last edits come first: they are the same for all places. */
export function linePrompt(
  { path, edits }: Pick<NextEditParams, 'path' | 'edits'>,
  place: NextEditParams['places'][number],
) {
  const hunk = (above: string, before: string): string => `@@ @@\n ${above}\n-${before}\n+`;
  const titles = edits.map((edit, i) => (edit.path === edits[i - 1]?.path ? '' : diffTitle(edit.path)));
  const own = edits.at(-1)?.path === path ? '' : diffTitle(path);
  const done = edits.map(({ above, before, after }, i) => `${titles[i]}${hunk(above, before)}${after}\n`);
  return `${done.join('')}${own}${hunk(place.above, place.text)}`;
}

async function rewriteWindow(writer: Writer, request: EditRequest, trained: EditModel): Promise<NextEditResult> {
  const { tokenizer } = writer;
  const { window } = request;
  const prompt = encodeEdits(trained, tokenizer, request);
  const maxTokens = plain(tokenizer, window.text).length + limits.nextEdit.lineTokens;
  const { text, logProbability, finish } = await write(writer, request, { prompt, maxTokens, stop: trained.stop });
  const rewritten = finish === 'stop' ? trained.windowIn(text) : undefined;
  const change = rewritten === undefined ? undefined : firstChange(window.text, rewritten);
  return { finish, ...(change && { edit: { ...change, line: window.firstLine + change.line, logProbability } }) };
}

/** The first line that became another or several; undefined if lines only went away or several became others at once. */
export function firstChange(
  before: string,
  after: string,
): { readonly line: number; readonly text: string } | undefined {
  const [old, fresh] = [before.split('\n'), after.split('\n')];
  const line = old.findIndex((own, i) => own !== fresh[i]);
  if (line < 0) return undefined;
  // The rest of the old text goes on somewhere behind the change.
  const rest = old[line + 1];
  const end = rest === undefined ? fresh.length : fresh.indexOf(rest, line + 1);
  const text = fresh.slice(line, end).join('\n');
  return end > line && text !== '' ? { line, text } : undefined;
}

const plain = (tokenizer: Tokenizer, text: string): number[] => tokenizer.encode(text, { special: 'plain' });

interface Wanted {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly stop: string;
}

/** In the class that everything else goes before. */
async function write(
  { scheduler, tokenizer, contextTokens }: Writer,
  { random, signal }: EditRequest,
  { prompt, maxTokens, stop }: Wanted,
): Promise<{ readonly text: string; readonly logProbability: number; readonly finish: FinishReason }> {
  const begin = tokenizer.beginId === undefined ? [] : [tokenizer.beginId];
  const ids = [...begin, ...prompt];
  const nothing = { text: '', logProbability: Number.NEGATIVE_INFINITY, finish: 'context' as const };
  if (ids.length + maxTokens > contextTokens) return nothing;
  const meter = new ConfidenceMeter(tokenizer.endIds, 0, maxTokens);
  const { text, finish } = await generate(scheduler, {
    requestClass: 'warm-up',
    prompt: ids,
    maxTokens,
    sampling: greedy,
    random,
    stopIds: tokenizer.endIds,
    stopStrings: [stop],
    parser: new HealedText(tokenizer, new Uint8Array(0)),
    observer: meter,
    onPiece: () => 'continue',
    timeoutMs: limits.nextEdit.timeoutMs,
    signal,
  });
  return { text, logProbability: meter.least, finish };
}
