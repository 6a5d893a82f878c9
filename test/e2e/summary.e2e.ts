/** "Summarise this file" on a file that is far longer than the model's context. */
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { answerLength, untilEnded } from './turns.ts';

const lineCount = 3_000;
const summaryMs = 900_000;

/** A program of 3,000 short lines; twice what the model's context of 8,192 tokens holds. */
function longProgram(): string {
  const square = (number: number) => `function square${number}() {\n  return ${number} * ${number};\n}\n`;
  return Array.from({ length: lineCount / 4 }, (_, number) => square(number)).join('\n');
}

describeInEditor('summarise this file', { files: { 'squares.ts': longProgram() } }, (editor) => {
  test('says how far it is and can be cancelled', async () => {
    await editor().openFile('squares.ts');
    await editor().command('Hearth: Summarise This File');
    const chat = await editor().chat();
    const turn = chat.locator('.turn[data-kind=summary]').first();
    await turn.locator('.progress-line .meter').waitFor();
    await editor().screenshot('summary-progress');
    await chat.locator('#stop').click();
    await untilEnded(turn, 'stopped', 10_000);
  });

  test('summarises all 3,000 lines', { timeout: summaryMs + 60_000 }, async () => {
    await editor().openFile('squares.ts');
    await editor().command('Hearth: Summarise This File');
    const chat = await editor().chat();
    const turn = chat.locator('.turn[data-kind=summary]').nth(1);
    await turn.waitFor();
    await untilEnded(turn, 'done', summaryMs);
    await editor().screenshot('summary');
    expect(await answerLength(turn)).toBeGreaterThan(40);
  });
});
