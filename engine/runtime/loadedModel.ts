/** A loaded model: its file, decoder, caches, tokenizer and request queue. */
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { BackendName, Decoder, LoadOptions } from '../backend/backend.ts';
import { DoesNotFit } from '../backend/memoryPlan.ts';
import type { SamplerSettings } from '../backend/sampler.ts';
import { catalogue } from '../catalogue/catalogue.ts';
import { bestWithin } from '../catalogue/choice.ts';
import { derivedDirectory } from '../catalogue/files.ts';
import { removeAbandoned, stateName, storedDigest } from '../catalogue/manifest.ts';
import { openStore } from '../catalogue/store.ts';
import { firstIssue, HearthError, invalidInput, throwIfAborted, unsupported } from '../errors.ts';
import type { Embedder } from '../index/repository/embeddings.ts';
import { PrefixCache } from '../kv/prefixCache.ts';
import { type Digest, Snapshots } from '../kv/snapshots.ts';
import { limits } from '../limits.ts';
import { type Checkpoint, openCheckpoint } from '../model/open.ts';
import { longestContextTokens, withContext } from '../model/spec/describe.ts';
import { type DecoderSpec, isRecurrent } from '../model/spec/spec.ts';
import { listWeights } from '../model/weights/specTensors.ts';
import { type PromptFormat, promptFormatOf } from '../prompt/formats/promptFormat.ts';
import type { CachePrecision, ModelCard } from '../protocol/models.ts';
import { Grammars } from '../sampling/grammar.ts';
import { prepareHealing } from '../sampling/logitsProcessor.ts';
import { generationConfig, samplingDefaults } from '../sampling/samplingDefaults.ts';
import type { RequestClass } from '../scheduler/job.ts';
import { engineScheduler, type Machine, type Scheduler } from '../scheduler/scheduler.ts';
import type { SharedDevice } from '../scheduler/sharing.ts';
import { Speculation } from '../scheduler/tokensPerStep.ts';
import { cutToContext, type EmbeddingModel, embedAll, embeddingTokens } from '../tasks/embed.ts';
import { runInSlices } from '../tasks/generate.ts';
import { editModelOf } from '../tasks/nextEdit.ts';
import { readOptionalJson } from '../tokenizer/huggingFaceTokenizer.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import {
  type BackendChoice,
  type Candidate,
  candidates,
  type LoadedDecoder,
  loadDecoder,
  mayTake,
} from './backends.ts';

interface LoadRequest {
  /** Catalogue id or path, as the user gave it. */
  readonly id: string;
  readonly name: string;
  readonly path: string;
  readonly backend: BackendChoice;
  readonly contextTokens?: number | undefined;
  /** Limits the context if `contextTokens` is absent. */
  readonly mostContextTokens?: number | undefined;
  readonly threads?: number | undefined;
  readonly cachePrecision?: CachePrecision | undefined;
  /** Root of the model store, for files derived from the weights. */
  readonly storeDirectory?: string | undefined;
  /**
   * KV-cache snapshots on disk: their folder, size limit and the digest that identifies the weights. Absent, or a limit
   * of 0: none are saved.
   */
  readonly snapshots?: { readonly directory: string; readonly limitBytes: number; readonly digest: Digest };
  readonly onProgress: (progress: { readonly doneBytes: number; readonly totalBytes: number }) => void;
  /** Called when a lost device was replaced. */
  readonly onChange?: (change: { readonly message: string; readonly card: ModelCard }) => void;
  /** The device that this model shares with other loaded models. */
  readonly device?: SharedDevice;
  /** See `LoadOptions`. */
  readonly besideOthers?: boolean;
  readonly signal: AbortSignal;
}

export interface LoadedModel {
  /** The current state: a lost device may have been replaced. */
  readonly card: ModelCard;
  readonly scheduler: Scheduler;
  /** Absent: the checkpoint has no vocabulary, so it can be benchmarked but not prompted. */
  readonly text?: { readonly tokenizer: Tokenizer; readonly format: PromptFormat; readonly grammars: Grammars };
  /** Set for an embedding model, which has no `text`. */
  readonly embedding?: EmbeddingModel;
  readonly sampling: SamplerSettings;
  /** Drops every idle sequence of the prefix cache; snapshots on disk stay. */
  clearCache(): Promise<void>;
  close(): Promise<void>;
}

