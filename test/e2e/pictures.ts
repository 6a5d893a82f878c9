/** Helpers of the screenshot scenes. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../scripts/shared/paths.ts';
import type { Editor } from './editor.ts';

/** Pictures of the README. All others are for review. */
const readme = 'docs/images';
const results = 'test/e2e/results/screens';
export const station = `"""A weather station that keeps its readings in memory."""
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

export async function inBothThemes(editor: Editor, name: string, inReadme = false): Promise<void> {
  const images = inReadme ? readme : results;
  mkdirSync(join(projectRoot, images), { recursive: true });
  for (const colorScheme of ['light', 'dark'] as const) {
    await editor.page.emulateMedia({ colorScheme });
    await editor.page.locator(`.monaco-workbench.${colorScheme === 'dark' ? 'vs-dark' : 'vs'}`).waitFor();
    // Webviews repaint with a delay.
    await editor.page.waitForTimeout(1_000);
    await editor.screenshot(`${name}-${colorScheme}`, images);
  }
}

/** The side bar starts too narrow for a conversation. */
export async function widenSideBar({ page }: Editor, pixels = 130): Promise<void> {
  const edge = await page.locator('.part.sidebar').boundingBox();
  if (edge === null) return;
  const x = edge.x + edge.width;
  await page.mouse.move(x, 400);
  await page.mouse.down();
  await page.mouse.move(x + pixels, 400, { steps: 5 });
  await page.mouse.up();
  await page.mouse.move(x + Math.abs(pixels) + 270, 400);
}

export const settings = {
  'window.autoDetectColorScheme': true,
  'files.autoSave': 'afterDelay',
  'editor.minimap.enabled': false,
  'editor.fontSize': 14,
  'breadcrumbs.enabled': false,
  'window.commandCenter': false,
  'workbench.tips.enabled': false,
  'chat.commandCenter.enabled': false,
};
export const files = { 'station.py': station, 'README.md': '# Weather station\n' };
