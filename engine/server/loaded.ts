/** A model that is ready to answer: everything that belongs to it, from its file to its queue. */
import { stat } from 'node:fs/promises';
import { freemem } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { Decoder } from '../backend/backend.ts';
import { SequencePool } from '../cache/sequencePool.ts';
import { invalidInput, throwIfAborted } from '../errors.ts';
import type { SamplerSettings } from '../generation/sampler.ts';
import { generationConfig, samplingDefaults } from '../generation/samplingDefaults.ts';
import { Scheduler } from '../generation/scheduler.ts';
import { prepareHealing } from '../generation/tokenHealing.ts';
import { limits } from '../limits.ts';
import { longestContextTokens, withContext } from '../model/longContext.ts';
import type { Model } from '../model/model.ts';
import { openModel } from '../model/open.ts';
import type { DecoderSpec } from '../model/spec.ts';
import { listWeights } from '../model/weightList.ts';
import { type PromptFormat, promptFormatOf } from '../text/promptFormat.ts';
import { readOptionalJson } from '../text/readConfig.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type BackendChoice, loadDecoder } from './backends.ts';
import { cacheBudgetBytes, cacheBytesPerToken, defaultContextTokens } from './plan.ts';
import type { ModelCard } from './protocol.ts';

export interface LoadRequest {
  /** As the user named it, and where that lies. */
  readonly id: string;
  readonly name: string;
  readonly path: string;
  readonly backend: BackendChoice;
  readonly contextTokens?: number | undefined;
  readonly threads?: number | undefined;
  /** For files derived from the weights. */
  readonly cacheDirectory?: string | undefined;
  readonly onProgress: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
  readonly signal: AbortSignal;
}

export interface LoadedModel {
  readonly card: ModelCard;
  readonly decoder: Decoder;
  readonly scheduler: Scheduler;
  readonly pool: SequencePool;
  /** Absent: the checkpoint has no vocabulary, so it can be measured but not talked to. */
  readonly text?: { readonly tokenizer: Tokenizer; readonly format: PromptFormat };
  readonly sampling: SamplerSettings;
  close(): Promise<void>;
}

export async function loadModel(request: LoadRequest): Promise<LoadedModel> {
  const model = await openModel(request.path);
  try {
    const sampling = samplingDefaults(model.spec.family, await readGenerationConfig(request.path));
    const { decoder, notes } = await decoderFor(model, request);
    try {
      throwIfAborted(request.signal);
      return assemble(model, decoder, { sampling, notes, request });
    } catch (error) {
      await decoder.dispose();
      throw error;
    }
  } catch (error) {
    await model.file.close();
    throw error;
  }
}

/** Opens a decoder alone, for commands that feed it ids. */
export async function decoderFor(
  model: Model,
  request: Omit<LoadRequest, 'id' | 'name' | 'path'>,
): Promise<{ decoder: Decoder; notes: string[] }> {
  const spec = specFor(model, request.contextTokens);
  const { threads, cacheDirectory, onProgress, signal } = request;
  const digest = storedDigest(model.path);
  return loadDecoder(request.backend, spec, model.weights, {
    contextTokens: request.contextTokens ?? defaultContextTokens(spec, bytesOf(model), freemem()),
    onProgress,
    signal,
    ...(threads !== undefined && { threads }),
    ...(cacheDirectory !== undefined && digest !== undefined && { cacheDirectory, digest }),
  });
}

function specFor(model: Model, contextTokens: number | undefined): DecoderSpec {
  const longest = longestContextTokens(model.spec);
  if (contextTokens !== undefined && contextTokens > longest) {
    throw invalidInput(`A context of ${contextTokens} tokens was asked for; this model reaches ${longest}.`);
  }
  return contextTokens === undefined ? model.spec : withContext(model.spec, contextTokens);
}

interface Parts {
  readonly sampling: SamplerSettings;
  readonly notes: readonly string[];
  readonly request: LoadRequest;
}

function assemble(model: Model, decoder: Decoder, { sampling, notes, request }: Parts): LoadedModel {
  const { tokenizer } = model;
  if (tokenizer && !tokenizer.fillInTheMiddle) prepareHealing(tokenizer);
  const format = tokenizer && promptFormatOf(tokenizer);
  const pool = new SequencePool({
    createSequence: () => decoder.createSequence(),
    bytesPerToken: cacheBytesPerToken(decoder.spec),
    budgetBytes: cacheBudgetBytes(decoder.spec, decoder.contextTokens),
    maxIdlePerOwner: limits.generation.idleSequencesPerClass,
  });
  const scheduler = new Scheduler({
    decoder,
    pool,
    chunkTokens: Math.min(limits.generation.chunkTokens, decoder.maxTokensPerRun),
    maxPendingPerClass: limits.generation.pendingRequestsPerClass,
    patienceMs: limits.generation.patienceMs,
    now: () => performance.now(),
    breathe: () => setImmediate(),
  });
  return {
    card: {
      id: request.id,
      name: request.name,
      family: decoder.spec.family,
      backend: decoder.backend,
      contextTokens: decoder.contextTokens,
      parameters: parametersOf(model),
      weightBytes: bytesOf(model),
      thinkingModes: [...(format?.thinkingModes ?? ['off' as const])],
      fillInTheMiddle: tokenizer?.fillInTheMiddle !== undefined,
      chat: tokenizer?.chatTemplate !== undefined,
      toolCalling: false,
      notes: [...notes, ...decoder.notes],
    },
    decoder,
    scheduler,
    pool,
    ...(tokenizer && format && { text: { tokenizer, format } }),
    sampling,
    async close() {
      await scheduler.close();
      pool.clear();
      await decoder.dispose();
      // Not before: a backend may read rows of a weight when it needs them.
      await model.file.close();
    },
  };
}

function parametersOf({ weights }: Model): number {
  return listWeights(weights).reduce((sum, { weight }) => sum + weight.shape.reduce((a, b) => a * b, 1), 0);
}

function bytesOf({ file }: Model): number {
  let bytes = 0;
  for (const tensor of file.tensors.values()) bytes += tensor.byteLength;
  return bytes;
}

/** sha256 of a model that lies in the store, from the folder that is named after it. */
function storedDigest(path: string): string | undefined {
  return /[\\/]sha256-([0-9a-f]{64})(?:[\\/]|$)/.exec(path)?.[1];
}

async function readGenerationConfig(path: string): Promise<ReturnType<typeof generationConfig.parse> | undefined> {
  const found = await stat(path);
  const directory = found.isDirectory() ? path : dirname(path);
  const json = await readOptionalJson(join(directory, 'generation_config.json'), limits.model.configBytes);
  if (json === undefined) return undefined;
  const parsed = generationConfig.safeParse(json);
  if (parsed.success) return parsed.data;
  throw invalidInput(`${basename(directory)}/generation_config.json: ${parsed.error.issues[0]?.message ?? 'invalid'}`);
}
