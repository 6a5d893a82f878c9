/** The repositories of the context benchmark: clones with their history, each at one commit. */
import { existsSync, mkdtempSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { run } from '../shared/process.ts';
import { sourceFolder } from './sources.ts';

export interface ContextSource {
  readonly name: string;
  readonly language: string;
  readonly commit: string;
  /** No rule was tuned on it; it is measured once per release. */
  readonly heldBack: boolean;
}

const looked = (name: string, language: string, commit: string): ContextSource => ({
  ...{ name, language, commit, heldBack: false },
});
const heldBack = (name: string, language: string, commit: string): ContextSource => ({
  ...{ name, language, commit, heldBack: true },
});

export const contextSources: readonly ContextSource[] = [
  looked('pallets/flask', 'Python', '2ac89889f4cc330eabd50f295dcef02828522c69'),
  looked('gin-gonic/gin', 'Go', 'dcaa4296d111981ffb31ac3eba90bb63e1eb5ab9'),
  looked('sharkdp/fd', 'Rust', 'ee20f426ddf338ac7ead5c5f00ea49258005caaf'),
  looked('expressjs/express', 'JavaScript', 'a3714473feb3d2908add734d340e7755fd85e0a3'),
  looked('google/gson', 'Java', '9835b6f90192f79cdf5300c528fc6212455fb6c1'),
  looked('sinatra/sinatra', 'Ruby', 'cb22afd7902b566b6eaba6c4ea89739494a65d12'),
  looked('jqlang/jq', 'C', '579e6f76cffd7643ba4002a2c3618a5ea710589a'),
  looked('colinhacks/zod', 'TypeScript', 'e516c3baf22615e20934116abebfed6c000222c2'),
  heldBack('httpie/cli', 'Python', '5b604c37c6c67e18e7c3e9aee6c88a8c22b98345'),
  heldBack('spf13/viper', 'Go', '528f7416c4b56a4948673984b190bf8713f0c3c4'),
  heldBack('sharkdp/bat', 'Rust', '2ba8db9c14e5794572f5ea338c2b90404c9769cb'),
  heldBack('vuejs/pinia', 'TypeScript', '254eec764ecccd120ab9dbc31352d76ffd6ecfa3'),
  heldBack('square/javapoet', 'Java', 'b9017a9503b76e11b4ad4c1a9f050e2d29112cb0'),
  heldBack('guzzle/guzzle', 'PHP', '2779e868a00289e1b1fd854af030c43a06f4bcb4'),
  heldBack('google/leveldb', 'C++', '78a352f47ed6c1e9d750545e9b242289185b87e1'),
  heldBack('App-vNext/Polly', 'C#', '173d6d1d2e28a4697f1ac1d22da68f77ff19a0c9'),
];

/** A writable copy of a repository's files, and its history. */
export interface CheckedOut {
  readonly name: string;
  readonly folder: string;
  /** Absent if there is none. */
  readonly history?: History;
}

export interface History {
  /** Git's directory. */
  readonly directory: string;
  readonly commit: string;
}

export async function cloned({ name, language, commit }: ContextSource): Promise<CheckedOut> {
  const short = basename(name);
  const directory = await sourceFolder({
    ...{ name: `git ${short}`, language },
    fetch: async (folder) => {
      const options = ['clone', '--quiet', '--bare', `https://github.com/${name}.git`, folder];
      await run('git', options, { output: 'quiet' });
    },
  });
  return checkedOut(short, { directory, commit });
}

/** @param path a folder, a git repository or a bare one */
export async function copied(path: string): Promise<CheckedOut> {
  const directory = resolve(path);
  if (existsSync(join(directory, '.git')) || existsSync(join(directory, 'HEAD'))) {
    return checkedOut(basename(directory), { directory, commit: 'HEAD' });
  }
  const folder = temporary();
  await cp(directory, folder, { recursive: true });
  return { name: basename(directory), folder };
}

async function checkedOut(name: string, history: History): Promise<CheckedOut> {
  const folder = temporary();
  const archive = `${folder}.tar`;
  await run('git', ['-C', history.directory, 'archive', '--output', archive, history.commit], { output: 'quiet' });
  await run('tar', ['xf', archive, '-C', folder], { output: 'quiet' });
  await run('rm', [archive], { output: 'quiet' });
  return { name, folder, history };
}

const temporary = (): string => mkdtempSync(join(tmpdir(), 'hearth-context-'));
