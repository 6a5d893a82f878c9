/** Changes of single lines in a git history, in file order. */
import { execFileSync } from 'node:child_process';

export interface LineChange {
  /** Line number in the file before the commit, from 0. */
  readonly line: number;
  readonly before: string;
  readonly after: string;
}

export interface FileChanges {
  readonly commit: string;
  readonly path: string;
  /** The file before the commit. */
  readonly lines: readonly string[];
  readonly changes: readonly LineChange[];
}

const source = /\.(?:[cm]?[jt]sx?|py|go|rs|java|rb|c|h|cc|cpp|cs|kt|swift|php)$/;
const most = { lines: 3_000, changes: 12 };

/** Files in which a commit changed only single lines, newest commit first. */
export function* lineChangesOf(repository: string, commits: number): Generator<FileChanges> {
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', repository, ...args], { encoding: 'utf8', maxBuffer: 1e8 });
  const log = git('log', `-${commits}`, '--no-merges', '--diff-filter=M', '-U0', '--no-ext-diff', '--format=commit %H');
  for (const patch of log.split(/^commit /m).slice(1)) {
    const commit = patch.slice(0, patch.indexOf('\n'));
    for (const file of patch.split(/^diff --git /m).slice(1)) {
      const path = /^\+\+\+ b\/(.+)$/m.exec(file)?.[1];
      const changes = changesIn(file);
      if (path === undefined || !source.test(path) || changes.length === 0 || changes.length > most.changes) continue;
      const lines = git('show', `${commit}^:${path}`).split('\n');
      if (lines.length <= most.lines) yield { commit, path, lines, changes };
    }
  }
}

/** Hunks that replace single lines; longer ones of equal length count line by line. Empty if the commit changed the file in another way. */
function changesIn(patch: string): LineChange[] {
  const changes: LineChange[] = [];
  for (const hunk of patch.split(/^@@ /m).slice(1)) {
    const line = Number(/^-(\d+)/.exec(hunk)?.[1]) - 1;
    const rows = hunk.split('\n').slice(1);
    const removed = rows.filter((row) => row.startsWith('-')).map((row) => row.slice(1));
    const added = rows.filter((row) => row.startsWith('+')).map((row) => row.slice(1));
    if (removed.length !== added.length) return [];
    for (const [i, before] of removed.entries()) changes.push({ line: line + i, before, after: added[i] ?? '' });
  }
  return changes;
}
