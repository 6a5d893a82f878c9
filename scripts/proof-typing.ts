/**
 * Measures how much of each key's prompt the prefix cache holds, over an hour of typing.
 *
 *     npm run proof:typing -- [--repository FOLDER] [--commits N] [--minutes N] [--seed N] [--speed TOKENS_A_SECOND] [--tokenizer FOLDER]
 *
 * The recording replays the last commits of a git repository (by default this one) key by key: `completion/typing.ts`.
 * The index is of the commit before them. Prompts, snippets, pauses and cache are the product's own; only the model is
 * simulated, by its speed.
 */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { Repository } from '../engine/index/repository/repository.ts';
import { grammarOf } from '../engine/index/syntax/grammars.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import { tokenizerFromDirectory } from '../engine/tokenizer/huggingFaceTokenizer.ts';
import { fitting, keepOrder, type Snippet } from '../extension/completion/moment.ts';
import { limits } from '../extension/limits.ts';
import { cachedShare } from './completion/cachedShare.ts';
import { aroundOf, foundSnippets } from './completion/context.ts';
import { type FileChange, type Key, typing } from './completion/typing.ts';

const { values } = parseArgs({
  options: {
    repository: { type: 'string', default: '.' },
    commits: { type: 'string', default: '60' },
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    speed: { type: 'string', default: '250' },
    tokenizer: { type: 'string', default: '../shared/models/SmolLM2-135M-Instruct' },
    'context-chars': { type: 'string', default: String(limits.completion.cpuContextChars) },
  },
});

const git = (...args: string[]): string =>
  execFileSync('git', ['-C', values.repository, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
const shown = (commit: string, path: string): string => {
  try {
    return git('show', `${commit}:${path}`);
  } catch {
    return '';
  }
};

const languages: Readonly<Record<string, string>> = { '.py': 'python', '.ts': 'typescript', '.js': 'javascript' };
const languageOf = (path: string): string => languages[extname(path)] ?? extname(path).slice(1);

function* changes(commits: readonly string[]): Generator<FileChange> {
  for (const commit of commits) {
    const paths = git('diff-tree', '-r', '--no-commit-id', '--name-only', '--diff-filter=AM', commit).split('\n');
    const code = paths.filter((path) => grammarOf(path) !== undefined && !path.endsWith('.json'));
    // Nobody types a change of a hundred files.
    if (code.length > 12) continue;
    for (const path of code) {
      yield { path, before: shown(`${commit}^`, path), after: shown(commit, path) };
    }
  }
}

function* first(keys: Iterable<Key>, minutes: number): Generator<Key> {
  for (const key of keys) {
    if (key.atMs > minutes * 60_000) return;
    yield key;
  }
}

const commits = git('rev-list', '--no-merges', '-n', values.commits, 'HEAD').trim().split('\n').reverse();
const folder = await mkdtemp(join(tmpdir(), 'hearth-typing-'));
try {
  execFileSync('tar', ['-x', '-C', folder], {
    input: execFileSync('git', ['-C', values.repository, 'archive', `${commits[0]}^`], { maxBuffer: 1 << 30 }),
  });
  const repository = await Repository.open({ database: ':memory:', folders: [{ name: '', directory: folder }] });
  repository.indexer.rescan();
  await repository.indexer.settled();
  const tokenizer = await tokenizerFromDirectory(values.tokenizer);
  if (!tokenizer) throw new Error(`There is no tokenizer.json in ${values.tokenizer}.`);
  const find = ({ path, lines, line }: Key, before: readonly Snippet[]): Snippet[] => {
    const place = { path, line, lines };
    const found = foundSnippets(repository, folder, place);
    return keepOrder(before, fitting(found, aroundOf(place), Number(values['context-chars'])));
  };
  const recording = first(typing(changes(commits), seededRandom(Number(values.seed))), Number(values.minutes));
  const share = cachedShare(recording, { tokenizer, tokensPerSecond: Number(values.speed), languageOf, find });
  const sorted = share.missing.toSorted((a, b) => a - b);
  const at = (part: number): number => sorted[Math.floor(part * (sorted.length - 1))] ?? 0;
  console.log(
    `${share.minutes.toFixed(1)} minutes, ${share.keys} keys: ${(share.cached / share.keys).toFixed(4)} of them with more`,
  );
  console.log(`than 95 % of the prompt cached; tokens not cached: median ${at(0.5)}, p95 ${at(0.95)}, p99 ${at(0.99)}`);
  await repository.close();
} finally {
  await rm(folder, { recursive: true, force: true });
}
