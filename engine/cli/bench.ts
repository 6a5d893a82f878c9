import { type DecodeCosts, decodeCosts, showCosts } from './benchCosts.ts';
import type { Command } from './command.ts';
import { type OpenDecoder, withDecoder } from './decoder.ts';
import { json } from './session.ts';
import { SpeedMeter, type Speeds, type Work } from './speedMeter.ts';
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
    const contextTokens = work.depthTokens + work.promptTokens + work.tokens + 1;
    await withDecoder(values, terminal, contextTokens, async (open) => {
      const meter = new SpeedMeter(open.decoder);
      const speeds = await fastest(meter, work);
      const costs = await decodeCosts(open, work, speeds.decodeTokensPerSecond);
      const result = resultOf(open, work, { ...speeds, deviceShare: meter.deviceShare }, costs);
      if (values.switch('json')) json(terminal, result);
      else show(terminal, result, costs);
    });
  },
};

interface Measured extends Speeds {
  /** Of the tokens written, how many the device sampled itself. */
  readonly deviceShare: number;
}

function resultOf(open: OpenDecoder, work: Work, measured: Measured, costs: DecodeCosts) {
  const { model, decoder, notes, fileBytes, loadMs } = open;
  const { promptTokens, tokens, depthTokens } = work;
  return {
    model,
    backend: decoder.backend,
    promptTokens,
    tokens,
    depthTokens,
    ...measured,
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
    `decode ${result.decodeTokensPerSecond.toFixed(1)} tokens/s (${tokens} tokens, ${(100 * result.deviceShare).toFixed(0)} % sampled on the device)`,
    `load ${(loadMs / 1000).toFixed(2)} s`,
  ];
  terminal.out(`${result.model} on ${result.backend}: ${speeds.join(', ')}\n`);
  terminal.out(`${showCosts(costs)}\n`);
}

async function fastest(meter: SpeedMeter, work: Work): Promise<Speeds> {
  const results: Speeds[] = [];
  // The first round warms up.
  for (let round = 0; round <= rounds; round++) {
    const speeds = await meter.measure(work);
    if (round > 0) results.push(speeds);
  }
  return {
    prefillTokensPerSecond: Math.max(...results.map((one) => one.prefillTokensPerSecond)),
    decodeTokensPerSecond: Math.max(...results.map((one) => one.decodeTokensPerSecond)),
  };
}
