/** Advice in error messages: settings and commands in VS Code, variables and commands elsewhere. */

import { Headers } from 'undici';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { requireEntry } from '../../../engine/catalogue/catalogue.ts';
import { diskError, requireSpace } from '../../../engine/catalogue/files.ts';
import { collect } from '../../../engine/catalogue/foreign.ts';
import { statusFailure } from '../../../engine/catalogue/http.ts';
import { Store } from '../../../engine/catalogue/store.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

afterEach(() => void vi.unstubAllEnvs());

const answered = (status: number) => () => {
  throw statusFailure({ status, url: new URL('https://host/model.gguf'), headers: new Headers() });
};
const failures: Record<string, (folder: string) => unknown> = {
  'a full disk': (folder) => requireSpace(folder, [{ what: 'the download', bytes: Number.MAX_SAFE_INTEGER }]),
  'a folder that cannot be written': (folder) => {
    throw diskError(Object.assign(new Error('denied'), { code: 'EACCES' }), folder);
  },
  'a refusal': answered(403),
  'a call for credentials': answered(401),
  'an unknown model': () => requireEntry('nonsense'),
  'a model that is absent': (directory) => new Store({ directory }).resolve('smollm2-135m-instruct'),
  'a path that is absent': (directory) => new Store({ directory }).resolve('/no/such/file'),
  'a file that is no model of the catalogue': (folder) => collect(folder, []),
  'a download that fails everywhere': (directory) => {
    const nowhere = new URL('http://127.0.0.1:9');
    const retry = { attempts: 1, firstWaitMs: 0, idleMs: 1_000 };
    return new Store({ directory, endpoints: { hub: nowhere, index: nowhere }, retry }).pull('smollm2-135m-instruct');
  },
};
const forShells = /HEARTH_|HF_ENDPOINT|PIP_INDEX_URL|HTTPS?_PROXY|`hearth |--model/;

async function adviceOf(fail: (folder: string) => unknown): Promise<string> {
  try {
    await fail(temporaryFolder());
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error('It did not fail.');
}

describe.each(Object.entries(failures))('%s', (_, fail) => {
  it('names no variable and no shell command in VS Code', async () => {
    vi.stubEnv('HEARTH_CLIENT', 'vscode');
    expect(await adviceOf(fail)).not.toMatch(forShells);
  });

  it('names them on the command line', async () => {
    vi.stubEnv('HEARTH_CLIENT', '');
    expect(await adviceOf(fail)).toMatch(forShells);
  });
});
