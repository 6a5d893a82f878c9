/** Natural-language questions from commit messages. The answers are the commit's files, and those of its lines that still exist. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { grammarOf } from '../../engine/index/syntax/grammars.ts';
import { run } from '../shared/process.ts';
import { isTest, type Place, type Question } from './questions.ts';
import type { CheckedOut, History } from './repositories.ts';

const commits = 1500;
const mostFiles = 3;
const words = { least: 5, most: 60 };
/** Messages that say nothing about the code. */
const chores =
  /\b(?:typos?|dependenc\w+|dev requirements|release|version|bump|merge|lint\w*|ruff|eslint|clippy|format\w*|workflows?|actions?|ci|pre-commit|changelog|copyright|licen[cs]e|revert|whitespace|indent\w*|spelling|codespell|tests?|benchmarks?|upgrade)\b/i;
const changes = /(^|\/)(?:change|history|news|release)[^/]*$/i;
const documents = /\.(?:md|mdx|rst|adoc|txt)$/i;

interface Commit {
  readonly hash: string;
  readonly message: string;
  readonly files: readonly string[];
}

/** At most `perKind` questions about sources and as many about documents. */
export async function commitQuestions({ folder, history }: CheckedOut, perKind: number): Promise<Question[]> {
  if (history === undefined) return [];
  const questions: Question[] = [];
  const count = { commit: 0, document: 0 };
  for (const { hash, message, files } of await commitsOf(history)) {
    if (count.commit + count.document >= 2 * perKind) break;
    const changed = files.filter((path) => !changes.test(path) && existsSync(join(folder, path)));
    const sources = changed.filter((path) => grammarOf(path) !== undefined && !isTest(path));
    const kind = sources.length > 0 ? 'commit' : 'document';
    const answers = kind === 'commit' ? sources : changed.filter((path) => documents.test(path));
    if (answers.length === 0 || answers.length > mostFiles || count[kind] === perKind) continue;
    const places = (await Promise.all(answers.map((path) => linesOf(history, hash, path)))).flat();
    if (places.length === 0) continue;
    count[kind]++;
    questions.push({ kind, text: message, files: new Set(answers), places });
  }
  return questions;
}

async function commitsOf({ directory, commit }: History): Promise<Commit[]> {
  const format = '--format=%x01%H%x00%s%x00%b%x00';
  const options = ['log', '--no-merges', `-${commits}`, format, '--name-only', commit];
  const log = await run('git', ['-C', directory, ...options], { output: 'quiet' });
  return log
    .split('\x01')
    .slice(1)
    .flatMap((entry) => {
      const [hash = '', subject = '', body = '', files = ''] = entry.split('\0');
      const message = messageOf(subject, body);
      const count = message.split(/\s+/).length;
      if (chores.test(subject) || count < words.least || count > words.most) return [];
      return [{ hash, message, files: files.split('\n').filter((path) => path !== '') }];
    });
}

/** The message without issue numbers, commit prefixes and authors. */
function messageOf(subject: string, body: string): string {
  const plain = subject.replaceAll(/\(?#\d+\)?/g, '').replace(/^\w+(?:\([^)]*\))?!?:\s*/, '');
  const paragraph = body.split(/\n\s*\n/)[0] ?? '';
  const isProse = paragraph.length > 40 && !/^[\w-]+: |https?:|^[*-]/m.test(paragraph);
  return [plain, ...(isProse ? [paragraph] : [])].join('\n').trim();
}

async function linesOf({ directory, commit }: History, hash: string, path: string): Promise<Place[]> {
  const blame = await run('git', ['-C', directory, 'blame', '-l', '-s', commit, '--', path], { output: 'quiet' });
  return blame.split('\n').flatMap((line, at) => (line.startsWith(hash) ? [{ path, line: at + 1 }] : []));
}
