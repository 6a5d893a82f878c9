/**
 * What guessing coming tokens is worth on real edits: files that differ between two versions of an npm package. The prompt is
 * the old file, and the model writes the new one: its choices are replaced by the true tokens, so that a small model
 * stands for one that edits well; the runs and their times are real. With and without guesses, in turn.
 *
 *   npm run bench:speculation -- [--package NAME] [--from VERSION] [--to VERSION] [--files N] [--tokens N] [--model FILE]
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { onnxBackend } from '../engine/backend/onnx/index.ts';
import { defaultThreads } from '../engine/backend/onnx/threads.ts';
import { PrefixCache } from '../engine/cache/prefixCache.ts';
import { Scheduler } from '../engine/generation/scheduler.ts';
import { Speculation } from '../engine/generation/speculation.ts';
import { limits } from '../engine/limits.ts';
import { openModel } from '../engine/model/open.ts';
import { defaultModelId } from '../engine/store/catalogue.ts';
import { openStore } from '../engine/store/store.ts';

const { values } = parseArgs({
  options: {
    package: { type: 'string', default: 'undici' },
    from: { type: 'string', default: '7.29.0' },
    to: { type: 'string', default: '7.30.2' },
    files: { type: 'string', default: '8' },
    tokens: { type: 'string', default: '256' },
    model: { type: 'string', default: defaultModelId },
  },
});

interface Edit {
  readonly path: string;
  readonly before: string;
  readonly after: string;
}

/** Unpacks a version of the package, by npm itself. */
function unpacked(version: string): string {
  const directory = resolve('.cache/bench', `${values.package.replace('/', '-')}-${version}`);
  mkdirSync(directory, { recursive: true });
  const name = `${values.package}@${version}`;
  const options = { cwd: directory, encoding: 'utf8' as const, shell: process.platform === 'win32' };
  const archive = execFileSync('npm', ['pack', name, '--silent'], options).trim().split('\n').at(-1) ?? '';
  execFileSync('tar', ['-xzf', archive], options);
  return join(directory, 'package');
}

/** Sources that changed, from 20 lines before their first change on. */
function editsOf(from: string, to: string): Edit[] {
  const edits: Edit[] = [];
  for (const path of readdirSync(to, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!/\.[jt]s$/.test(path) || statSync(join(to, path)).size > 60_000) continue;
    const [before, after] = [linesOf(join(from, path)), linesOf(join(to, path))];
    const first = after.findIndex((line, i) => line !== before[i]);
    if (before.length === 0 || first < 0) continue;
    const start = Math.max(0, first - 20);
    edits.push({ path, before: before.slice(start).join('\n'), after: after.slice(start).join('\n') });
  }
  return edits;
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch {
    // A new file is no edit.
    return [];
  }
}

const model = await openModel(await openStore().resolve(values.model));
const { tokenizer } = model;
if (!tokenizer) throw new Error('The model has no vocabulary.');
const decoder = await onnxBackend.load(model.spec, model.weights, { contextTokens: 2048, threads: defaultThreads() });
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

/** Milliseconds from the first token to the last. */
async function write(scheduler: Scheduler, prompt: readonly number[], answer: readonly number[]): Promise<number> {
  let at = 0;
  const { firstTokenMs, endedMs } = await scheduler.submit({
    requestClass: 'chat',
    prompt,
    maxTokens: answer.length,
    choose: () => answer[at] ?? 0,
    deliver: () => {
      at++;
      return 'continue';
    },
  });
  return endedMs - firstTokenMs;
}

const ids = (text: string): number[] => tokenizer.encode(text, { special: 'plain' });
const [plain, guessing] = [schedulerWith(), schedulerWith(new Speculation())];
const total = { tokens: 0, plainMs: 0, guessingMs: 0 };
console.log('| file | tokens | ms a token | with guesses | speed-up |\n|---|---:|---:|---:|---:|');
for (const { path, before, after } of editsOf(unpacked(values.from), unpacked(values.to)).slice(
  0,
  Number(values.files),
)) {
  const prompt = ids(`The old file:\n${before}`).slice(0, 1400).concat(ids('\n\nThe new file:\n'));
  const answer = ids(after).slice(0, Number(values.tokens));
  const plainMs = await write(plain, prompt, answer);
  const guessingMs = await write(guessing, prompt, answer);
  total.tokens += answer.length;
  total.plainMs += plainMs;
  total.guessingMs += guessingMs;
  const cells = [plainMs / answer.length, guessingMs / answer.length].map((ms) => ms.toFixed(1));
  console.log(`| ${path} | ${answer.length} | ${cells.join(' | ')} | ${(plainMs / guessingMs).toFixed(2)} × |`);
}
const { guessedTokens, rightTokens } = guessing.statistics().classes.chat;
console.log(
  `${total.tokens} tokens: ${(total.plainMs / total.guessingMs).toFixed(2)} × as fast; ${rightTokens} of ${guessedTokens} guesses came true (${((100 * rightTokens) / guessedTokens).toFixed(0)} %)`,
);
await decoder.dispose();
await model.file.close();
