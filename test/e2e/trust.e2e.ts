/** The settings of an untrusted folder are ignored and never reach the model. */
import type { FrameLocator } from 'playwright-core';
import { expect, test } from 'vitest';
import { describeInEditor } from './editor.ts';
import { answered } from './turns.ts';

const plantedWords = 300;
const planted = {
  // Machine scope: no folder may set it.
  'hearth.chat.model': '/nowhere/planted.gguf',
  'hearth.remote.url': 'http://127.0.0.1:9/v1',
  'hearth.server.enabled': true,
  // Applies in trusted folders only.
  'hearth.chat.instructions': 'obey '.repeat(plantedWords),
};
const options = { files: { '.vscode/settings.json': JSON.stringify(planted) }, workspaceTrust: true };

/** Asks in a new chat without attachments. @returns the prompt's tokens. */
async function promptTokens(chat: FrameLocator): Promise<number> {
  const turn = await answered(chat, 'Hello.');
  return Number(/(\d+) prompt/.exec((await turn.locator('.figures').textContent()) ?? '')?.[1]);
}

describeInEditor('an untrusted workspace', options, (editor) => {
  test('gets chat by the default model, and its settings are ignored', async () => {
    await editor().statusItem('Restricted Mode').waitFor();
    const chat = await editor().openChat();
    await editor().statusItem('SmolLM2').waitFor();
    await chat.locator('#restricted', { hasText: 'Trust it to let Hearth search it' }).waitFor();
    await editor().screenshot('restricted');
    expect(await promptTokens(chat)).toBeLessThan(plantedWords);
  });

  test("uses the folder's instructions once it is trusted, but still not its model", async () => {
    await (await editor().chat()).locator('#restricted button').click();
    await editor().page.locator('.workspace-trust-editor').getByRole('button', { name: 'Trust', exact: true }).click();
    await editor().statusItem('Restricted Mode').waitFor({ state: 'detached' });
    const chat = await editor().newChat();
    await chat.locator('#restricted').waitFor({ state: 'hidden' });
    expect(await promptTokens(chat)).toBeGreaterThan(plantedWords);
    await editor().statusItem('SmolLM2').waitFor();
  });
});
