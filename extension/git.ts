import * as vscode from 'vscode';

/** The part of the built-in git extension's interface that is used here. */
interface GitExtension {
  getAPI(version: 1): { repositories: GitRepository[]; getRepository(uri: vscode.Uri): GitRepository | null };
}

export interface GitRepository {
  readonly rootUri: vscode.Uri;
  readonly inputBox: { value: string };
  /** `cached`: of what is staged. */
  diff(cached?: boolean): Promise<string>;
}

/** The repository of a file or source-control view, else the first; undefined where there is none, or no git. */
export async function gitRepository(uri: vscode.Uri | undefined): Promise<GitRepository | undefined> {
  const extension = vscode.extensions.getExtension<GitExtension>('vscode.git');
  if (extension === undefined) return undefined;
  const api = (await extension.activate()).getAPI(1);
  return (uri && api.getRepository(uri)) ?? api.repositories[0];
}

/** The staged changes; if there are none, all changes. */
export async function changesOf(repository: GitRepository): Promise<string> {
  const staged = await repository.diff(true);
  return staged.trim() === '' ? repository.diff() : staged;
}
