/**
 * Predicts the next edit of a file from the last ones. A model that was trained on edits rewrites the lines around the
 * cursor. Any other model gets the last edits as a diff and completes a diff for lines that resemble the edited one.
 */

import { greedy } from '../backend/sampler.ts';
import { limits } from '../limits.ts';
import type { FinishReason, NextEditParams, NextEditResult } from '../protocol/engineProtocol.ts';
import { HealedText } from '../sampling/logitsProcessor.ts';
import type { Submitter } from '../scheduler/scheduler.ts';
import type { PromptPart, Tokenizer } from '../tokenizer/tokenizer.ts';
import { ConfidenceMeter } from './complete.ts';
import { generate } from './generate.ts';

interface EditRequest extends Readonly<NextEditParams> {
  readonly random: () => number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Less likely edits are not shown. Measured on histories of ten repositories (docs/proof.md, "Edits that a model
 * predicts").
 */
export const leastEditLogProbability = -0.3;

interface Writer {
  readonly scheduler: Submitter;
  readonly tokenizer: Tokenizer;
  readonly contextTokens: number;
}

/** The most likely edit, if it is likely enough. `trained`: the prompt layout of a model that was trained on edits. */
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

/** @returns the most likely change at any of the places, whether likely enough or not. */
export async function rewriteLines(writer: Writer, request: EditRequest): Promise<NextEditResult> {
  let best: NextEditResult['edit'];
  let finish: FinishReason = 'stop';
  for (const place of request.places) {
    const prompt = plain(writer.tokenizer, linePrompt(request, place));
    const written = await write(writer, request, { prompt, maxTokens: limits.nextEdit.lineTokens, stop: '\n' });
    ({ finish } = written);
    if (finish === 'cancelled') break;
    const { text, logProbability } = written;
    // If the line is cut off, the model may not have reached its end.
    if (finish !== 'stop' || text.trim() === '' || text === place.text) continue;
    if (best === undefined || logProbability > best.logProbability)
      best = { line: place.line, lines: 1, text, logProbability };
  }
  return { finish, ...(best && { edit: best }) };
}

/** Ends after the `+` of the new line. The last edits come first, because they are the same for all places. */
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

interface LineChange {
  readonly line: number;
  /** How many lines of the old text are replaced. */
  readonly lines: number;
  /** Their replacement; empty: they are deleted. */
  readonly text: string;
}

/** The first lines that were replaced or deleted; undefined if there are none, or if a line became empty. */
export function firstChange(before: string, after: string): LineChange | undefined {
  const [old, fresh] = [before.split('\n'), after.split('\n')];
  const line = old.findIndex((own, i) => own !== fresh[i]);
  if (line < 0) return undefined;
  const { lines, becomes } = whereTheRestGoesOn(old.slice(line), fresh.slice(line));
  // An insertion counts as replacing the line after it by several lines.
  const grown = lines === 0 ? 1 : 0;
  const text = fresh.slice(line, line + becomes + grown).join('\n');
  return text === '' && becomes > 0 ? undefined : { line, lines: lines + grown, text };
}

/** The smallest number of lines of both texts after which they have a line in common, or end. */
function whereTheRestGoesOn(old: readonly string[], fresh: readonly string[]): { lines: number; becomes: number } {
  for (let both = 1; both < old.length + fresh.length; both++) {
    for (let lines = Math.min(both, old.length); lines >= Math.max(0, both - fresh.length); lines--) {
      const becomes = both - lines;
      if (goesOn(old.slice(lines), fresh.slice(becomes))) return { lines, becomes };
    }
  }
  return { lines: old.length, becomes: fresh.length };
}

/** Empty lines are common, so for an empty line the next one must be equal too. */
function goesOn([own, next]: readonly string[], [other, nextOther]: readonly string[]): boolean {
  return own === other && (own?.trim() !== '' || next === nextOther);
}

const plain = (tokenizer: Tokenizer, text: string): number[] => tokenizer.encode(text, { special: 'plain' });

interface Wanted {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly stop: string;
}

/** Generates in the lowest request class. */
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

// Models that were trained to predict edits, and their prompt layouts: the last edits, then the current lines, then the
// new lines. No file of a checkpoint describes this, so the file's name and the vocabulary identify the model. Sources:
// Sweep's example of its Next-Edit models; for Zeta, `zeta1` and `seed_coder` of Zed's crate `zeta_prompt`.

type Asked = Pick<NextEditParams, 'path' | 'window' | 'edits'>;
type Edit = NextEditParams['edits'][number];

/** A marker is one token if the vocabulary has it, else text. */
type Part = string | { readonly marker: string };

export interface EditModel {
  /** Matches the names of its files. */
  readonly name: RegExp;
  /** A token of its vocabulary. */
  readonly token: string;
  readonly prompt: (asked: Asked) => readonly Part[];
  /** Text after the rewritten window. */
  readonly stop: string;
  /** The rewritten window in the model's output; undefined if it predicts no edit. */
  readonly windowIn: (written: string) => string | undefined;
}

const marker = (name: string): Part => ({ marker: name });

const withoutLastBreak = (text: string): string => text.replace(/\n$/, '');

/** The edits, the window before and after the last edit, then the predicted window. */
const sweep: EditModel = {
  name: /sweep.?next.?edit/i,
  token: '<|file_sep|>',
  prompt: ({ path, window, edits }) =>
    [
      ...edits.map(({ path: own, above, before, after }) => {
        return `${own}.diff\noriginal:\n${above}\n${before}\nupdated:\n${above}\n${after}\n`;
      }),
      `original/${path}\n${window.before}\n`,
      `current/${path}\n${window.text}\n`,
      `updated/${path}\n`,
    ].flatMap((section) => [marker('<|file_sep|>'), section]),
  stop: '<|file_sep|>',
  windowIn: withoutLastBreak,
};

export const diffTitle = (path: string): string => `--- a/${path}\n+++ b/${path}\n`;

/** A unified diff of one line and the line above. */
function hunk({ line, above, before, after }: Edit): string {
  const changed = `-${before}\n+${after}\n`;
  return line === 0 ? `@@ -1 +1 @@\n${changed}` : `@@ -${line},2 +${line},2 @@\n ${above}\n${changed}`;
}

const around = ({ window: { text, cursor } }: Asked): [before: string, after: string] => [
  text.slice(0, cursor),
  text.slice(cursor),
];

const zetaCursor = '<|user_cursor_is_here|>';
const [regionStart, regionEnd] = ['<|editable_region_start|>', '<|editable_region_end|>'];
const zetaTask =
  '### Instruction:\nYou are a code completion assistant and your task is to analyze user edits and then rewrite an excerpt that the user provides, ' +
  'suggesting the appropriate edits within the excerpt, taking into account the cursor location.\n\n### User Edits:\n\n';

/**
 * Zed's first model, based on Qwen2.5-Coder 7B. The prompt includes the answer's first line, because it is always the
 * same.
 */
const zeta: EditModel = {
  name: /(?<![a-z])zeta(?![a-z]|.?2)/i,
  token: '<|file_sep|>',
  prompt: (asked) => {
    const { path, edits, window } = asked;
    const [before, after] = around(asked);
    const events = edits.map((edit) => `User edited ${edit.path}:\n\`\`\`diff\n${hunk(edit)}\n\`\`\``);
    return [
      `${zetaTask}${events.join('\n\n')}\n\n### User Excerpt:\n\n\`\`\`${path}\n`,
      ...(window.firstLine === 0 ? [marker('<|start_of_file|>'), '\n'] : []),
      ...[marker(regionStart), `\n${before}`, marker(zetaCursor), `${after}\n`, marker(regionEnd)],
      '\n```\n\n### Response:\n',
      ...[marker(regionStart), '\n'],
    ];
  },
  stop: regionEnd,
  windowIn: (written) => withoutLastBreak(written.replace(zetaCursor, '')),
};

const zeta2Cursor = '<|user_cursor|>';

/** Zed's second model, based on Seed-Coder 8B, where the suffix comes first. It sees only the window of the file. */
const zeta2: EditModel = {
  name: /(?<![a-z])zeta.?2(?!\d)/i,
  token: '<[fim-middle]>',
  prompt: (asked) => {
    const [before, after] = around(asked);
    const events = asked.edits.map((edit) => `${diffTitle(edit.path)}${hunk(edit)}`);
    return [
      ...[marker('<[fim-suffix]>'), '\n', marker('<[fim-prefix]>')],
      ...[marker('<filename>'), `edit_history\n${events.join('')}\n`],
      ...[marker('<filename>'), `${asked.path}\n<<<<<<< CURRENT\n${before}`],
      ...[marker(zeta2Cursor), `${after}\n=======\n`, marker('<[fim-middle]>')],
    ];
  },
  stop: '>>>>>>> UPDATED',
  windowIn: (written) =>
    written.startsWith('NO_EDITS') ? undefined : withoutLastBreak(written.replace(zeta2Cursor, '')),
};

/** The model's layout if it was trained on edits. */
export const editModelOf = (name: string, { framing }: Pick<Tokenizer, 'framing'>): EditModel | undefined =>
  [sweep, zeta, zeta2].find((model) => model.name.test(name) && framing.has(model.token));

/** Ids of the prompt. Markers in the user's text stay text. */
export function encodeEdits(model: EditModel, tokenizer: Tokenizer, asked: Asked): number[] {
  const parts: PromptPart[] = [];
  for (const part of model.prompt(asked)) {
    const next = typeof part === 'string' ? part : (tokenizer.framing.get(part.marker) ?? part.marker);
    const last = parts.at(-1);
    // Joins adjacent text, because tokens may span a marker that is text.
    if (typeof next === 'string' && typeof last === 'string') parts[parts.length - 1] = last + next;
    else parts.push(next);
  }
  return tokenizer.encodeParts(parts);
}
