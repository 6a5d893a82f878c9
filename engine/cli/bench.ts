import type { Decoder } from '../backend/backend.ts';
import { throwIfAborted } from '../errors.ts';
import { seededRandom } from '../generation/random.ts';
import { argmax } from '../generation/sampler.ts';
import type { Command } from './command.ts';
import { withDecoder } from './decoder.ts';
import { json } from './session.ts';

/** Of which the fastest counts: what else the machine does only ever costs time. */
const rounds = 3;

export const bench: Command = {
  name: 'bench',
  usage: '--model M',
  summary: 'Measures how fast a model reads a prompt and writes an answer.',
  options: [
    { name: 'prompt-tokens', value: 'N', help: 'length of the prompt (128)' },
    { name: 'tokens', value: 'N', help: 'length of the answer (32)' },
  ],
  async run(values, terminal) {
    values.none();
    const promptTokens = values.count('prompt-tokens') ?? 128;
    const tokens = values.count('tokens') ?? 32;
    await withDecoder(values, terminal, promptTokens + tokens, async ({ model, decoder, notes, fileBytes, loadMs }) => {
      const results: Timings[] = [];
      // The first round warms up.
      for (let round = 0; round <= rounds; round++) {
        const timings = await measure(decoder, promptTokens, tokens, terminal.signal);
        if (round > 0) results.push(timings);
      }
      const prefillMs = Math.min(...results.map((timings) => timings.prefillMs));
      const decodeMs = Math.min(...results.map((timings) => timings.decodeMs));
      const result = {
        model,
        backend: decoder.backend,
        promptTokens,
        tokens,
        prefillTokensPerSecond: (1000 * promptTokens) / prefillMs,
        decodeTokensPerSecond: (1000 * tokens) / decodeMs,
        loadMs,
        fileBytes,
        ...decoder.memory(),
        residentBytes: process.memoryUsage.rss(),
        notes,
      };
      if (values.switch('json')) {
        json(terminal, result);
        return;
      }
      const speeds = [
        `prefill ${result.prefillTokensPerSecond.toFixed(1)} tokens/s (${promptTokens} tokens)`,
        `decode ${result.decodeTokensPerSecond.toFixed(1)} tokens/s (${tokens} tokens)`,
        `load ${(loadMs / 1000).toFixed(2)} s`,
      ];
      terminal.out(`${result.model} on ${decoder.backend}: ${speeds.join(', ')}\n`);
    });
  },
};

interface Timings {
  readonly prefillMs: number;
  readonly decodeMs: number;
}

async function measure(decoder: Decoder, promptTokens: number, tokens: number, signal: AbortSignal): Promise<Timings> {
  const random = seededRandom(promptTokens);
  const prompt = Array.from({ length: promptTokens }, () => Math.floor(random() * decoder.spec.vocabularySize));
  const sequence = decoder.createSequence();
  const start = performance.now();
  let last: Float32Array | undefined;
  for (let at = 0; at < prompt.length; at += decoder.maxTokensPerRun) {
    const slice = prompt.slice(at, at + decoder.maxTokensPerRun);
    [last] = await decoder.run([{ sequence, tokens: slice, logits: 'last' }]);
  }
  const prefilled = performance.now();
  for (let i = 0; i < tokens; i++) {
    throwIfAborted(signal);
    const token = argmax(last ?? new Float32Array(1));
    [last] = await decoder.run([{ sequence, tokens: [token], logits: 'last' }]);
  }
  const ended = performance.now();
  sequence.dispose();
  return { prefillMs: prefilled - start, decodeMs: ended - prefilled };
}
