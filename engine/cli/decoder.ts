/** Loads a decoder without the engine, for commands that work on token ids. */
import { open, readFile, rename, rm } from 'node:fs/promises';
import { z } from 'zod';
import type { Decoder } from '../backend/backend.ts';
import { greedy } from '../backend/sampler.ts';
import { defaultModelId } from '../catalogue/catalogue.ts';
import { openStore } from '../catalogue/store.ts';
import { HearthError, invalidInput, throwIfAborted } from '../errors.ts';
import { PrefixCache } from '../kv/prefixCache.ts';
import { limits } from '../limits.ts';
import { openModel } from '../model/open.ts';
import { cacheBytes, describeModel } from '../model/spec/describe.ts';
import type { OutputParser } from '../prompt/conversation.ts';
import { decoderFor } from '../runtime/loadedModel.ts';
import { seededRandom } from '../sampling/random.ts';
import { engineScheduler, type Scheduler } from '../scheduler/scheduler.ts';
import { generate } from '../tasks/generate.ts';
import type { Command, Values } from './command.ts';
import { ProgressLine, type Terminal } from './command.ts';
import { json } from './session.ts';

interface OpenDecoder {
  /** The argument as the user gave it. */
  readonly model: string;
  readonly decoder: Decoder;
  /** Weight bytes read to decode one token. */
  readonly weightBytesPerToken: number;
  readonly notes: readonly string[];
  /** Size of all tensors. */
  readonly fileBytes: number;
  readonly loadMs: number;
}

export async function withDecoder<Result>(
  values: Values,
  terminal: Terminal,
  contextTokens: number | undefined,
  run: (open: OpenDecoder) => Promise<Result>,
): Promise<Result> {
  const store = openStore();
  const progress = new ProgressLine(terminal);
  const start = performance.now();
  const name = values.text('model') ?? defaultModelId;
  const model = await openModel(await store.resolve(name));
  try {
    const { decoder, notes } = await decoderFor(model, {
      backend: values.backend(),
      contextTokens: contextOf(values, contextTokens),
      threads: values.count('threads'),
      cachePrecision: values.cachePrecision(),
      storeDirectory: store.directory,
      onProgress: ({ doneBytes, totalBytes }) => progress.show('Loading', doneBytes, totalBytes, 'bytes'),
      signal: terminal.signal,
    });
    progress.end();
    const loadMs = performance.now() - start;
    const weightBytesPerToken = describeModel(model).activeWeightBytes;
    const fileBytes = [...model.file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    try {
      const measured = { weightBytesPerToken, fileBytes, loadMs };
      return await run({ model: name, decoder, notes: [...notes, ...decoder.notes], ...measured });
    } finally {
      await decoder.dispose();
    }
  } finally {
    progress.end();
    await model.file.close();
  }
}

/** @param least tokens that the command needs; absent: the default of a load. */
function contextOf(values: Values, least: number | undefined): number | undefined {
  const asked = values.number('context', { least: least ?? 16, integer: true });
  return asked ?? (least === undefined ? undefined : Math.max(16, least));
}

const tokenIds = z.array(z.number().int().min(0)).min(1).max(limits.cli.ids);
const idsFile = z.union([tokenIds, z.object({ input_ids: tokenIds }).transform((file) => file.input_ids)]);

export const logits: Command = {
  name: 'logits',
  usage: '--ids FILE --out FILE',
  summary: 'Writes teacher-forced logits of every position: [tokens, vocabulary] little-endian float32.',
  options: [
    { name: 'ids', value: 'FILE', help: 'JSON array of token ids, or an object with input_ids' },
    { name: 'out', value: 'FILE', help: 'output file' },
  ],
  async run(values, terminal) {
    values.none();
    const out = values.required('out');
    const ids = await readIds(values.required('ids'));
    await withDecoder(values, terminal, ids.length, async ({ decoder, notes }) => {
      const partial = `${out}.part`;
      const file = await open(partial, 'w');
      try {
        const sequence = decoder.createSequence();
        for (let start = 0; start < ids.length; start += decoder.maxTokensPerRun) {
          throwIfAborted(terminal.signal);
          const tokens = ids.slice(start, start + decoder.maxTokensPerRun);
          const [rows] = await decoder.run([{ sequence, tokens, logits: 'all' }]);
          if (rows) await file.writeFile(littleEndian(rows));
        }
        await file.close();
        await rename(partial, out);
      } catch (error) {
        await file.close();
        await rm(partial, { force: true });
        throw error;
      }
      const shape = [ids.length, decoder.spec.vocabularySize];
      if (values.switch('json')) json(terminal, { out, shape, backend: decoder.backend, notes });
      else terminal.err(`${out}: [${shape.join(', ')}] float32 by '${decoder.backend}'\n`);
    });
  },
};

async function readIds(path: string): Promise<number[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new HearthError('not-found', `Could not read ${path}.`, { cause: error });
  });
  try {
    return idsFile.parse(JSON.parse(text));
  } catch (error) {
    throw invalidInput(
      `${path} is not a JSON array of token ids${error instanceof SyntaxError ? '' : ' (at least one, each 0 or more)'}.`,
    );
  }
}

