/**
 * What guessing coming tokens is worth on real edits: files that differ between two versions of npm packages, or before and after
 * commits of this repository. The prompt is the old file, and the model writes the new one: its choices are replaced by the true
 * tokens, so that a small model stands for one that edits well; the runs and their times are real. With and without guesses, in
 * turn. At every token both ways also say how probable the true token is and what they would have drawn with the same
 * random number: guesses must change neither, but for the rounding of several rows to 8 bits; `--exact` computes without it.
 *
 *   npm run bench:speculation -- [--edit PACKAGE@FROM..TO]… [--commits N] [--files N] [--tokens N] [--exact] [--model FILE]
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { createOnnxBackend } from '../../engine/backend/onnx/index.ts';
import { defaultThreads } from '../../engine/backend/onnx/threads.ts';
import { PrefixCache } from '../../engine/cache/prefixCache.ts';
import { seededRandom } from '../../engine/generation/random.ts';
import { greedy, sample } from '../../engine/generation/sampler.ts';
import { Scheduler } from '../../engine/generation/scheduler.ts';
import { Speculation } from '../../engine/generation/speculation.ts';
import { limits } from '../../engine/limits.ts';
import { openModel } from '../../engine/model/open.ts';
import { defaultModelId } from '../../engine/store/catalogue.ts';
import { openStore } from '../../engine/store/store.ts';

const { values } = parseArgs({
  options: {
    edit: {
      type: 'string',
      multiple: true,
      default: ['undici@7.29.0..7.30.2', 'zod@4.6.4..4.6.7', 'yauzl@3.3.0..3.4.0', 'vscode-jsonrpc@9.0.1..10.0.0'],
    },
    commits: { type: 'string', default: '200' },
    files: { type: 'string', default: '3' },
    tokens: { type: 'string', default: '256' },
    exact: { type: 'boolean', default: false },
    model: { type: 'string', default: defaultModelId },
  },
});

interface Edit {
  readonly path: string;
  readonly before: string;
  readonly after: string;
}

const lines = { before: 20, most: 400 };
const isSource = (path: string): boolean => /\.[cm]?[jt]s$/.test(path) && !/\.min\.|\.d\.[cm]?ts$/.test(path);

/** From some lines before the first change on; undefined where there is nothing to edit. */
function editOf(path: string, before: string, after: string): Edit | undefined {
  const [old, fresh] = [before.split('\n'), after.split('\n')];
  const first = fresh.findIndex((line, i) => line !== old[i]);
  if (before === '' || first < 0) return undefined;
  const start = Math.max(0, first - lines.before);
  const [from, to] = [old, fresh].map((text) => text.slice(start, start + lines.most).join('\n'));
  return { path, before: from ?? '', after: to ?? '' };
}

/** Unpacks a version of a package, by npm itself. */
function unpacked(name: string, version: string): string {
  const directory = resolve('.cache/bench', `${name.replace('/', '-')}-${version}`);
  mkdirSync(directory, { recursive: true });
  const options = { cwd: directory, encoding: 'utf8' as const, shell: process.platform === 'win32' };
  const archive = execFileSync('npm', ['pack', `${name}@${version}`, '--silent'], options)
    .trim()
    .split('\n')
    .at(-1);
  execFileSync('tar', ['-xzf', archive ?? ''], options);
  return join(directory, 'package');
}

function* editsOfPackage(edit: string): Generator<Edit> {
  const [, name = '', from = '', to = ''] = /^(.+)@(.+)\.\.(.+)$/.exec(edit) ?? [];
  const [old, fresh] = [unpacked(name, from), unpacked(name, to)];
  for (const path of readdirSync(fresh, { recursive: true, encoding: 'utf8' }).sort()) {
    const file = join(fresh, path);
    if (!isSource(path) || !statSync(file).isFile()) continue;
    const found = editOf(`${name}/${path}`, textOf(join(old, path)), readFileSync(file, 'utf8'));
    if (found) yield found;
  }
}

/** The newest first; files that a commit adds or removes are no edits. */
function* editsOfCommits(count: number): Generator<Edit> {
  if (count === 0) return;
  const log = git('log', `-${count}`, '--no-merges', '--diff-filter=M', '--name-only', '--format=commit %h');
  let commit = '';
  for (const line of log.split('\n')) {
    if (line.startsWith('commit ')) commit = line.slice('commit '.length);
    else if (isSource(line)) {
      const found = editOf(`${line} (${commit})`, git('show', `${commit}^:${line}`), git('show', `${commit}:${line}`));
      if (found) yield found;
    }
  }
}

