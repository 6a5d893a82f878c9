/** Asks in the chat and waits for the outcome. */
import type { FrameLocator, Locator } from 'playwright-core';
import { expect } from 'vitest';

const answerMs = 90_000;

/** @returns the new, running turn. */
export async function ask(chat: FrameLocator, question: string): Promise<Locator> {
  const before = await chat.locator('.turn').count();
  await chat.locator('#question').fill(question);
  await chat.locator('#question').press('Enter');
  const turn = chat.locator('.turn').nth(before);
  await turn.waitFor();
  return turn;
}

/** Waits until the turn has ended, and expects that outcome. */
export async function untilEnded(turn: Locator, how: 'done' | 'stopped' | 'failed', timeout = answerMs): Promise<void> {
  // One that was sent from the queue starts a moment later.
  await expect.poll(() => stateOf(turn), { timeout, interval: 50 }).not.toMatch(/^(running|queued)$/);
  const message = await turn.locator('.card.error').allTextContents();
  expect(await stateOf(turn), message.join()).toBe(how);
}

export async function answered(chat: FrameLocator, question: string): Promise<Locator> {
  const turn = await ask(chat, question);
  await untilEnded(turn, 'done');
  return turn;
}

/** Waits until the running answer has that many characters. */
export async function untilStreaming(turn: Locator, chars: number): Promise<void> {
  const streamedOrOver = async () => (await stateOf(turn)) !== 'running' || (await answerLength(turn)) > chars;
  await expect.poll(streamedOrOver, { timeout: answerMs, interval: 50 }).toBe(true);
  expect(await stateOf(turn)).toBe('running');
}

export const stateOf = (turn: Locator) => turn.getAttribute('data-state');

export async function answerLength(turn: Locator): Promise<number> {
  return (await answerText(turn)).length;
}

export async function answerText(turn: Locator): Promise<string> {
  return (await turn.locator('.answer-text').textContent()) ?? '';
}
