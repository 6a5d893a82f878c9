import { describe, expect, it } from 'vitest';
import type { ChatMessage } from '../../../engine/prompt/conversation.ts';
import { fitHistory } from '../../../engine/tasks/history.ts';

const system: ChatMessage = { role: 'system', content: 'sys' };
const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string): ChatMessage => ({ role: 'assistant', content });
/** A token a character, and one a message. */
const count = (messages: readonly ChatMessage[]): number =>
  messages.reduce((sum, { content }) => sum + content.length + 1, 0);

/** `turns` turns of 20 tokens each, and a last question. */
const conversation = (turns: number): ChatMessage[] => [
  system,
  ...Array.from({ length: turns }, () => [user('u'.repeat(9)), assistant('a'.repeat(9))]).flat(),
  user('last'),
];

describe('a conversation', () => {
  it('is left whole when it fits', () => {
    const messages = conversation(3);
    expect(fitHistory(messages, count, count(messages))).toEqual({ messages, droppedMessages: 0 });
  });

  it('loses its earliest turns, never the system message or the last question', () => {
    const { messages, droppedMessages } = fitHistory(conversation(10), count, 100);
    expect(messages[0]).toBe(system);
    expect(messages.at(-1)?.content).toBe('last');
    expect(messages[1]?.role).toBe('user');
    expect(count(messages)).toBeLessThanOrEqual(100);
    expect(droppedMessages).toBe(conversation(10).length - messages.length);
  });

  it('begins alike for several turns after it became too long', () => {
    // Budget 100, steps of 25: each step drops two turns of 20, so two turns in three keep their beginning.
    const dropped = Array.from({ length: 12 }, (_, i) => fitHistory(conversation(5 + i), count, 100).droppedMessages);
    const changes = dropped.filter((value, i) => i > 0 && value !== dropped[i - 1]).length;
    expect(changes).toBeLessThan(11);
    expect(dropped).toEqual([...dropped].sort((a, b) => a - b));
  });

  it('keeps as much as fits when the last question leaves little room', () => {
    const messages = [...conversation(10).slice(0, -1), user('x'.repeat(70))];
    const fitted = fitHistory(messages, count, 100);
    expect(count(fitted.messages)).toBeLessThanOrEqual(100);
    expect(fitted.messages.at(-1)).toEqual(user('x'.repeat(70)));
  });

  it('fails with both numbers when the last question alone is too long', () => {
    expect(() => fitHistory([system, user('x'.repeat(200))], count, 100)).toThrow(/205 tokens.*100 fit/);
    expect(() => fitHistory([...conversation(2), user('x'.repeat(200))], count, 100)).toThrow('context');
  });

  it('may begin with an assistant’s message', () => {
    const messages = [assistant('a'.repeat(90)), user('b'), assistant('c'), user('d')];
    expect(fitHistory(messages, count, 20)).toEqual({ messages: messages.slice(1), droppedMessages: 1 });
  });
});
