/** The part of VS Code's own git extension that is used here. */
import * as vscode from 'vscode';

interface GitExtension {
  getAPI(version: 1): { repositories: GitRepository[]; getRepository(uri: vscode.Uri): GitRepository | null };
}

export interface GitRepository {
  readonly rootUri: vscode.Uri;
  readonly inputBox: { value: string };
  /** `name` is absent if no branch is checked out. */
  readonly state: { readonly HEAD: { readonly name?: string } | undefined };
  /** `cached`: of the staged changes. */
  diff(cached?: boolean): Promise<string>;
  diffBetween(from: string, to: string): Promise<readonly { readonly uri: vscode.Uri }[]>;
  diffBetween(from: string, to: string, path: string): Promise<string>;
  getMergeBase(one: string, other: string): Promise<string | undefined>;
  getBranchBase?(branch: string): Promise<{ readonly remote?: string; readonly name?: string } | undefined>;
  log(options: { range: string; maxEntries: number }): Promise<readonly { readonly message: string }[]>;
}

/** The repository of a file or source-control view, otherwise the first one; undefined without a repository or git. */
export async function gitRepository(uri: vscode.Uri | undefined): Promise<GitRepository | undefined> {
  const extension = vscode.extensions.getExtension<GitExtension>('vscode.git');
  if (extension === undefined) return undefined;
  const api = (await extension.activate()).getAPI(1);
  return (uri && api.getRepository(uri)) ?? api.repositories[0];
}

/** The repository on which a source-control menu was opened. */
export const rootOf = (view: unknown): vscode.Uri | undefined =>
  typeof view === 'object' && view !== null && 'rootUri' in view && view.rootUri instanceof vscode.Uri
    ? view.rootUri
    : undefined;

/** The staged changes; if there are none, all changes. */
export async function changesOf(repository: GitRepository): Promise<string> {
  const staged = await repository.diff(true);
  return staged.trim() === '' ? repository.diff() : staged;
}

/** The commits of a branch since it left its base. */
export interface BranchChanges {
  /** The base branch. */
  readonly base: string;
  /** The merge base. */
  readonly from: string;
  readonly diff: string;
}

const usualBases = ['main', 'master', 'origin/main', 'origin/master', 'develop'];

/** The commits of the checked-out branch against its base branch; undefined if no base is found. */
export async function branchChanges(repository: GitRepository): Promise<BranchChanges | undefined> {
  const branch = repository.state.HEAD?.name;
  const known = branch === undefined ? undefined : await repository.getBranchBase?.(branch).catch(() => undefined);
  const own = [known?.remote, known?.name].filter((part) => part !== undefined).join('/');
  const bases = [...(own === '' ? [] : [own]), ...usualBases].filter((base) => base !== branch);
  for (const base of new Set(bases)) {
    // Git fails if there is no such branch.
    const from = await repository.getMergeBase(base, 'HEAD').catch(() => undefined);
    if (from === undefined) continue;
    const files = await repository.diffBetween(from, 'HEAD');
    const diffs = await Promise.all(files.map(({ uri }) => repository.diffBetween(from, 'HEAD', uri.fsPath)));
    return { base, from, diff: diffs.join('\n') };
  }
  return undefined;
}