export async function loadModel(request: LoadRequest): Promise<LoadedModel> {
  const checkpoint = await openCheckpoint(request.path);
  try {
    const sampling = samplingDefaults(checkpoint.sampling, await readGenerationConfig(request.path));
    let reading: Promise<Text> | undefined;
    const read = (): Promise<Text> => {
      reading ??= readText(checkpoint);
      return reading;
    };
    // A failure is reported below.
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

/** The tokenizer, and the prompt format unless it is an embedding model. */
interface Text {
  readonly tokenizer?: Tokenizer;
  readonly format?: PromptFormat;
}

async function readText({ readTokenizer, embedding }: Checkpoint): Promise<Text> {
  const tokenizer = await readTokenizer();
  if (!tokenizer) return {};
  if (embedding) return { tokenizer };
  prepareHealing(tokenizer);
  return { tokenizer, format: promptFormatOf(tokenizer) };
}

type Computed = Pick<Checkpoint, 'path' | 'spec' | 'weights' | 'file'>;

/** Opens only a decoder, for commands that give it token ids. */
export async function decoderFor(
  model: Computed,
  request: Omit<LoadRequest, 'id' | 'name' | 'path'> & Pick<LoadOptions, 'meanwhile'>,
  among?: readonly Candidate[],
): Promise<LoadedDecoder> {
  const spec = specFor(model, request);
  const { threads, cachePrecision, storeDirectory, onProgress, meanwhile, signal, besideOthers = false } = request;
  const digest =
    storeDirectory === undefined
      ? undefined
      : (storedDigest(model.path, storeDirectory) ?? (await stateName(model.path, storeDirectory)));
  // Before new weights are packed, so that there is room for them.
  if (storeDirectory !== undefined) await removeAbandoned(storeDirectory);
  const options: LoadOptions = {
    onProgress,
    signal,
    besideOthers,
    ...(request.contextTokens !== undefined && { contextTokens: request.contextTokens }),
    ...(meanwhile && { meanwhile }),
    ...(threads !== undefined && { threads }),
    ...(cachePrecision !== undefined && { cachePrecision }),
    ...(storeDirectory !== undefined && { cacheDirectory: derivedDirectory(storeDirectory) }),
    ...(digest !== undefined && { digest }),
  };
  try {
    return await loadDecoder(request.backend, spec, model.weights, options, among);
  } catch (error) {
    throw error instanceof DoesNotFit && error.contextTokens === 0 ? withSuggestion(error) : error;
  }
}

/** Suggests another model, because a shorter context wouldn't help. */
function withSuggestion(error: DoesNotFit): DoesNotFit {
  const entry = bestWithin(catalogue, error.usableBytes);
  const suggestion = entry ? ` ${entry.name} (${entry.id}) would fit.` : '';
  return new DoesNotFit(`${error.message}${suggestion}`, error.usableBytes, 0);
}

function specFor(
  { spec }: Computed,
  { contextTokens, mostContextTokens = spec.contextTokens }: Pick<LoadRequest, 'contextTokens' | 'mostContextTokens'>,
): DecoderSpec {
  if (contextTokens === undefined) {
    const most = Math.min(spec.contextTokens, mostContextTokens);
    return { ...withContext(spec, most), contextTokens: most };
  }
  const longest = longestContextTokens(spec);
  if (contextTokens > longest)
    throw invalidInput(`The model supports a context of at most ${longest} tokens; ${contextTokens} were requested.`);
  return withContext(spec, contextTokens);
}

interface Parts {
  readonly text: Text;
  readonly sampling: SamplerSettings;
  readonly request: LoadRequest;
}

function assemble(model: Checkpoint, loaded: LoadedDecoder, parts: Parts): LoadedModel {
  const { sampling, request } = parts;
  const { tokenizer, format } = parts.text;
  const { embedding } = model;
  const text = tokenizer && format && { tokenizer, format, grammars: new Grammars(tokenizer) };
  const cardOf = (now: LoadedDecoder) => modelCard(model, now, request, parts.text);
  let [card, machine] = [cardOf(loaded), machineOf(loaded.decoder, request)];
  const recover = recoveryOf(model, request, (recovered) => {
    [card, machine] = [cardOf(recovered), machineOf(recovered.decoder, request)];
    request.onChange?.({ message: recovered.notice, card });
    return machine;
  });
  const scheduler = engineScheduler(machine, { recover, device: request.device, tunesWhileIdle: true });
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
      // The file closes last, because a backend may read rows of a weight on demand.
      await model.file.close();
    },
  };
}

function machineOf(decoder: Decoder, { name, snapshots }: LoadRequest): Machine & { snapshots?: Snapshots } {
  const { headless } = decoder.spec;
  // Texts to embed share no prefix except the instruction of a query.
  const cache = new PrefixCache({ decoder, maxIdle: (owner) => (headless ? 1 : (idleSequences.get(owner) ?? 1)) });
  const isKept = !headless && snapshots !== undefined && snapshots.limitBytes > 0;
  return {
    decoder,
    cache,
    ...(isKept && { snapshots: new Snapshots({ ...snapshots, model: name, decoder, cache }) }),
    // No draft tokens for recurrent layers: a rejected draft would roll the state back to its last checkpoint.
    ...(!isRecurrent(decoder.spec) && { speculation: new Speculation() }),
  };
}

