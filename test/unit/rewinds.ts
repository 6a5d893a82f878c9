/** Every backend's contract for sequences with sliding windows: they truncate to checkpoints and continue correctly. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Decoder } from '../../engine/backend/backend.ts';
import type { Sequence } from '../../engine/kv/blockCache.ts';
import { PrefixCache } from '../../engine/kv/prefixCache.ts';
import type { Model } from '../../engine/model/open.ts';
import { openModel } from '../../engine/model/open.ts';
import type { ChatMessage } from '../../engine/prompt/conversation.ts';
import { HarmonyFormat } from '../../engine/prompt/formats/harmony.ts';
import { Scheduler } from '../../engine/scheduler/scheduler.ts';
import { figure } from '../figures.ts';
import { expectGoldenLogits, type Golden, type GoldenBounds, type GoldenCase, readGolden } from './goldens.ts';
import { ByteTokenizer } from './scheduler/byteTokenizer.ts';
import { patient } from './scheduler/setUp.ts';

/** Harmony's own framing on bytes: fits the golden checkpoint's vocabulary. */
const framing = [...['<|start|>', '<|end|>', '<|message|>', '<|channel|>', '<|constrain|>', '<|return|>', '<|call|>']];
const tokenizer = new ByteTokenizer({ framing, end: ['<|return|>', '<|call|>'] });

/** A question, and an answer whose thinking is longer than the way back. Bytes are tokens here. */
const turns = [
  { question: 'Why is the sky blue? '.repeat(20), thinking: 'Light scatters. '.repeat(20), answer: 'Air scatters it.' },
  { question: 'And the sea? '.repeat(9), thinking: 'It mirrors the sky. '.repeat(15), answer: 'It mirrors the sky.' },
  { question: 'And at night? '.repeat(12), thinking: 'It is dark. '.repeat(26), answer: 'Nothing lights it.' },
];
const system = { role: 'system', content: 'Answer in few words. '.repeat(15) } as const;

/** `withChat`: a chat takes a thousand steps, too many where a step takes long. */
export function checkRewinds(
  backend: Backend,
  golden: GoldenCase,
  { maxDeviation, withChat = true }: Pick<GoldenBounds, 'maxDeviation'> & { readonly withChat?: boolean },
): void {
  describe(`rewinds of ${golden.name} on ${backend.name}`, () => {
    let model: Model;
    let expected: Golden;
    let decoder: Decoder;

    beforeAll(async () => {
      model = await openModel(golden.path);
      expected = await readGolden(golden.golden);
      decoder = await backend.load(model.spec, model.weights, { contextTokens: 6000 });
    });
    afterAll(async () => {
      await decoder?.dispose();
      await model?.file.close();
    });

    /** Golden ids from where the sequence stands up to `end`, whose logits are the golden ones. */
    const feed = async (sequence: Sequence, end: number) => {
      const first = sequence.length;
      const [logits = new Float32Array()] = await decoder.run([
        { sequence, tokens: expected.ids.slice(first, end), logits: 'all' },
      ]);
      expect(logits.length).toBe((end - first) * decoder.spec.vocabularySize);
      const figures = { rewound: golden.name, backend: backend.name, first };
      expectGoldenLogits(logits, first, { maxDeviation, expected, decoder, figures });
    };
    /** Other tokens, far beyond the windows and their way back. */
    const wander = async (sequence: Sequence) => {
      while (sequence.length < 600) {
        const tokens = Array.from({ length: 250 }, (_, i) => (i * 7 + sequence.length) % decoder.spec.vocabularySize);
        await decoder.run([{ sequence, tokens, logits: 'none' }]);
      }
    };

    it('truncate to checkpoints far before the windows, and continue to the golden logits', {
      timeout: 240_000,
    }, async () => {
      const before = decoder.memory().cacheBytes;
      const sequence = decoder.createSequence();
      sequence.setCheckpoints([45, 101]);
      await feed(sequence, 60);
      await feed(sequence, 120);
      await wander(sequence);
      const fork = sequence.fork();
      const reached = sequence.reachable(110);
      expect(reached).toBeGreaterThanOrEqual(101);
      expect(sequence.truncate(110)).toBe(reached);
      await feed(sequence, expected.ids.length);
      expect(fork.truncate(50)).toBeGreaterThanOrEqual(45);
      await feed(fork, 99);
      sequence.dispose();
      await feed(fork, expected.ids.length);
      fork.dispose();
      expect(decoder.memory().cacheBytes).toBe(before);
    });

    it('of a chat without its earlier thinking truncate to the end of its question', { timeout: 240_000 }, async ({
      skip,
    }) => {
      if (!withChat) skip('its thousand steps take minutes on this adapter');
      const before = decoder.memory().cacheBytes;
      const cache = new PrefixCache({ decoder, maxIdle: () => 2 });
      const scheduler = schedulerOf(decoder, cache);
      const messages: ChatMessage[] = [system];
      let [promptTokens, answerTokens] = [0, 0];
      for (const [turn, { question, thinking, answer }] of turns.entries()) {
        messages.push({ role: 'user', content: question });
        const { ids, boundaries } = new HarmonyFormat(tokenizer).render(messages, {
          thinking: 'low',
          now: new Date(0),
        });
        const script = scriptOf(thinking, answer);
        const { cachedTokens } = await scheduler.submit({
          requestClass: 'chat',
          prompt: ids,
          boundaries,
          maxTokens: script.length,
          choose: () => script.shift() ?? 0,
          deliver: () => 'continue',
        });
        figure({ chat: backend.name, turn, tokens: ids.length, computed: ids.length - cachedTokens, answerTokens });
        expect(cachedTokens).toBeGreaterThanOrEqual(promptTokens);
        [promptTokens, answerTokens] = [ids.length, thinking.length + answer.length];
        messages.push({ role: 'assistant', content: answer, thinking });
      }
      // The second question is asked again, in other words.
      const edited = [...messages.slice(0, 3), { role: 'user', content: 'And lakes?' } as const];
      const { ids } = new HarmonyFormat(tokenizer).render(edited, { thinking: 'low', now: new Date(0) });
      expect(cache.cachedPrefixTokens(ids)).toBeGreaterThan(ids.length - 40);
      cache.clear();
      expect(decoder.memory().cacheBytes).toBe(before);
    });
  });
}

/** What GPT-OSS writes: thinking, then the answer. */
const scriptOf = (thinking: string, answer: string): number[] =>
  tokenizer.encode(
    `<|channel|>analysis<|message|>${thinking}<|end|><|start|>assistant<|channel|>final<|message|>${answer}<|return|>`,
    { special: 'parse' },
  );

function schedulerOf(decoder: Decoder, cache: PrefixCache): Scheduler {
  let steps = 0;
  return new Scheduler({
    decoder,
    cache,
    maxPendingPerClass: 4,
    patienceMs: patient,
    now: () => steps++,
    yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
  });
}
