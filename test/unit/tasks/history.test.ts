import { describe, expect, it } from 'vitest';
import { limits } from '../../../engine/limits.ts';
import type { ChatMessage } from '../../../engine/prompt/conversation.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { fitHistory } from '../../../engine/tasks/chat.ts';

const system: ChatMessage = { role: 'system', content: 'sys' };
const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string): ChatMessage => ({ role: 'assistant', content });
/** A token a character, and one a message. */
const count = (messages: readonly ChatMessage[]): number =>
  messages.reduce((sum, { content }) => sum + content.length + 1, 0);

const fitted = (messages: readonly ChatMessage[], budgetTokens: number) =>
  fitHistory(messages, (kept) => ({ tokens: count(kept) }), { budgetTokens });

/** `turns` turns of 20 tokens each, and a last question. */
const conversation = (turns: number): ChatMessage[] => [
  system,
  ...Array.from({ length: turns }, () => [user('u'.repeat(9)), assistant('a'.repeat(9))]).flat(),
  user('last'),
];

describe('a conversation', () => {
  it('is unchanged when it fits, and measured once', async () => {
    const messages = conversation(3);
    const prompt = { tokens: count(messages) };
    expect(await fitted(messages, prompt.tokens)).toEqual({ messages, droppedMessages: 0, prompt });
  });

  it('loses its earliest turns, never the system message or the last question', async () => {
    const { messages, droppedMessages } = await fitted(conversation(10), 100);
    expect(messages[0]).toBe(system);
    expect(messages.at(-1)?.content).toBe('last');
    expect(messages[1]?.role).toBe('user');
    expect(count(messages)).toBeLessThanOrEqual(100);
    expect(droppedMessages).toBe(conversation(10).length - messages.length);
  });

  it('keeps the same beginning for several turns after it became too long', async () => {
    // Budget 100, steps of 25: each step drops two turns of 20, so two turns in three keep their beginning.
    const results = await Promise.all(Array.from({ length: 12 }, (_, i) => fitted(conversation(5 + i), 100)));
    const dropped = results.map(({ droppedMessages }) => droppedMessages);
    const changes = dropped.filter((value, i) => i > 0 && value !== dropped[i - 1]).length;
    expect(changes).toBeLessThan(11);
    expect(dropped).toEqual([...dropped].sort((a, b) => a - b));
  });

  it('keeps as much as fits when the last question leaves little room', async () => {
    const messages = [...conversation(10).slice(0, -1), user('x'.repeat(70))];
    const result = await fitted(messages, 100);
    expect(count(result.messages)).toBeLessThanOrEqual(100);
    expect(result.messages.at(-1)).toEqual(user('x'.repeat(70)));
  });

  it('fails with both numbers when the last question alone is too long', async () => {
    await expect(fitted([system, user('x'.repeat(200))], 100)).rejects.toThrow(
      /last message has 205 tokens.*100 tokens fit/,
    );
    await expect(fitted([...conversation(2), user('x'.repeat(200))], 100)).rejects.toThrow('context');
  });

  it('may begin with an assistant’s message', async () => {
    const messages = [assistant('a'.repeat(90)), user('b'), assistant('c'), user('d')];
    expect(await fitted(messages, 20)).toMatchObject({ messages: messages.slice(1), droppedMessages: 1 });
  });

  it('names the system message or the tools if they are too long', async () => {
    const long: ChatMessage = { role: 'system', content: 's'.repeat(200) };
    await expect(fitted([long, user('x')], 100)).rejects.toThrow(
      /^The system message and the last message have 203 tokens/,
    );
    const room = { budgetTokens: 100, fixedChars: 500 };
    const measure = (kept: readonly ChatMessage[]) => ({ tokens: count(kept) + 500 });
    await expect(fitHistory([user('x')], measure, room)).rejects.toThrow(/^The descriptions of the tools/);
  });

  it('is cut where an exhaustive search cuts it', async () => {
    const random = seededRandom(20);
    const upTo = (most: number): number => Math.floor(random() * most);
    for (let round = 0; round < 500; round++) {
      const turns = Array.from({ length: upTo(12) }, () => [
        user('u'.repeat(upTo(40))),
        assistant('a'.repeat(upTo(40))),
      ]);
      const messages = [...(upTo(2) ? [system] : []), ...turns.flat(), user('q'.repeat(upTo(60)))];
      const budget = 20 + upTo(200);
      const expected = exhaustive(messages, budget);
      if (expected === undefined)
        await expect(fitted(messages, budget)).rejects.toMatchObject({ code: 'context-overflow' });
      else expect((await fitted(messages, budget)).messages).toEqual(expected);
    }
  });

  it('that cannot fit by its characters is cut before tokens are counted, with the same beginning for later turns', async () => {
    const turn = [user('u'.repeat(2000)), assistant('a'.repeat(2000))];
    const long = (turns: number): ChatMessage[] => [
      system,
      ...Array.from({ length: turns }, () => turn).flat(),
      user('q'),
    ];
    const measured: number[] = [];
    const measure = (kept: readonly ChatMessage[]) => {
      measured.push(count(kept));
      return { tokens: count(kept) };
    };
    const beginnings = new Set<number>();
    for (let turns = 2000; turns < 2030; turns++) {
      const { droppedMessages, prompt } = await fitHistory(long(turns), measure, { budgetTokens: 40_000 });
      expect(prompt.tokens).toBeLessThanOrEqual(40_000);
      expect(prompt.tokens).toBeGreaterThan(25_000);
      beginnings.add(droppedMessages);
    }
    // Quarters of 40,000 tokens hold two turns of 4,002 each.
    expect(beginnings.size).toBeLessThanOrEqual(30 / 2 + 1);
    expect(Math.max(...measured)).toBeLessThanOrEqual(40_000 * limits.generation.charsPerToken);
  });

  it('whose last message has 15 million characters is refused without tokenising it', async () => {
    const never = (): never => {
      throw new Error('measured');
    };
    const messages = [...conversation(2), user('x'.repeat(15_000_000))];
    await expect(fitHistory(messages, never, { budgetTokens: 100_000 })).rejects.toThrow(/15000\d{3} characters/);
  });

  it('takes at most n log n work in the number of turns', async () => {
    const work = async (turns: number): Promise<number> => {
      let characters = 0;
      const measure = (kept: readonly ChatMessage[]) => {
        characters += count(kept);
        return { tokens: count(kept) };
      };
      await fitHistory(conversation(turns), measure, { budgetTokens: 100 });
      return characters;
    };
    const few = await work(100);
    expect(await work(1000)).toBeLessThan(few * 10 * Math.log2(10));
    expect(await work(10_000)).toBeLessThan(few * 100 * Math.log2(100));
  });
});

/** Every start in turn, as this was done before; each counts all that follows it. */
function exhaustive(messages: readonly ChatMessage[], budget: number): readonly ChatMessage[] | undefined {
  const total = count(messages);
  if (total <= budget) return messages;
  const firstTurn = messages.findIndex(({ role }) => role !== 'system');
  const step = Math.max(1, Math.floor(budget / 4));
  const goal = total - Math.ceil((total - budget) / step) * step;
  const starts = messages.flatMap(({ role }, i) => (role === 'user' && i > firstTurn ? [i] : []));
  const kept = starts.map((start) => [...messages.slice(0, firstTurn), ...messages.slice(start)]);
  return kept.find((some) => count(some) <= goal) ?? kept.find((some) => count(some) <= budget);
}
