/** A remote server, set up as a user does it. */
import { afterAll, expect, test } from 'vitest';
import { ScriptedEngine, startScripted, token } from '../unit/http/support.ts';
import { describeInEditor, type Editor } from './editor.ts';
import { answered, answerText } from './turns.ts';

const scripted = new ScriptedEngine();
const server = await startScripted(scripted);
const { host } = new URL(server.address);
afterAll(() => server.close());

async function fillBox(editor: Editor, title: string, text: string): Promise<void> {
  const box = editor.page.locator('.quick-input-widget', { hasText: title });
  await box.locator('input.input').first().fill(text);
  await editor.page.keyboard.press('Enter');
}

describeInEditor('a remote server', { files: { 'a.ts': 'const a = 1;\n' } }, (editor) => {
  test('connects by address and token, answers, and is named in the status bar', async () => {
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

const completing = {
  files: { 'a.ts': 'const a = 1;\n\nconsole.log(b);\n' },
  machineSettings: { 'hearth.completion.model': server.address },
};

describeInEditor('a server that only completes', completing, (editor) => {
  test('completes code, while questions stay on this computer', async () => {
    const { page } = editor();
    const asked = scripted.asked.length;
    await editor().openFile('a.ts');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.type(' ');
    await editor().statusItem('SmolLM2').waitFor();
    await editor().command("Hearth: Set the Server's Token");
    await fillBox(editor(), `Token for ${host}`, token);
    // Until the server answers, the chat model completes.
    const connected = `.statusbar-item a[aria-label*="scripted on ${host} completes code"]`;
    await page.locator(connected).waitFor({ state: 'attached' });
    await page.keyboard.type('const b = ');
    const ghost = page.locator('.ghost-text-decoration, .ghost-text-decoration-preview').first();
    // The part of "the middle" that fits there.
    await expect.poll(() => ghost.textContent()).toBe('the');
    const chat = await editor().openChat();
    await chat
      .locator('#empty', {
        hasText: `your questions stay here. Completions send the code around the cursor to ${host}`,
      })
      .waitFor();
    await editor().screenshot('completing-server');
    expect(scripted.completed.at(-1)?.prefix).toContain('const b = ');
    expect(scripted.asked).toHaveLength(asked);
  });
});
