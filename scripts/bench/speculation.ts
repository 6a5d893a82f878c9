/**
 * Measures the speed-up of draft tokens on real edits. The prompt is the old file and the output is the new one: sampled tokens
 * are replaced by the true ones, so that a small model behaves like one that edits well. The forward passes and their times are
 * real. Runs alternate with and without draft tokens. At each token, both also record the true token's log-probability and the
 * token they would have sampled with the same random number. Draft tokens must change neither, except for int8 rounding of
 * several rows; `exact` disables int8 activations.
 */
import { basename } from 'node:path';
import { createOnnxBackend } from '../../engine/backend/onnx/index.ts';
import { greedy, sample } from '../../engine/backend/sampler.ts';
import { PrefixCache } from '../../engine/kv/prefixCache.ts';
import { openModel } from '../../engine/model/open.ts';
import { seededRandom } from '../../engine/sampling/random.ts';
import { engineScheduler, type Scheduler } from '../../engine/scheduler/scheduler.ts';
import { Speculation } from '../../engine/scheduler/tokensPerStep.ts';
import { type Edit, editsOfCommits, editsOfPackage } from './edits.ts';
import { defaultModel } from './models.ts';
import type { Goal, Line, Report } from './report.ts';
import type { Settings } from './settings.ts';

const contextTokens = 2048;
const oldFileTokens = 1400;

function linesOf(model: string, tokens: number, exact: boolean) {
  const how = exact ? ', without 8-bit activations' : '';
  const section = `${model}${how}: real edits, with draft tokens against without`;
  const line = (what: string, goal?: Goal): Line => ({ section, what, ...(goal && { goal }) });
  return {
    edit: (path: string) => line(`ms a token, ${path}`),
    all: line('ms a token, all', { of: 'ratio', bound: '≤', value: 1 }),
    speed: line('tokens a second, all'),
    accepted: line('acceptance rate of draft tokens in %'),
    drafted: line('draft tokens per generated token'),
    alike: line(`% of equal samples (of up to ${tokens} tokens a file)`),
    apart: line('largest difference of a log-probability'),
  };
}

export async function measureSpeculation(report: Report, settings: Settings): Promise<void> {
  const path = settings.models[0] ?? (await defaultModel());
  const writers = await openWriters(path, settings);
  const { edits, commits, files, tokens, exact } = settings.speculation;
  const lines = linesOf(basename(path), tokens, exact);
  const compared: Compared[] = [];
  try {
    const sources = [
      ...edits.map((edit) => ({ name: edit, edits: editsOfPackage(edit) })),
      { name: 'commits', edits: editsOfCommits(commits) },
    ];
    for (const source of sources) {
      await report.attempt(`edits of ${source.name}`, async () => {
        let left = files;
        for (const edit of source.edits) {
          if (left-- === 0) break;
          console.error(`draft tokens in ${edit.path}`);
          const one = await compare(writers, edit, tokens);
          compared.push(one);
          report.note('hearth', lines.edit(edit.path), one.draftingMs / one.tokens);
          report.note('other', lines.edit(edit.path), one.plainMs / one.tokens);
        }
      });
    }
  } finally {
    await writers.close();
  }
  noteTotals(report, lines, compared, writers.draftStatistics());
}

interface Writers {
  readonly ids: (text: string) => number[];
  readonly plain: Scheduler;
  readonly drafting: Scheduler;
  draftStatistics(): { readonly draftTokens: number; readonly acceptedTokens: number };
  close(): Promise<void>;
}

