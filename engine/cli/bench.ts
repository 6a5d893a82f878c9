import type { Decoder, DeviceSampling, Sequence } from '../backend/backend.ts';
import { throwIfAborted } from '../errors.ts';
import { seededRandom } from '../sampling/random.ts';
import { argmax, greedy } from '../sampling/sampler.ts';
import { type DecodeCosts, decodeCosts, showCosts } from './benchCosts.ts';
import type { Command } from './command.ts';
import { type OpenDecoder, withDecoder } from './decoder.ts';
import { json } from './session.ts';
import type { Terminal } from './terminal.ts';

/** Of which the fastest counts: what else the machine does only ever costs time. */
const rounds = 3;

export const bench: Command = {
  name: 'bench',
  usage: '--model M',
  summary: "Measures how fast a model reads a prompt and writes an answer, and what of the memory's speed that takes.",
  options: [
    { name: 'prompt-tokens', value: 'N', help: 'length of the prompt (128)' },
    { name: 'tokens', value: 'N', help: 'length of the answer (32)' },
    { name: 'depth', value: 'N', help: 'tokens of context before the prompt (0)' },
  ],
  async run(values, terminal) {
    values.none();
    const work: Work = {
      promptTokens: values.count('prompt-tokens') ?? 128,
      tokens: values.count('tokens') ?? 32,
      depthTokens: values.number('depth', { least: 0, integer: true }) ?? 0,
      signal: terminal.signal,
    };
    const contextTokens = work.depthTokens + work.promptTokens + work.tokens;
    await withDecoder(values, terminal, contextTokens, async (open) => {
      const timings = await fastest(open.decoder, work);
      const costs = await decodeCosts(open, work, timings.decodeMs);
      const result = resultOf(open, work, timings, costs);
      if (values.switch('json')) json(terminal, result);
      else show(terminal, result, costs);
    });
  },
};

export interface Work {
  readonly promptTokens: number;
  readonly tokens: number;
  readonly depthTokens: number;
  readonly signal: AbortSignal;
}

interface Timings {
  readonly prefillMs: number;
  readonly decodeMs: number;
}

function resultOf(open: OpenDecoder, work: Work, { prefillMs, decodeMs }: Timings, costs: DecodeCosts) {
  const { model, decoder, notes, fileBytes, loadMs } = open;
  const { promptTokens, tokens, depthTokens } = work;
  return {
    model,
    backend: decoder.backend,
    promptTokens,
    tokens,
    depthTokens,
    prefillTokensPerSecond: (1000 * promptTokens) / prefillMs,
    decodeTokensPerSecond: (1000 * tokens) / decodeMs,
    ...costs,
    loadMs,
    fileBytes,
    ...decoder.memory(),
    residentBytes: process.memoryUsage.rss(),
    notes,
  };
}

function show(terminal: Terminal, result: ReturnType<typeof resultOf>, costs: DecodeCosts): void {
  const { promptTokens, tokens, depthTokens, loadMs } = result;
  const after = depthTokens > 0 ? ` after ${depthTokens}` : '';
  const speeds = [
    `prefill ${result.prefillTokensPerSecond.toFixed(1)} tokens/s (${promptTokens} tokens${after})`,
    `decode ${result.decodeTokensPerSecond.toFixed(1)} tokens/s (${tokens} tokens)`,
    `load ${(loadMs / 1000).toFixed(2)} s`,
  ];
  terminal.out(`${result.model} on ${result.backend}: ${speeds.join(', ')}\n`);
  terminal.out(`${showCosts(costs)}\n`);
}

async function fastest(decoder: Decoder, work: Work): Promise<Timings> {
  const random = seededRandom(work.promptTokens);
  const ids = (count: number) =>
    Array.from({ length: count }, () => Math.floor(random() * decoder.spec.vocabularySize));
  const context = decoder.createSequence();
  await feed(decoder, context, ids(work.depthTokens), work.signal);
  const prompt = ids(work.promptTokens);
  const results: Timings[] = [];
  // The first round warms up.
  for (let round = 0; round <= rounds; round++) {
    const sequence = context.fork();
    const timings = await measure(decoder, sequence, prompt, work);
    if (round > 0) results.push(timings);
    sequence.dispose();
  }
  context.dispose();
  return {
    prefillMs: Math.min(...results.map(({ prefillMs }) => prefillMs)),
    decodeMs: Math.min(...results.map(({ decodeMs }) => decodeMs)),
  };
}

/** @returns the last token's logits. */
async function feed(
  decoder: Decoder,
  sequence: Sequence,
  tokens: readonly number[],
  signal: AbortSignal,
): Promise<Float32Array> {
  let last: Float32Array | undefined;
  for (let at = 0; at < tokens.length; at += decoder.maxTokensPerRun) {
    throwIfAborted(signal);
    const slice = tokens.slice(at, at + decoder.maxTokensPerRun);
    const logits = at + slice.length === tokens.length ? 'last' : 'none';
    [last] = await decoder.run([{ sequence, tokens: slice, logits }]);
  }
  return last ?? new Float32Array(1);
}

async function measure(
  decoder: Decoder,
  sequence: Sequence,
  prompt: readonly number[],
  { tokens, signal }: Work,
): Promise<Timings> {
  const start = performance.now();
  const first = argmax(await feed(decoder, sequence, prompt, signal));
  const prefilled = performance.now();
  await answer(decoder, sequence, first, tokens, signal);
  return { prefillMs: prefilled - start, decodeMs: performance.now() - prefilled };
}

/** Greedily, `count` tokens after `first`: by the device where it draws tokens itself. */
export async function answer(
  decoder: Decoder,
  sequence: Sequence,
  first: number,
  count: number,
  signal?: AbortSignal,
): Promise<void> {
  const { deviceSampling } = decoder;
  if (deviceSampling?.follows(greedy)) await draw(deviceSampling, sequence, first, count, signal);
  else await choose(decoder, sequence, first, count, signal);
}

async function choose(
  decoder: Decoder,
  sequence: Sequence,
  first: number,
  count: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let i = 0, token = first; i < count; i++) {
    throwIfAborted(signal);
    const [logits = new Float32Array(1)] = await decoder.run([{ sequence, tokens: [token], logits: 'last' }]);
    token = argmax(logits);
  }
}

/** As `choose`, by the device. */
async function draw(
  { mostSteps, draw }: DeviceSampling,
  sequence: Sequence,
  first: number,
  count: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const history = { sequence: new Set<number>(), generated: new Set<number>() };
  for (let i = 0, token = first; i < count; i += mostSteps) {
    throwIfAborted(signal);
    const steps = Math.min(mostSteps, count - i);
    const uniforms = new Array<number>(steps).fill(0);
    const slice = { sequence, token, rules: greedy, history, uniforms, stopIds: new Set<number>() };
    const [drawn = []] = await draw([slice], steps);
    token = drawn.at(-1) ?? first;
  }
}
