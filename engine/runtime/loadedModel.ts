/** A model that is ready to answer: everything that belongs to it, from its file to its queue. */
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Decoder, LoadOptions } from '../backend/backend.ts';
import { DoesNotFit } from '../backend/memoryPlan.ts';
import { catalogue } from '../catalogue/catalogue.ts';
import { bestWithin } from '../catalogue/fit.ts';
import { storedDigest } from '../catalogue/modelDigest.ts';
import { type HearthError, invalidInput, throwIfAborted } from '../errors.ts';
import { PrefixCache } from '../kv/prefixCache.ts';
import { type Digest, Snapshots } from '../kv/snapshots.ts';
import { limits } from '../limits.ts';
import type { Checkpoint } from '../model/model.ts';
import { openCheckpoint } from '../model/open.ts';
import { longestContextTokens, withContext } from '../model/spec/describe.ts';
import type { DecoderSpec } from '../model/spec/spec.ts';
import { listWeights } from '../model/weights/specTensors.ts';
import { type PromptFormat, promptFormatOf } from '../prompt/formats/promptFormat.ts';
import type { CachePrecision, ModelCard } from '../protocol/engineProtocol.ts';
import { Grammars } from '../sampling/grammar.ts';
import type { SamplerSettings } from '../sampling/sampler.ts';
import { generationConfig, samplingDefaults } from '../sampling/samplingDefaults.ts';
import { prepareHealing } from '../sampling/tokenHealing.ts';
import { engineScheduler } from '../scheduler/engineScheduler.ts';
import type { Machine, Scheduler } from '../scheduler/scheduler.ts';
import { Speculation } from '../scheduler/speculation.ts';
import type { EmbeddingModel } from '../tasks/embed.ts';
import { readOptionalJson } from '../tokenizer/readConfig.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type BackendChoice, type Candidate, loadDecoder, type ReferenceWeights } from './backends.ts';
import { type Recovered, Recovery } from './recovery.ts';

export interface LoadRequest {
  /** As the user named it, and where that lies. */
  readonly id: string;
  readonly name: string;
  readonly path: string;
  readonly backend: BackendChoice;
  readonly contextTokens?: number | undefined;
  readonly threads?: number | undefined;
  readonly cachePrecision?: CachePrecision | undefined;
  /** For files derived from the weights. */
  readonly cacheDirectory?: string | undefined;
  /** For sequences that outlive the process, how many bytes of them, and what they are told apart by; absent or 0: none do. */
  readonly snapshots?: { readonly directory: string; readonly limitBytes: number; readonly digest: Digest };
  readonly onProgress: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
  /** The model goes on differently from how it was loaded. */
  readonly onChange?: (change: { readonly message: string; readonly card: ModelCard }) => void;
  readonly signal: AbortSignal;
}

export interface LoadedModel {
  /** What it is now: a lost device may have been replaced. */
  readonly card: ModelCard;
  readonly scheduler: Scheduler;
  /** Absent: the checkpoint has no vocabulary, so it can be measured but not talked to. */
  readonly text?: { readonly tokenizer: Tokenizer; readonly format: PromptFormat; readonly grammars: Grammars };
  /** An embedding model; it has no `text`. */
  readonly embedding?: EmbeddingModel;
  readonly sampling: SamplerSettings;
  /** Forgets every sequence that nobody uses; those on the disk are others' to remove. */
  clearCache(): Promise<void>;
  close(): Promise<void>;
}

export async function loadModel(request: LoadRequest): Promise<LoadedModel> {
  const checkpoint = await openCheckpoint(request.path);
  try {
    const sampling = samplingDefaults(checkpoint.spec.family, await readGenerationConfig(request.path));
    let reading: Promise<Text> | undefined;
    const read = (): Promise<Text> => {
      reading ??= readText(checkpoint);
      return reading;
    };
    // A failure is heard of below.
    const meanwhile = (): void => void read().catch(() => {});
    const loaded = await decoderFor(checkpoint, { ...request, meanwhile });
    try {
      const text = await read();
      throwIfAborted(request.signal);
      return assemble(checkpoint, loaded, { text, sampling, request });
    } catch (error) {
      await loaded.decoder.dispose();
      throw error;
    }
  } catch (error) {
    await checkpoint.file.close();
    throw error;
  }
}

/** How text becomes ids; a conversation too, unless it is an embedding model. */
interface Text {
  readonly tokenizer?: Tokenizer;
  readonly format?: PromptFormat;
}

async function readText({ readTokenizer, embedding }: Checkpoint): Promise<Text> {
  const tokenizer = await readTokenizer();
  if (!tokenizer) return {};
  if (embedding) return { tokenizer };
  if (!tokenizer.fillInTheMiddle) prepareHealing(tokenizer);
  return { tokenizer, format: promptFormatOf(tokenizer) };
}

/** What a decoder is made from. */
type Computed = Pick<Checkpoint, 'path' | 'spec' | 'weights' | 'file'>;

/** Opens a decoder alone, for commands that feed it ids. */
export async function decoderFor(
  model: Computed,
  request: Omit<LoadRequest, 'id' | 'name' | 'path'> & Pick<LoadOptions, 'meanwhile'>,
  among?: readonly Candidate[],
): Promise<ReferenceWeights> {
  const spec = specFor(model, request.contextTokens);
  const { threads, cachePrecision, cacheDirectory, onProgress, meanwhile, signal } = request;
  const digest = storedDigest(model.path);
  const options: LoadOptions = {
    onProgress,
    signal,
    ...(request.contextTokens !== undefined && { contextTokens: request.contextTokens }),
    ...(meanwhile && { meanwhile }),
    ...(threads !== undefined && { threads }),
    ...(cachePrecision !== undefined && { cachePrecision }),
    ...(cacheDirectory !== undefined && digest !== undefined && { cacheDirectory, digest }),
  };
  try {
    return await loadDecoder(request.backend, spec, model.weights, options, among);
  } catch (error) {
    throw error instanceof DoesNotFit && error.contextTokens === 0 ? withSuggestion(error) : error;
  }
}

