/**
 * Compares decode and prefill speed on the CPU with llama-bench, in alternating turns, and relates the time of a token to the
 * KV cache bytes that it reads.
 */
import { basename } from 'node:path';
import { type HearthDecoder, openHearth } from './hearthDecoder.ts';
import { withLongContext } from './longContext.ts';
import { defaultModel, randomModel } from './models.ts';
import type { Goal, Line, Report, Side } from './report.ts';
import { count, type Settings, turnsAt } from './settings.ts';
import type { Speeds, Workload } from './workload.ts';

const samplesPerTurn = 3;
const atLeastAsFast: Goal = { of: 'ratio', bound: '≥', value: 1 };

/** Long contexts use only the default model, unless models are named, because a large one would take an hour. */
export async function measureSpeed(report: Report, settings: Settings): Promise<void> {
  const { models, contexts } = settings;
  const all = [0, ...contexts];
  if (models.length === 0) {
    await report.attempt('speed of the default model', async () =>
      measureModel(report, settings, await defaultModel(), all),
    );
    for (const type of ['Q8_0', 'Q4_0'] as const) {
      const at = `speed of random weights in ${type}`;
      await report.attempt(at, () => measureModel(report, settings, randomModel('qwen3-0.6b', type), [0]));
    }
  }
  for (const model of models) {
    await report.attempt(`speed of ${basename(model)}`, () => measureModel(report, settings, model, all));
  }
}

async function measureModel(
  report: Report,
  settings: Settings,
  file: string,
  depths: readonly number[],
): Promise<void> {
  const { threads, promptTokens, decodeTokens, speedPeer } = settings;
  const contextTokens = Math.max(...depths) + Math.max(promptTokens, decodeTokens) + 2;
  const path = await withLongContext(file, contextTokens, report);
  const lines = linesOf(basename(path), settings);
  const hearth = await openHearth(path, contextTokens, threads);
  try {
    for (const depthTokens of depths) {
      const workload: Workload = { depthTokens, promptTokens, decodeTokens, threads, samples: samplesPerTurn };
      for (let turn = 0; turn < turnsAt(settings.turns, depthTokens); turn++) {
        console.error(`${basename(path)} after ${count(depthTokens)} tokens, turn ${turn + 1}`);
        const own = await hearth.measure(workload);
        noteSpeeds(report, 'hearth', lines, depthTokens, own);
        if (speedPeer) noteSpeeds(report, 'other', lines, depthTokens, await speedPeer.measure(path, workload));
      }
    }
  } finally {
    await hearth.close();
  }
  noteBytes(report, lines, depths, hearth);
}

type Lines = ReturnType<typeof linesOf>;

function linesOf(model: string, { promptTokens, decodeTokens }: Settings) {
  const speeds = `${model}: tokens a second, against llama-bench`;
  const growth = `${model}: time of a token by context length, against llama-bench with its f16 cache`;
  const after = (tokens: number): string => `after ${count(tokens)}`;
  const line = (section: string, what: string, goal?: Goal): Line => ({ section, what, ...(goal && { goal }) });
  return {
    prefill: (depth: number) => line(speeds, `prefill of ${promptTokens} ${after(depth)}`, atLeastAsFast),
    decode: (depth: number) => line(speeds, `decode of ${decodeTokens} ${after(depth)}`, atLeastAsFast),
    ms: (depth: number) => line(growth, `ms ${after(depth)}`),
    bytes: (depth: number) => line(growth, `MB of weights and cache read ${after(depth)}`),
    rate: (depth: number) => line(growth, `GB/s of them ${after(depth)}`),
    slope: (from: number, to: number) => line(growth, `ms more for 1,000 tokens, from ${count(from)} to ${count(to)}`),
    slopeBytes: (from: number, to: number) =>
      line(growth, `MB of cache for 1,000 tokens, from ${count(from)} to ${count(to)}`),
    slopeRate: (from: number, to: number) => line(growth, `GB/s of cache, from ${count(from)} to ${count(to)}`),
  };
}

function noteSpeeds(report: Report, side: Side, lines: Lines, depth: number, { prefill, decode }: Speeds): void {
  report.note(side, lines.prefill(depth), ...prefill);
  report.note(side, lines.decode(depth), ...decode);
  report.note(side, lines.ms(depth), ...decode.map((perSecond) => 1000 / perSecond));
}

/** Bytes read for a token and the resulting bandwidth, then the increase of both with the context. */
function noteBytes(report: Report, lines: Lines, depths: readonly number[], hearth: HearthDecoder): void {
  for (const side of ['hearth', 'other'] as const) {
    const points = depths.flatMap((depth) => {
      const ms = report.figure(side, lines.ms(depth));
      const { own, inHalves } = hearth.cacheBytes(depth);
      return ms === undefined ? [] : [{ depth, ms, cacheBytes: side === 'hearth' ? own : inHalves }];
    });
    for (const { depth, cacheBytes } of points) {
      report.note(side, lines.bytes(depth), (hearth.weightBytes + cacheBytes) / 1e6);
    }
    for (const { depth, ms, cacheBytes } of points) {
      report.note(side, lines.rate(depth), (hearth.weightBytes + cacheBytes) / 1e6 / ms);
    }
    for (const [i, to] of points.slice(1).entries()) {
      const from = points[i] ?? to;
      const [ms, bytes] = [to.ms - from.ms, to.cacheBytes - from.cacheBytes];
      const thousands = (to.depth - from.depth) / 1000;
      report.note(side, lines.slope(from.depth, to.depth), ms / thousands);
      report.note(side, lines.slopeBytes(from.depth, to.depth), bytes / 1e6 / thousands);
      report.note(side, lines.slopeRate(from.depth, to.depth), bytes / 1e6 / ms);
    }
  }
}
