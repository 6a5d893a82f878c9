/** A remote server, set up as a user does it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { HttpServer } from '../../engine/http/server.ts';
import { ScriptedEngine, startScripted, token } from '../unit/http/support.ts';
import { describeInEditor, type Editor } from './editor.ts';
import { answered, answerText } from './turns.ts';

const scripted = new ScriptedEngine();
let server: HttpServer;

async function fillBox(editor: Editor, title: string, text: string): Promise<void> {
  const box = editor.page.locator('.quick-input-widget', { hasText: title });
  await box.locator('input.input').first().fill(text);
  await editor.page.keyboard.press('Enter');
}

describeInEditor('a remote server', { files: { 'a.ts': 'const a = 1;\n' } }, (editor) => {
  beforeAll(async () => {
    server = await startScripted(scripted);
  });
  afterAll(() => server.close());

  test('connects by address and token, answers, and is named in the status bar', async () => {
    const { host } = new URL(server.address);
    await editor().command('Hearth: Connect to a Server');
    await fillBox(editor(), 'Address of an OpenAI-compatible server', server.address);
    await fillBox(editor(), `Token for ${host}`, token);
    await editor().statusItem(`scripted @ ${host}`).waitFor();
    const chat = await editor().openChat();
    await chat.locator('#empty', { hasText: `${host} answers.` }).waitFor();
    const turn = await answered(chat, 'Why?');
    await editor().screenshot('remote');
    expect(await answerText(turn)).toContain('One two.');
    expect(scripted.asked).toHaveLength(1);
  });

  test('is disconnected again', async () => {
    await editor().command('Hearth: Use Models on This Computer Again');
    await editor().statusItem('SmolLM2').waitFor();
    const chat = await editor().chat();
    await chat.locator('#question').waitFor();
    expect(scripted.asked).toHaveLength(1);
  });
});
