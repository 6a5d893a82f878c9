/** The pictures of the README. Run by `npm run screenshots`, not among the tests. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'vitest';
import { projectRoot } from '../../scripts/shared/paths.ts';
import { describeInEditor, type Editor } from './editor.ts';

const images = 'docs/images';
const themes = { light: 'Light 2026', dark: 'Dark 2026' } as const;

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
  for (const [kind, theme] of Object.entries(themes)) {
    editor.change({ 'workbench.colorTheme': theme });
    await editor.page.locator(`.monaco-workbench.${kind === 'dark' ? 'vs-dark' : 'vs'}`).waitFor();
    // Webviews repaint a moment later.
    await editor.page.waitForTimeout(1_000);
    await editor.screenshot(`${name}-${kind}`, images);
  }
}

async function closePanels(editor: Editor): Promise<void> {
  await editor.command('Notifications: Clear All Notifications');
}

const settings = {
  'workbench.colorTheme': themes.light,
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
    await chat.locator('#question').fill('Write a Python function that returns the coldest reading of a list.');
    await chat.locator('#question').press('Enter');
    const turn = chat.locator('.turn').first();
    await turn.and(chat.locator('[data-state=done]')).waitFor({ timeout: 100_000 });
    await closePanels(editor());
    await inBothThemes(editor(), 'chat');
  });

  test('a completion', async () => {
    const { page } = editor();
    await editor().openFile('station.py');
    await page.keyboard.press('Control+End');
    await page.keyboard.type('    def coldest(self) -> Reading:\n', { delay: 20 });
    await page.keyboard.type('        return ', { delay: 20 });
    await page.locator('.ghost-text-decoration').first().waitFor();
    await inBothThemes(editor(), 'completion');
    await page.keyboard.press('Escape');
    await page.keyboard.press('Control+Z');
  });

  test('a summary of the file', async () => {
    await editor().command('Hearth: New Chat');
    await editor().openFile('station.py');
    await editor().command('Hearth: Summarise This File');
    const chat = await editor().openChat();
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
