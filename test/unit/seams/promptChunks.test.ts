/**
 * Seam: from a chat with a long prompt and a completion at a key, through the engine's own scheduler, to the tokens of each forward pass.
 *
 * Fault it would have found: prompts went through every device in chunks of 128 tokens, a figure for two CPU cores, while the GPU benchmark fed 512.
 *
 * The clock is virtual: a pass takes as long as the test says, so that each size follows from the time that is aimed at.
 */
import { describe, expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import { tokensPerRun } from '../../../engine/backend/webgpu/decoder/scratch.ts';
import { PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { promptFormatOf } from '../../../engine/prompt/formats/promptFormat.ts';
import { Grammars } from '../../../engine/sampling/grammar.ts';
import { engineScheduler } from '../../../engine/scheduler/scheduler.ts';
import { chat } from '../../../engine/tasks/chat.ts';
import { complete } from '../../../engine/tasks/complete.ts';
import { models } from '../../../scripts/kernels/models.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { FakeDecoder } from '../scheduler/fakeDecoder.ts';

const chatTemplate =
  '{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}';
const tokenizer = new ByteTokenizer({ framing: ['<user>', '<bot>', '<end>'], end: ['<end>'], chatTemplate });
const questionByte = 'x'.charCodeAt(0);
const answerByte = 'a'.charCodeAt(0);
const end = tokenizer.require('<end>');
const passMs = (tokens: number, msPerToken: number, baseMs = 5): number => baseMs + msPerToken * tokens;

const tokensOf = (name: string, totalGiB = 24): number => {
  const model = models.find((each) => each.name.startsWith(name));
  if (!model) throw new Error(`no model ${name}`);
  const memory = { vendor: '', name: '', totalBytes: totalGiB * 2 ** 30, freeBytes: 0, unified: false };
  return tokensPerRun(model.spec, { memory });
};
const onGpu = tokensOf('Qwen3-8B');

interface Device {
  readonly fullTokens: number;
  readonly msPerToken: number;
  /** Of the question's passes: after that one a key is pressed. */
  readonly keyAfterPass?: number;
  readonly baseMs?: number;
  /** It answered another question before, sampling itself; then a key is pressed. */
  readonly sampled?: boolean;
}

interface Pass {
  readonly tokens: number;
  readonly startMs: number;
}

/** The passes of a question of 20,000 bytes, each a token, and when the key was pressed. */
async function passes({ fullTokens, msPerToken, keyAfterPass, baseMs = 5, sampled = false }: Device) {
  const [seen, keys]: [Pass[], Promise<unknown>[]] = [[], []];
  let clock = 0;
  let pressedMs = Number.NaN;
  const decoder = new FakeDecoder({
    vocabularySize: tokenizer.vocabularySize,
    contextTokens: 32_768,
    maxTokensPerRun: fullTokens,
    follow: (tokens) =>
      tokens.length - 1 - tokens.findLastIndex((token) => token !== answerByte) < 50 ? answerByte : end,
    draws: sampled,
    beforeRun: (batch, steps) => {
      const [slice] = batch;
      if (slice?.tokens.includes(questionByte)) {
        seen.push({ tokens: slice.tokens.length, startMs: clock });
        if (seen.length === keyAfterPass) press();
      }
      clock += steps * passMs(slice?.tokens.length ?? 0, msPerToken, baseMs);
    },
  });
  const scheduler = engineScheduler(
    { decoder, cache: new PrefixCache({ decoder, maxIdle: () => 2 }) },
    { now: () => clock },
  );
  const press = (): void => {
    pressedMs = clock;
    const source = { prefix: 'let a = ', suffix: '', snippets: [], maxTokens: 2, whole: false } as const;
    const shown = { multiline: 'never', candidates: 1, confidence: 'eager' } as const;
    keys.push(
      complete(scheduler, tokenizer, 32_768, {
        ...source,
        ...shown,
        stopStrings: [],
        sampling: greedy,
        random: () => 0,
      }),
    );
  };
  const format = promptFormatOf(tokenizer);
  const model = { scheduler, format, tokenizer, grammars: new Grammars(tokenizer), contextTokens: 32_768 };
  const ask = (content: string, maxTokens: number) =>
    chat(
      { ...model, now: () => new Date(0) },
      {
        requestClass: 'chat',
        messages: [{ role: 'user', content }],
        thinking: 'off',
        maxTokens,
        stopStrings: [],
        sampling: greedy,
        random: () => 0,
        onPiece: () => {},
      },
    );
  if (sampled) {
    await ask('y'.repeat(2000), 100);
    expect(Math.max(...decoder.draws)).toBe(16);
    press();
    await Promise.all(keys);
    clock += 100;
  }
  await ask('x'.repeat(20_000), 4);
  await Promise.all(keys);
  return { seen, pressedMs };
}

describe('a question’s chunks', () => {
  it.each([
    ['Qwen3-8B', 24, 512],
    ['gpt-oss-20b', 24, 1024],
    ['gpt-oss-20b', 16, 512],
    ['Qwen3-30B-A3B', 24, 1024],
    // Its visits of 1,024 tokens would need more than 128 MiB.
    ['DeepSeek-V3', 80, 512],
  ])('fill a GPU once its speed is known: %s with %i GiB', async (name, totalGiB, fullTokens) => {
    expect(tokensOf(name, totalGiB)).toBe(fullTokens);
    const { seen } = await passes({ fullTokens, msPerToken: 0.5 });
    const sizes = seen.map(({ tokens }) => tokens);
    expect(sizes[0]).toBe(128);
    expect(new Set(sizes.slice(1, -1))).toEqual(new Set([fullTokens]));
  });

  it('take about 100 ms while somebody types, and fill the device again when nobody does', async () => {
    const { seen, pressedMs } = await passes({ fullTokens: onGpu, msPerToken: 0.5, keyAfterPass: 4 });
    const typing = seen.filter(({ startMs }) => startMs > pressedMs + 60 && startMs < pressedMs + 2000);
    expect(typing.length).toBeGreaterThan(10);
    for (const { tokens } of typing) {
      expect(passMs(tokens, 0.5)).toBeLessThan(110);
      expect(passMs(tokens, 0.5)).toBeGreaterThan(90);
    }
    const later = seen.filter(({ startMs }) => startMs > pressedMs + 2000).slice(0, -1);
    expect(later.length).toBeGreaterThan(5);
    for (const { tokens } of later) expect(tokens).toBe(onGpu);
  });

  it('ignore the time of tokens that the device sampled', async () => {
    // 16 sampled tokens take 1.1 ms each, and a pass of 512 takes 52 ms.
    const device = { fullTokens: onGpu, msPerToken: 0.1, baseMs: 1, sampled: true };
    const { seen, pressedMs } = await passes(device);
    expect(seen[0]?.startMs).toBeLessThan(pressedMs + 2000);
    expect(seen[0]?.tokens).toBe(onGpu);
  });

  it('of a slow device delay a cancellation by at most a second or 128 tokens', async () => {
    // (1,000 − 5) / 4 tokens take a second.
    const seconds = (await passes({ fullTokens: onGpu, msPerToken: 4 })).seen.slice(2, -1);
    for (const { tokens } of seconds) expect(Math.abs(tokens - 248)).toBeLessThanOrEqual(2);
    const slower = (await passes({ fullTokens: onGpu, msPerToken: 40 })).seen.slice(0, -1);
    for (const { tokens } of slower) expect(tokens).toBe(128);
  });

  it('are never so short that reading the weights dominates, however slow the device or however much is typed', async () => {
    const { seen, pressedMs } = await passes({ fullTokens: onGpu, msPerToken: 40, keyAfterPass: 1 });
    const typing = seen.filter(({ startMs }) => startMs > pressedMs + 60 && startMs < pressedMs + 2000);
    // 128 tokens that were under way took longer than 2 s: nothing says that anybody still types.
    expect(typing).toEqual([]);
    const fast = await passes({ fullTokens: onGpu, msPerToken: 8, keyAfterPass: 1 });
    const pressed = fast.seen.filter(({ startMs }) => startMs > fast.pressedMs + 60 && startMs < fast.pressedMs + 2000);
    for (const { tokens } of pressed) expect(tokens).toBe(16);
    expect(pressed.length).toBeGreaterThan(3);
  });
});