const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8', maxBuffer: 1e8 });

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // A new file is no edit.
    return '';
  }
}

const model = await openModel(await openStore().resolve(values.model));
const { tokenizer } = model;
if (!tokenizer) throw new Error('The model has no vocabulary.');
const backend = createOnnxBackend({ roundActivations: !values.exact });
const decoder = await backend.load(model.spec, model.weights, { contextTokens: 2048, threads: defaultThreads() });
const schedulerWith = (speculation?: Speculation): Scheduler =>
  new Scheduler({
    decoder,
    cache: new PrefixCache({ decoder, maxIdle: () => 1 }),
    ...(speculation && { speculation }),
    chunkTokens: limits.generation.chunkTokens,
    maxPendingPerClass: 1,
    patienceMs: limits.generation.patienceMs,
    now: () => performance.now(),
    breathe: () => new Promise((done) => setImmediate(done)),
  });

interface Written {
  /** From the first token to the last, without what this benchmark looks at itself. */
  readonly ms: number;
  /** Of each true token. */
  readonly logProbabilities: readonly number[];
  readonly drawn: readonly number[];
}

async function write(scheduler: Scheduler, prompt: readonly number[], answer: readonly number[]): Promise<Written> {
  const [logProbabilities, drawn, random]: [number[], number[], () => number] = [[], [], seededRandom(1)];
  const history = { sequence: new Set<number>(), generated: new Set<number>() };
  let lookedMs = 0;
  const { firstTokenMs, endedMs } = await scheduler.submit({
    requestClass: 'chat',
    prompt,
    maxTokens: answer.length,
    choose: (logits) => {
      const start = performance.now();
      const token = answer[drawn.length] ?? 0;
      logProbabilities.push(logProbability(logits, token));
      drawn.push(sample(logits, { ...greedy, temperature: 0.8 }, history, random));
      if (drawn.length > 1) lookedMs += performance.now() - start;
      return token;
    },
    deliver: () => 'continue',
  });
  return { ms: endedMs - firstTokenMs - lookedMs, logProbabilities, drawn };
}

function logProbability(logits: Float32Array, token: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) largest = Math.max(largest, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return (logits[token] ?? Number.NaN) - largest - Math.log(sum);
}

const ids = (text: string): number[] => tokenizer.encode(text, { special: 'plain' });
const [plain, guessing] = [schedulerWith(), schedulerWith(new Speculation())];
const total = { tokens: 0, plainMs: 0, guessingMs: 0, same: 0, largest: 0 };

async function measure({ path, before, after }: Edit): Promise<void> {
  const prompt = ids(`The old file:\n${before}`).slice(0, 1400).concat(ids('\n\nThe new file:\n'));
  const answer = ids(after).slice(0, Number(values.tokens));
  const [off, on] = [await write(plain, prompt, answer), await write(guessing, prompt, answer)];
  const same = off.drawn.filter((token, i) => token === on.drawn[i]).length;
  const apart = off.logProbabilities.map((value, i) => Math.abs(value - (on.logProbabilities[i] ?? Number.NaN)));
  const largest = Math.max(...apart);
  total.tokens += answer.length;
  total.plainMs += off.ms;
  total.guessingMs += on.ms;
  total.same += same;
  total.largest = Math.max(total.largest, largest);
  const cells = [off.ms / answer.length, on.ms / answer.length].map((ms) => ms.toFixed(1));
  console.log(
    `| ${path} | ${answer.length} | ${cells.join(' | ')} | ${(off.ms / on.ms).toFixed(2)} × | ${same} | ${largest.toExponential(1)} |`,
  );
}

console.log(
  '| file | tokens | ms a token | with guesses | speed-up | drawn alike | largest change of a log-probability |\n|---|---:|---:|---:|---:|---:|---:|',
);
for (const edits of [...values.edit.map(editsOfPackage), editsOfCommits(Number(values.commits))]) {
  let count = 0;
  for (const edit of edits) {
    if (count++ === Number(values.files)) break;
    await measure(edit);
  }
}
const { guessedTokens, rightTokens } = guessing.statistics().classes.chat;
console.log(
  `${total.tokens} tokens: ${(total.plainMs / total.guessingMs).toFixed(2)} × as fast; ${rightTokens} of ${guessedTokens} guesses came true ` +
    `(${((100 * rightTokens) / guessedTokens).toFixed(0)} %); ${total.same} drawn alike, log-probabilities within ${total.largest.toExponential(1)}`,
);
await decoder.dispose();
await model.file.close();
