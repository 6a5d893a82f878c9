/** Chooses a model and asks in VS Code's own chat. */
import type { Locator, Page } from 'playwright-core';
import { expect, vi } from 'vitest';

/** Finds the model in VS Code's model picker, which is not updated while it is open. */
export async function pickModel(page: Page, name: string): Promise<void> {
  const picker = page.locator('.action-widget');
  await vi.waitFor(
    async () => {
      await page.keyboard.press('Escape');
      await page.locator('.interactive-session .model-picker-split').click();
      await picker.locator('input').fill(name);
      await picker.locator('.monaco-list-row.focused', { hasText: name }).waitFor({ timeout: 10_000 });
    },
    { timeout: 60_000, interval: 500 },
  );
}

/** @returns the pending answer. */
export async function askOwnChat(page: Page, question: string): Promise<Locator> {
  const chat = page.locator('.interactive-session');
  const before = await chat.locator('.interactive-response').count();
  await chat.locator('.chat-input-container .monaco-editor').first().click();
  // VS Code inserts the last participant again.
  await page.keyboard.press('Control+A');
  await page.keyboard.type(question);
  // Closes the suggestions for `@`.
  await page.keyboard.press('Escape');
  await page.keyboard.press('Enter');
  const asked = chat.locator('.interactive-request .value').nth(before);
  await expect.poll(async () => (await asked.innerText()).trim()).toBe(question);
  return chat.locator('.interactive-response').nth(before);
}