/** No context helps: another model does. */
function withSuggestion(error: DoesNotFit): DoesNotFit {
  const entry = bestWithin(catalogue, error.usableBytes);
  const suggestion = entry ? ` ${entry.name} (${entry.id}) would fit.` : '';
  return new DoesNotFit(`${error.message}${suggestion}`, error.usableBytes, 0);
}

function specFor(model: Computed, contextTokens: number | undefined): DecoderSpec {
  const longest = longestContextTokens(model.spec);
  if (contextTokens !== undefined && contextTokens > longest) {
    throw invalidInput(`A context of ${contextTokens} tokens was asked for; this model reaches ${longest}.`);
  }
  return contextTokens === undefined ? model.spec : withContext(model.spec, contextTokens);
}

interface Parts {
  readonly text: Text;
  readonly sampling: SamplerSettings;
  readonly request: LoadRequest;
}

function assemble(model: Checkpoint, loaded: ReferenceWeights, parts: Parts): LoadedModel {
  const { sampling, request } = parts;
  const { tokenizer, format } = parts.text;
  const { embedding } = model;
  const text = tokenizer && format && { tokenizer, format, grammars: new Grammars(tokenizer) };
  const cardOf = (now: ReferenceWeights) => modelCard(model, now, request, parts.text);
  let [card, machine] = [cardOf(loaded), machineOf(loaded.decoder, request)];
  const recover = recoveryOf(model, request, (recovered) => {
    [card, machine] = [cardOf(recovered), machineOf(recovered.decoder, request)];
    request.onChange?.({ message: recovered.notice, card });
    return machine;
  });
  const scheduler = engineScheduler(machine, { recover });
  void machine.snapshots?.start();
  return {
    get card() {
      return card;
    },
    scheduler,
    ...(text && { text }),
    ...(tokenizer &&
      embedding && { embedding: { ...embedding, scheduler, tokenizer, dimensions: model.spec.hiddenSize } }),
    sampling,
    async clearCache() {
      await machine.snapshots?.stop();
      machine.cache.clear();
    },
    async close() {
      await scheduler.close();
      await text?.grammars.close();
      await machine.snapshots?.stop();
      machine.cache.clear();
      await machine.decoder.dispose();
      // Not before: a backend may read rows of a weight when it needs them.
      await model.file.close();
    },
  };
}

function machineOf(decoder: Decoder, { name, snapshots }: LoadRequest): Machine & { snapshots?: Snapshots } {
  const { headless } = decoder.spec;
  // Texts to embed begin alike in a question's instruction alone.
  const cache = new PrefixCache({ decoder, maxIdle: (owner) => (headless ? 1 : (idleSequences.get(owner) ?? 1)) });
  const isKept = !headless && snapshots !== undefined && snapshots.limitBytes > 0;
  return {
    decoder,
    cache,
    ...(isKept && { snapshots: new Snapshots({ ...snapshots, model: name, decoder, cache }) }),
    speculation: new Speculation(),
  };
}

/** Loads the model anew when its device is lost; `take` puts what was loaded into use. */
function recoveryOf(
  model: Checkpoint,
  request: LoadRequest,
  take: (recovered: Recovered) => Machine,
): (loss: HearthError, lost: Decoder) => Promise<Machine> {
  // Whoever asked for the load is long answered: nothing cancels this one.
  const again = { ...request, signal: new AbortController().signal, onProgress: () => {} };
  const recovery = new Recovery({
    choice: request.backend,
    load: (among) => decoderFor(model, again, among),
    now: () => performance.now(),
  });
  return async (loss, lost) => take(await recovery.another(lost, loss));
}

function modelCard(
  model: Checkpoint,
  { decoder, notes }: ReferenceWeights,
  { id, name }: LoadRequest,
  { tokenizer, format }: Text,
): ModelCard {
  const { embedding } = model;
  return {
    id,
    name,
    family: decoder.spec.family,
    backend: decoder.backend,
    contextTokens: decoder.contextTokens,
    parameters: parametersOf(model),
    weightBytes: bytesOf(model),
    thinkingModes: [...(format?.thinkingModes ?? ['off' as const])],
    fillInTheMiddle: !embedding && tokenizer?.fillInTheMiddle !== undefined,
    chat: !embedding && tokenizer?.chatTemplate !== undefined,
    toolCalling: format?.toolCalling ?? false,
    ...(embedding && { embeddingDimensions: decoder.spec.hiddenSize }),
    notes: [...notes, ...decoder.notes],
  };
}

/** By class of request. */
const idleSequences: ReadonlyMap<string, number> = new Map(Object.entries(limits.generation.idleSequences));

function parametersOf({ weights }: Checkpoint): number {
  return listWeights(weights).reduce((sum, { weight }) => sum + weight.shape.reduce((a, b) => a * b, 1), 0);
}

function bytesOf({ file }: Computed): number {
  let bytes = 0;
  for (const tensor of file.tensors.values()) bytes += tensor.byteLength;
  return bytes;
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
