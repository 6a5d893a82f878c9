/** The pictures of the README. Run by `npm run screenshots`, not among the tests. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'vitest';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { describeInEditor, type Editor } from './editor.ts';

const images = 'docs/images';
const station = `"""A weather station that keeps its readings in memory."""
from dataclasses import dataclass, field
from statistics import mean


@dataclass
class Reading:
    hour: int
    celsius: float


@dataclass
class Station:
    name: str
    readings: list[Reading] = field(default_factory=list)

    def add(self, hour: int, celsius: float) -> None:
        self.readings.append(Reading(hour, celsius))

    def average(self) -> float:
        return mean(reading.celsius for reading in self.readings)

    def warmest(self) -> Reading:
        return max(self.readings, key=lambda reading: reading.celsius)

`;

async function inBothThemes(editor: Editor, name: string): Promise<void> {
  mkdirSync(join(projectRoot, images), { recursive: true });
  for (const colorScheme of ['light', 'dark'] as const) {
    await editor.page.emulateMedia({ colorScheme });
    await editor.page.locator(`.monaco-workbench.${colorScheme === 'dark' ? 'vs-dark' : 'vs'}`).waitFor();
    // Webviews repaint a moment later.
    await editor.page.waitForTimeout(1_000);
    await editor.screenshot(`${name}-${colorScheme}`, images);
  }
}

/** The side bar starts with room for a file list, not for a conversation. */
async function widenSideBar({ page }: Editor): Promise<void> {
  const edge = await page.locator('.part.sidebar').boundingBox();
  if (edge === null) return;
  const x = edge.x + edge.width;
  await page.mouse.move(x, 400);
  await page.mouse.down();
  await page.mouse.move(x + 130, 400, { steps: 5 });
  await page.mouse.up();
  await page.mouse.move(x + 400, 400);
}

const settings = {
  'window.autoDetectColorScheme': true,
  'files.autoSave': 'afterDelay',
  'editor.minimap.enabled': false,
  'editor.fontSize': 14,
  'breadcrumbs.enabled': false,
  'window.commandCenter': false,
};
const files = { 'station.py': station, 'README.md': '# Weather station\n' };

describeInEditor('pictures', { files, settings }, (editor) => {
  test('an answer in the chat', async () => {
    await editor().openFile('station.py');
    const chat = await editor().openChat();
    await widenSideBar(editor());
    await chat.locator('#question').fill('Write a Python function that returns the coldest reading of a list.');
    await chat.locator('#question').press('Enter');
    const turn = chat.locator('.turn').first();
    await turn.and(chat.locator('[data-state=done]')).waitFor({ timeout: 100_000 });
    await inBothThemes(editor(), 'chat');
  });

  test('a completion', async () => {
    const { page } = editor();
    await editor().openFile('station.py');
    await page.keyboard.press('Control+End');
    // The editor indents by itself.
    await page.keyboard.type('    def coldest(self) -> Reading:\nreturn ', { delay: 20 });
    await page.locator('.ghost-text-decoration').first().waitFor();
    await inBothThemes(editor(), 'completion');
    await page.keyboard.press('Tab');
  });

  test('a summary of the file', async () => {
    await editor().command('Hearth: New Chat');
    await editor().openFile('station.py');
    await editor().command('Hearth: Summarise This File');
    const chat = await editor().chat();
    await chat.locator('.turn[data-state=done]').first().waitFor({ timeout: 100_000 });
    await inBothThemes(editor(), 'summary');
  });

  test('the models', async () => {
    await editor().command('Hearth: Models');
    await editor().page.locator('.quick-input-list .monaco-list-row', { hasText: 'SmolLM2' }).first().waitFor();
    await inBothThemes(editor(), 'models');
    await editor().page.keyboard.press('Escape');
  });
});
