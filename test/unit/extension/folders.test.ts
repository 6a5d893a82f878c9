/** The offered files and folders, and their order. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeEach, describe, expect, it } from 'vitest';
import { commandTable } from '../../../extension/commands.ts';
import { MentionSuggester, mentionsOf } from '../../../extension/context/mentions.ts';
import type { LazyChat, Parts } from '../../../extension/parts.ts';
import { chosenFolder } from '../../../extension/summarise.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { env, TabInputText, Uri, user, window, workspace } from './vscode.ts';

const fileAt = (path: string) => Uri.parse(`file:///${path}`);

beforeEach(() => {
  user.reset();
  workspace.workspaceFolders = [{ name: 'shop', uri: Uri.parse('file:///'), index: 0 }];
  workspace.files = ['a/list.ts', 'b/deep/list.ts', 'c/list.ts'].map(fileAt);
  window.tabGroups.all = [];
  env.remoteName = undefined;
});

describe('a mention of a file', () => {
  const suggested = async (suggester: MentionSuggester, query: string) =>
    (await suggester.suggest(query)).map(({ detail, label }) => detail || label);

  it('offers the active file first, then open files, then recently open ones, each once', async () => {
    const suggester = new MentionSuggester(undefined);
    const show = (path: string) => {
      const tabs = [{ input: new TabInputText(fileAt(path)), isActive: true }];
      window.tabGroups.all = [{ tabs } as never];
    };
    show('b/deep/list.ts');
    await suggester.suggest('file:list');
    show('c/list.ts');
    expect(await suggested(suggester, 'file:list')).toEqual(['c/list.ts', 'b/deep/list.ts', 'a/list.ts']);
  });
});

describe('what is dropped into the question', () => {
  it('becomes mentions; pictures, missing files and what is outside the workspace are named', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'src'));
    for (const name of ['a.ts', 'logo.png']) writeFileSync(join(folder, name), '');
    const address = (name: string) => pathToFileURL(join(folder, name)).href;
    const { getWorkspaceFolder } = workspace;
    workspace.getWorkspaceFolder = (uri) => (uri.path.includes('elsewhere') ? undefined : getWorkspaceFolder(uri));
    const names = ['src', 'a.ts', 'logo.png', 'gone.ts', 'elsewhere.ts'];
    const { text, refused } = await mentionsOf(names.map(address));
    workspace.getWorkspaceFolder = getWorkspaceFolder;
    expect(text).toMatch(/^@folder:\S+\/src @file:\S+\/a\.ts$/);
    expect(refused).toEqual(['logo.png', 'gone.ts', 'elsewhere.ts']);
  });
});

describe("a prompt's name", () => {
  it('is suggested in trusted folders while it is typed', async () => {
    const prompts = ['.github/prompts/review.prompt.md', '.github/prompts/b/add-tests.prompt.md'];
    workspace.files = [...prompts, 'a/list.ts'].map(fileAt);
    const offered = async (query: string) =>
      (await new MentionSuggester(undefined).suggest(query)).map(({ text }) => text);
    expect((await offered('/')).sort()).toEqual(['/add-tests', '/review']);
    expect(await offered('/rev')).toEqual(['/review']);
    workspace.isTrusted = false;
    expect(await offered('/')).toEqual([]);
    workspace.isTrusted = true;
  });
});

describe('Summarise Folder', () => {
  it('asks for the folder if none is given', async () => {
    user.picks = { label: 'deep' };
    expect((await chosenFolder())?.toString()).toBe('file:///b/deep');
    expect(user.offered).toEqual(['shop', 'a', 'b', 'b/deep', 'c']);
  });

  it('says that no folder is open', async () => {
    workspace.workspaceFolders = undefined;
    workspace.files = [];
    expect(await chosenFolder()).toBeUndefined();
    expect(user.asked[0]?.message).toBe('Open a folder first.');
  });
});

describe('Open Settings', () => {
  const parts = { context: { extension: { id: 'hearth.hearth' } } } as unknown as Parts;

  it.each([
    ['this computer', undefined, 'workbench.action.openSettings'],
    ['a computer over SSH', 'ssh-remote', 'workbench.action.openRemoteSettings'],
  ])('shows the settings of %s', async (_, remote, command) => {
    env.remoteName = remote;
    await commandTable(parts, {} as LazyChat)['hearth.openSettings']?.();
    expect(user.commands[0]).toMatch(new RegExp(`^${command} `));
  });
});