/** Reloads the model after a device loss; `take` puts the result into use. */
function recoveryOf(
  model: Checkpoint,
  request: LoadRequest,
  take: (recovered: Recovered) => Machine,
): (loss: HearthError, lost: Decoder) => Promise<Machine> {
  // The load request has already been answered, so nothing cancels this load.
  const again = { ...request, signal: new AbortController().signal, besideOthers: false, onProgress: () => {} };
  const recovery = new Recovery({
    choice: request.backend,
    load: (among) => decoderFor(model, again, among),
    now: () => performance.now(),
  });
  return async (loss, lost) => take(await recovery.another(lost, loss));
}

function modelCard(
  model: Checkpoint,
  { decoder, notes }: LoadedDecoder,
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
    ...(tokenizer && editModelOf(`${id} ${name}`, tokenizer) && { foreseesEdits: true }),
    chat: !embedding && tokenizer?.chatTemplate !== undefined,
    toolCalling: format?.toolCalling ?? false,
    ...(embedding && { embeddingDimensions: decoder.spec.hiddenSize }),
    notes: [...(model.notes ?? []), ...notes, ...decoder.notes],
  };
}

/** Most idle sequences by request class. */
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
  throw invalidInput(`${basename(directory)}/generation_config.json: ${firstIssue(parsed.error.issues)}.`);
}

// After a device loss, the model is reloaded once on the same device; after another loss soon, on the next backend.

/** Two losses within this time mean a faulty device, not a driver reset or a sleeping laptop. */
const soonMs = 10 * 60_000;

interface RecoveryOptions {
  readonly choice: BackendChoice;
  readonly load: (among: readonly Candidate[]) => Promise<LoadedDecoder>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly candidates?: readonly Candidate[];
}

interface Recovered extends LoadedDecoder {
  /** The message for the user. */
  readonly notice: string;
}

export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #givenUp = new Set<BackendName>();
  #lastLossMs = Number.NEGATIVE_INFINITY;

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  /** @throws HearthError `device-lost` if a backend chosen by name is lost again; and every error of loading. */
  async another(lost: Decoder, loss: HearthError): Promise<Recovered> {
    const { choice, now, load } = this.#options;
    const lossMs = now();
    if (lossMs - this.#lastLossMs < soonMs) this.#givenUp.add(lost.backend);
    this.#lastLossMs = lossMs;
    await lost.dispose();
    const among = (this.#options.candidates ?? candidates).filter(({ name }) => !this.#givenUp.has(name));
    if (!among.some(({ name }) => mayTake(choice, name))) {
      throw new HearthError(
        'device-lost',
        `${loss.message} This is the second time in ten minutes: ${['cpu', 'ggml', 'onnx'].includes(choice) ? 'restart the engine.' : "load the model again, or choose the CPU (backend 'cpu')."}`,
        { cause: loss },
      );
    }
    const loaded = await load(among);
    return { ...loaded, notice: noticeOf(loss, lost, loaded.decoder) };
  }
}

function noticeOf(loss: HearthError, before: Decoder, after: Decoder): string {
  if (after.backend === before.backend)
    return `${loss.message} The GPU was set up again, and answers continue where they stopped.`;
  return `${loss.message} Answers continue where they stopped, computed by '${after.backend}', which is slower. Load the model again to try the GPU once more.`;
}

// The embedding model of the index. It runs in the indexer process, beside the engine's model.

/** The largest chunk has about 1000 tokens. */
const contextTokens = 1024;

interface EmbedderOptions {
  readonly backend: BackendChoice;
  readonly threads?: number | undefined;
  readonly storeDirectory?: string;
}

/**
 * @throws HearthError `not-found` for a model that is not on this machine, `unsupported` for one that isn't an
 * embedding model.
 */
export async function openEmbedder(
  model: string,
  signal: AbortSignal,
  { backend, threads, storeDirectory }: EmbedderOptions,
): Promise<Embedder> {
  const store = openStore(storeDirectory === undefined ? {} : { directory: storeDirectory });
  const { path, name } = await store.locate(model);
  const request = { id: model, name, path, backend, contextTokens, threads, storeDirectory: store.directory, signal };
  const loaded = await loadModel({ ...request, onProgress: () => {} });
  const { embedding } = loaded;
  if (!embedding) {
    await loaded.close();
    throw unsupported(`${name} is not an embedding model; choose one, such as qwen3-embedding-0.6b.`);
  }
  return {
    dimensions: embedding.dimensions,
    document: (text, signal) => vectorOf(embedding, text, { requestClass: 'warm-up', signal }),
    question: (text) => vectorOf(embedding, embedding.queryPrefix + text, { requestClass: 'chat' }),
    close: () => loaded.close(),
  };
}

async function vectorOf(
  model: EmbeddingModel,
  text: string,
  request: { readonly requestClass: RequestClass; readonly signal?: AbortSignal },
): Promise<Float32Array> {
  const tokens = cutToContext(
    await runInSlices(embeddingTokens(model.tokenizer, text), request),
    model.scheduler.decoder.contextTokens,
  );
  const [vector] = await embedAll(model, [tokens], request);
  if (!vector) throw new Error('The model returned no vector for a text.');
  return vector;
}