async function openWriters(path: string, { threads, speculation }: Settings): Promise<Writers> {
  const model = await openModel(path);
  const { tokenizer } = model;
  if (!tokenizer) throw new Error('The model has no vocabulary.');
  const backend = createOnnxBackend({ roundActivations: !speculation.exact });
  const decoder = await backend.load(model.spec, model.weights, { contextTokens, threads });
  const schedulerWith = (speculation?: Speculation): Scheduler =>
    engineScheduler({
      decoder,
      cache: new PrefixCache({ decoder, maxIdle: () => 1 }),
      ...(speculation && { speculation }),
    });
  const drafting = schedulerWith(new Speculation());
  return {
    ids: (text) => tokenizer.encode(text, { special: 'plain' }),
    plain: schedulerWith(),
    drafting,
    draftStatistics: () => drafting.statistics().classes.chat,
    async close() {
      await decoder.dispose();
      await model.file.close();
    },
  };
}

interface Compared {
  readonly tokens: number;
  readonly plainMs: number;
  readonly draftingMs: number;
  /** Tokens sampled equally. */
  readonly alike: number;
  /** Largest change of the true token's log-probability. */
  readonly apart: number;
}

async function compare({ ids, plain, drafting }: Writers, { before, after }: Edit, tokens: number): Promise<Compared> {
  const prompt = ids(`The old file:\n${before}`).slice(0, oldFileTokens).concat(ids('\n\nThe new file:\n'));
  const answer = ids(after).slice(0, tokens);
  const [off, on] = [await write(plain, prompt, answer), await write(drafting, prompt, answer)];
  const apart = off.logProbabilities.map((value, i) => Math.abs(value - (on.logProbabilities[i] ?? Number.NaN)));
  return {
    tokens: answer.length,
    plainMs: off.ms,
    draftingMs: on.ms,
    alike: off.sampled.filter((token, i) => token === on.sampled[i]).length,
    apart: Math.max(...apart),
  };
}

function noteTotals(
  report: Report,
  lines: ReturnType<typeof linesOf>,
  compared: readonly Compared[],
  { draftTokens, acceptedTokens }: ReturnType<Writers['draftStatistics']>,
): void {
  const sum = (of: (one: Compared) => number): number => compared.reduce((total, one) => total + of(one), 0);
  const tokens = sum((one) => one.tokens);
  if (tokens === 0) return;
  for (const [side, ms] of [
    ['hearth', sum((one) => one.draftingMs)],
    ['other', sum((one) => one.plainMs)],
  ] as const) {
    report.note(side, lines.all, ms / tokens);
    report.note(side, lines.speed, (1000 * tokens) / ms);
  }
  report.note('hearth', lines.accepted, (100 * acceptedTokens) / draftTokens);
  report.note('hearth', lines.drafted, draftTokens / tokens);
  report.note('hearth', lines.alike, (100 * sum((one) => one.alike)) / tokens);
  report.note('hearth', lines.apart, Math.max(...compared.map(({ apart }) => apart)));
}

interface Written {
  /** Time from the first token to the last, without the benchmark's own overhead. */
  readonly ms: number;
  /** Log-probability of each true token. */
  readonly logProbabilities: readonly number[];
  readonly sampled: readonly number[];
}

async function write(scheduler: Scheduler, prompt: readonly number[], answer: readonly number[]): Promise<Written> {
  const [logProbabilities, sampled, random]: [number[], number[], () => number] = [[], [], seededRandom(1)];
  const history = { sequence: new Set<number>(), generated: new Set<number>() };
  let lookedMs = 0;
  const { firstTokenMs, endedMs } = await scheduler.submit({
    requestClass: 'chat',
    prompt,
    maxTokens: answer.length,
    choose: (logits) => {
      const start = performance.now();
      const token = answer[sampled.length] ?? 0;
      logProbabilities.push(logProbability(logits, token));
      sampled.push(sample(logits, { ...greedy, temperature: 0.8 }, history, random));
      if (sampled.length > 1) lookedMs += performance.now() - start;
      return token;
    },
    deliver: () => 'continue',
  });
  return { ms: endedMs - firstTokenMs - lookedMs, logProbabilities, sampled };
}

function logProbability(logits: Float32Array, token: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) largest = Math.max(largest, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return (logits[token] ?? Number.NaN) - largest - Math.log(sum);
}
