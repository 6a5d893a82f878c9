/** Summarises a file that is far longer than the model's context. */
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { answerText, untilEnded } from './turns.ts';

const summaryMs = 900_000;

const adjectives = 'red big old new cold warm soft dry sweet dark';
const nouns =
  'apple river house stone bread garden table window road forest cloud bridge paper silver winter summer letter market';

/** Settings hold the context at 2,048 tokens, so that a file of 720 short lines is several times as long. */
const contextTokens = 2_048;

/** A program that no earlier run has seen. */
function longProgram(): string {
  const run = Date.now().toString(36);
  const names = adjectives.split(' ').flatMap((adjective) => nouns.split(' ').map((noun) => `${adjective}_${noun}`));
  return names.map((name) => `function ${name}() {\n  return '${name.replace('_', ' ')} ${run}';\n}\n`).join('\n');
}

const options = { files: { 'things.js': longProgram() }, machineSettings: { 'hearth.contextTokens': contextTokens } };
describeInEditor('summarise this file', options, (editor) => {
  test('shows progress and can be cancelled', async () => {
    await editor().openFile('things.js');
    await editor().command('Hearth: Summarise This File');
    const chat = await editor().chat();
    const turn = chat.locator('.turn[data-kind=summary]').first();
    await turn.locator('.progress-line .meter').waitFor();
    await editor().screenshot('summary-progress');
    await chat.locator('#stop').click();
    await untilEnded(turn, 'stopped', 10_000);
  });

  test('summarises all 720 lines', { timeout: summaryMs + 60_000 }, async () => {
    await editor().openFile('things.js');
    await editor().command('Hearth: Summarise This File');
    const chat = await editor().chat();
    const turn = chat.locator('.turn[data-kind=summary]').nth(1);
    await turn.waitFor();
    await untilEnded(turn, 'done', summaryMs);
    await editor().screenshot('summary');
    // A long file's summary ends with an outline of all its parts.
    expect(await answerText(turn)).toMatch(/Lines 1[–-]\d+[\s\S]*Lines \d+[–-]720/s);
  });
});
