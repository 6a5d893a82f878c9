/** The chat's agent with a scripted model: it reads without asking, runs commands after a click, and proposes changes. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Locator } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeInEditor, type Editor } from './editor.ts';
import { type ScriptedCall, writeScriptedModel } from './scriptedModel.ts';
import { answered, answerText, ask, untilEnded } from './turns.ts';

const folder = mkdtempSync(join(tmpdir(), 'hearth-agent-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const files = { 'notes.txt': 'The word is [灶].\n' };
const first: ScriptedCall = { name: 'read_file', arguments: { path: 'notes.txt' } };
const command = 'echo [薪] >> ran.txt && echo it ran';

/** The model calls `second` once it has read the file; its arguments end the script. */
const optionsOf = (name: string, second: ScriptedCall) => ({
  model: join(folder, name),
  script: {
    thought: ' Hm.',
    answer: 'No tools.',
    calls: { first, second, seen: '灶' },
    done: '薪',
    report: 'All is done.',
  },
  options: {
    files,
    settings: {
      'window.autoDetectColorScheme': true,
      'hearth.chat.includeActiveFile': false,
      'hearth.chat.searchWorkspace': false,
    },
    machineSettings: {
      'hearth.chat.model': join(folder, name),
      'hearth.contextTokens': 65_536,
      'hearth.completion.enabled': false,
    },
  },
});

async function switchOn(editor: Editor): Promise<void> {
  const chat = await editor.openChat();
  await chat.locator('#agent:not(.unavailable)').click();
  await chat.locator('#agent[aria-pressed=true]').waitFor();
}

const step = (turn: Locator, title: string, state: string) =>
  turn.locator(`.step-list li[data-state=${state}]`, { hasText: title });

const running = optionsOf('running', { name: 'run_command', arguments: { command } });

describeInEditor('an agent that wants to run a command', running.options, (editor) => {
  beforeAll(() => writeScriptedModel(running.model, running.script));
  const lines = () =>
    existsSync(join(editor().workspace, 'ran.txt')) ? editor().read('ran.txt').trim().split('\n').length : 0;
  const askAgain = async () => {
    const turn = await ask(await editor().chat(), 'What is the word?');
    await turn.locator('.request').waitFor();
    return turn;
  };

  test('is off until the user switches it on for the chat', async () => {
    const turn = await answered(await editor().openChat(), 'What is the word?');
    expect(await answerText(turn)).toContain('No tools.');
    expect(await turn.locator('.steps').isVisible()).toBe(false);
    await switchOn(editor());
  });

  test('reads without asking, shows the whole command, and runs nothing before the click', async () => {
    const turn = await askAgain();
    await step(turn, 'Read notes.txt', 'done').waitFor();
    expect(await turn.locator('.request pre').innerText()).toBe(command);
    await editor().screenshot('agent-asks');
    await editor().page.waitForTimeout(1_000);
    expect([lines(), await editor().page.locator('.terminal-wrapper').count()]).toEqual([0, 0]);
    await turn.locator('[data-permit=once]').click();
    await untilEnded(turn, 'done');
    expect(await answerText(turn)).toContain('All is done.');
    expect(lines()).toBe(1);
    const ran = step(turn, 'Run a command', 'done');
    expect(await turn.locator('.steps').first().getAttribute('open')).toBeNull();
    await turn.locator('.steps > summary').click();
    await ran.locator('summary').click();
    expect(await ran.locator('pre').last().innerText()).toMatch(/it ran[\s\S]*Exit code 0/);
    await editor().screenshot('agent-steps');
  });

  test('asks again after a command was allowed once, and can be stopped meanwhile', async () => {
    const turn = await askAgain();
    await (await editor().chat()).locator('#stop').click();
    await untilEnded(turn, 'stopped');
    expect(await turn.locator('.request').count()).toBe(0);
    expect(lines()).toBe(1);
  });

  test('does not ask again in a chat that allows the command', async () => {
    const turn = await askAgain();
    await turn.locator('[data-permit=chat]').click();
    await untilEnded(turn, 'done');
    await untilEnded(await ask(await editor().chat(), 'And again?'), 'done');
    expect(lines()).toBe(3);
  });

  test('is off in a new chat, where nothing is allowed; after a refusal it runs nothing and does not ask again', async () => {
    const chat = await editor().newChat();
    await chat.locator('#agent[aria-pressed=false]').waitFor();
    await switchOn(editor());
    const turn = await askAgain();
    await editor().page.emulateMedia({ colorScheme: 'light' });
    await chat.locator('body.vscode-light').waitFor();
    await editor().screenshot('agent-asks-light');
    await turn.locator('[data-permit=never]').click();
    await untilEnded(turn, 'done');
    const again = await answered(chat, 'And again?');
    expect(await step(again, 'Run a command', 'refused').count()).toBe(1);
    expect(lines()).toBe(3);
  });
});

const editing = optionsOf('editing', {
  name: 'edit_file',
  arguments: { path: 'notes.txt', oldText: '灶', newText: '薪' },
});

describeInEditor('an agent that wants to change a file', editing.options, (editor) => {
  beforeAll(() => writeScriptedModel(editing.model, editing.script));

  test('proposes it, and the user accepts and restores', async () => {
    await switchOn(editor());
    const turn = await answered(await editor().chat(), 'Change the word.');
    await step(turn, 'Proposed a change to notes.txt', 'done').waitFor({ state: 'attached' });
    const row = turn.locator('.changes li[data-path="notes.txt"]');
    expect(await row.getAttribute('data-state')).toBe('proposed');
    expect(editor().read('notes.txt')).toBe(files['notes.txt']);
    await turn.locator('.card-actions [data-act=accept]').click();
    await expect.poll(() => editor().read('notes.txt')).toBe('The word is [薪].\n');
    await row.and(turn.locator('[data-state=accepted]')).waitFor();
    await editor().screenshot('agent-changes');
    await turn.locator('[data-act=restore]').click();
    await expect.poll(() => editor().read('notes.txt')).toBe(files['notes.txt']);
  });
});