/** Converts to little-endian bytes on any machine. */
function littleEndian(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array(values.byteLength);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < values.length; i++) view.setFloat32(4 * i, values[i] ?? 0, true);
  return bytes;
}

/** The fastest round counts, because other work on the machine can only slow a round down. */
const rounds = 3;

export const bench: Command = {
  name: 'bench',
  usage: '--model M',
  summary: 'Measures prefill and decode speed, and the share of the memory bandwidth that decode uses.',
  options: [
    { name: 'prompt-tokens', value: 'N', help: 'length of the prompt (128)' },
    { name: 'tokens', value: 'N', help: 'length of the answer (32)' },
    { name: 'depth', value: 'N', help: 'cached tokens before the prompt (0)' },
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
  /** Share of the generated tokens that the device sampled. */
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
  // The first round is a warm-up.
  for (let round = 0; round <= rounds; round++) {
    const speeds = await meter.measure(work);
    if (round > 0) results.push(speeds);
  }
  return {
    prefillTokensPerSecond: Math.max(...results.map((one) => one.prefillTokensPerSecond)),
    decodeTokensPerSecond: Math.max(...results.map((one) => one.decodeTokensPerSecond)),
  };
}

// Costs of decoding one token: dispatches, bytes read, and share of the memory bandwidth.

interface DecodeCosts {
  readonly weightBytesPerToken: number;
  /** KV cache bytes read, in the middle of the answer. */
  readonly cacheBytesPerToken: number;
  /** Absent if the backend has no kernels. */
  readonly dispatchesPerToken?: number;
  readonly mostDispatchesPerLayer?: number;
  /** Bytes read and written by a copy on the same device. Absent if not measured. */
  readonly copyBytesPerSecond?: number;
  /** Share of that bandwidth used for weights and KV cache. */
  readonly bandwidthShare?: number;
}

async function decodeCosts(
  { decoder, weightBytesPerToken }: OpenDecoder,
  { promptTokens, depthTokens, tokens }: Work,
  tokensPerSecond: number,
): Promise<DecodeCosts> {
  const { cacheBytesPerValue } = decoder.memory();
  const contextTokens = depthTokens + promptTokens + Math.floor(tokens / 2);
  const cacheBytesPerToken = cacheBytes(decoder.spec, contextTokens, cacheBytesPerValue);
  const dispatches = await decoder.dispatches?.();
  const copyBytesPerSecond = await decoder.copyBandwidth?.();
  const bytesPerSecond = tokensPerSecond * (weightBytesPerToken + cacheBytesPerToken);
  return {
    weightBytesPerToken,
    cacheBytesPerToken,
    ...(dispatches && {
      dispatchesPerToken: dispatches.token,
      mostDispatchesPerLayer: Math.max(...dispatches.layers),
    }),
    ...(copyBytesPerSecond !== undefined && {
      copyBytesPerSecond,
      bandwidthShare: bytesPerSecond / copyBytesPerSecond,
    }),
  };
}

/** Formats the costs as one line. */
function showCosts(costs: DecodeCosts): string {
  const parts = [
    `${megabytes(costs.weightBytesPerToken)} of weights and ${megabytes(costs.cacheBytesPerToken)} of KV cache`,
  ];
  const { dispatchesPerToken, mostDispatchesPerLayer, copyBytesPerSecond, bandwidthShare } = costs;
  if (dispatchesPerToken !== undefined) {
    parts.push(`${dispatchesPerToken} dispatches (at most ${mostDispatchesPerLayer} a layer)`);
  }
  if (copyBytesPerSecond !== undefined && bandwidthShare !== undefined) {
    const speed = `${(copyBytesPerSecond / 1e9).toFixed(1)} GB/s`;
    parts.push(`${(100 * bandwidthShare).toFixed(0)} % of the ${speed} that a copy reaches`);
  }
  return `a token: ${parts.join(', ')}`;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

// Measures prefill and decode speed with requests to the engine's scheduler, so that chunked prefill and device sampling work
// as in a chat. Draft tokens are off, because random prompts repeat themselves more than real text does.

interface Work {
  /** Tokens in the KV cache before the prompt. */
  readonly depthTokens: number;
  readonly promptTokens: number;
  /** Answer tokens after the first one, which prefill produces. */
  readonly tokens: number;
  readonly signal?: AbortSignal;
}

interface Speeds {
  readonly prefillTokensPerSecond: number;
  /** 0 if no tokens were requested. */
  readonly decodeTokensPerSecond: number;
}

/** Discards the output, because random ids have no meaningful text. */
const silent: OutputParser = { isThinking: false, push: () => [], end: () => [] };

export class SpeedMeter {
  readonly scheduler: Scheduler;
  readonly #random = seededRandom(1);
  readonly #context: number[] = [];

  constructor(decoder: Decoder) {
    this.scheduler = engineScheduler({ decoder, cache: new PrefixCache({ decoder, maxIdle: () => 1 }) });
  }

  /** Share of answer tokens that the device sampled. The first token of each answer comes from prefill logits. */
  get deviceShare(): number {
    const { deviceTokens, generatedTokens } = this.scheduler.statistics().classes.chat;
    return generatedTokens > 0 ? deviceTokens / generatedTokens : 0;
  }

  /** Measures one request. Prompts of equal depth share the context but differ after it, so only the context is cached. */
  async measure({ depthTokens, promptTokens, tokens, signal }: Work): Promise<Speeds> {
    this.#context.push(...this.#ids(depthTokens - this.#context.length));
    const context = this.#context.slice(0, depthTokens);
    if (depthTokens > 0) await this.#ask(context, 0, [depthTokens], signal);
    const prompt = [...context, ...this.#ids(promptTokens)];
    const { statistics } = await this.#ask(prompt, tokens + 1, [depthTokens], signal);
    throwIfAborted(signal);
    return {
      prefillTokensPerSecond: (1000 * (prompt.length - statistics.cachedTokens)) / statistics.timeToFirstTokenMs,
      decodeTokensPerSecond: statistics.tokensPerSecond,
    };
  }

  #ask(prompt: readonly number[], maxTokens: number, boundaries: readonly number[], signal: AbortSignal | undefined) {
    return generate(this.scheduler, {
      requestClass: 'chat',
      prompt,
      boundaries,
      maxTokens,
      sampling: greedy,
      random: this.#random,
      stopIds: new Set(),
      stopStrings: [],
      parser: silent,
      onPiece: () => 'continue',
      signal,
    });
  }

  #ids(count: number): number[] {
    const { vocabularySize } = this.scheduler.decoder.spec;
    return Array.from({ length: Math.max(0, count) }, () => Math.floor(this.#random() * vocabularySize));
  }
}
