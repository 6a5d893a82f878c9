/**
 * The split backend: runs a model that is larger than a card on card and CPU, or on several cards. `planSplit` decides,
 * decoder.ts computes.
 */
import { availableParallelism } from 'node:os';
import { HearthError, unsupported } from '../../errors.ts';
import { describeModel, routedExperts } from '../../model/spec/describe.ts';
import type { DecoderSpec } from '../../model/spec/spec.ts';
import type { DecoderWeights } from '../../model/weights/weights.ts';
import type { CachePrecision } from '../../protocol/models.ts';
import type { Backend, Decoder, LoadOptions } from '../backend.ts';
import { canSendExperts, computesExperts, expertBytes } from '../experts.ts';
import {
  DoesNotFit,
  hostMemory,
  type MemoryPool,
  type ModelNeeds,
  planMemory,
  usualContextTokens,
} from '../memoryPlan.ts';
import { onnxBackend } from '../onnx/index.ts';
import { packedBytesOf } from '../onnx/weightsFile.ts';
import { hostNeeds } from '../processor/decoder.ts';
import { type Device as Computing, fastestOf, type SpeedSizes } from '../speed.ts';
import { residentBytes } from '../webgpu/decoder/outsideExperts.ts';
import type { GpuCapabilities, GpuOptions } from '../webgpu/device/adapter.ts';
import { measureCopyBandwidth } from '../webgpu/device/bandwidth.ts';
import { Gpu } from '../webgpu/device/gpu.ts';
import { graphicsCards } from '../webgpu/device/graphicsCards.ts';
import { createWebgpuBackend, type WebgpuOptions } from '../webgpu/index.ts';
import { gpuStageNeeds, poolOf } from '../webgpu/needs.ts';
import { SplitDecoder, stageOf } from './decoder.ts';

/** Loads the layers stage by stage as planned. */
export function createStagedBackend(plan: readonly StagePlan[], notes: readonly string[] = []): Backend {
  return {
    name: 'split',
    async load(spec, weights, options) {
      const stages: Decoder[] = [];
      try {
        for (const [index, { backend, range }] of rangesOf(plan).entries()) {
          const stage = stageOf(spec, weights, range);
          stages.push(await backend.load(stage.spec, stage.weights, stageOptions(options, range, index, plan.length)));
        }
        return new SplitDecoder({ spec, embedding: weights.embedding, stages, notes });
      } catch (error) {
        await Promise.all(stages.map((stage) => stage.dispose()));
        throw error;
      }
    },
  };
}

function rangesOf(plan: readonly StagePlan[]): { readonly backend: Backend; readonly range: LayerRange }[] {
  let first = 0;
  return plan.map(({ backend, layers }) => {
    const range = { first, end: first + layers };
    first = range.end;
    return { backend, range };
  });
}

/** Each stage has its own files and an equal part of the progress. */
function stageOptions(options: LoadOptions, { first, end }: LayerRange, index: number, count: number): LoadOptions {
  const { digest, meanwhile, onProgress, ...rest } = options;
  return {
    ...rest,
    ...(digest !== undefined && { digest: `${digest}.layers${first}to${end}` }),
    ...(meanwhile && index === 0 && { meanwhile }),
    ...(onProgress && {
      onProgress: ({ doneBytes, totalBytes }) =>
        onProgress({ doneBytes: index * totalBytes + doneBytes, totalBytes: count * totalBytes }),
    }),
  };
}

/** Shares of the cards' memory to plan with: a driver may refuse what it reports as free. */
const memoryShares = [1, 0.85, 0.7];

/** Plans by the memory that is available now. */
export function createSplitBackend(gpu: WebgpuOptions = {}): Backend {
  return {
    name: 'split',
    async load(spec, weights, options) {
      const precision = options.cachePrecision ?? gpu.cachePrecision ?? 'f16';
      const cards = await findCards(gpu.gpu);
      const noGgml = await missingGgml();
      let failure: unknown;
      for (const share of memoryShares) {
        const available = cards.map((card) => withShare(card, share));
        const cores = availableParallelism();
        const planOptions = { precision, asked: options.contextTokens, gpu, cores, ...(noGgml && { noGgml }) };
        const { stages, contextTokens, note } = await planSplit({ spec, weights }, available, planOptions);
        const shorter = `The context is ${contextTokens} of ${spec.contextTokens} tokens: as many as fit beside these layers.`;
        const notes = [note, ...(contextTokens < (planOptions.asked ?? spec.contextTokens) ? [shorter] : [])];
        try {
          return await createStagedBackend(stages, notes).load(spec, weights, { ...options, contextTokens });
        } catch (error) {
          if (!(error instanceof HearthError) || error.code !== 'out-of-memory') throw error;
          failure = error;
        }
      }
      throw failure;
    },
  };
}

/** Why ggml can't compute here. On demand: it loads a native library. */
async function missingGgml(): Promise<string | undefined> {
  try {
    (await import('../ggml/library.ts')).chooseLibraries();
    return undefined;
  } catch (error) {
    return `The CPU can't compute them: ${error instanceof Error ? error.message : String(error)}`;
  }
}

const withShare = (card: Card, share: number): Card => ({
  ...card,
  memory: { ...card.memory, freeBytes: card.memory.freeBytes * share },
});

// Plans a model that is larger than a card by the memory that is available now: layers on card and CPU, or experts
// outside the card.

/** Consecutive layers on a backend. */
export interface StagePlan {
  readonly backend: Backend;
  readonly layers: number;
}

interface SplitPlan {
  /** In order of computation. */
  readonly stages: readonly StagePlan[];
  readonly contextTokens: number;
  /** Placement of the layers, for the model card. */
  readonly note: string;
  /** The devices that compute, for an estimate of the speed. */
  readonly computing: Computing;
}

interface PlanOptions {
  readonly precision: CachePrecision;
  /** The requested context, if any. */
  readonly asked: number | undefined;
  readonly gpu: WebgpuOptions;
  readonly cores: number;
  /** Why ggml can't compute experts or layers in the file's quantisation; absent if it can. */
  readonly noGgml?: string;
}

interface SplitModel {
  readonly spec: DecoderSpec;
  readonly weights: DecoderWeights;
}

export interface Card {
  readonly capabilities: Pick<GpuCapabilities, 'subgroupMatrix' | 'maxBindingBytes'>;
  readonly memory: NonNullable<GpuCapabilities['memory']>;
  /** Part of the card's name. Absent: the card that the system prefers. */
  readonly adapter?: string;
}

/**
 * Places all layers on the cards; or some on the CPU; or all on the fastest card, with the experts of some in the
 * machine's memory. With one card, the CPU computes either these experts or whole layers, whichever is estimated to be
 * faster. If the CPU can't compute experts alone and has too little memory for whole layers, the experts are sent to
 * the card.
 * @param cards the fastest first
 * @throws DoesNotFit
 */
export async function planSplit(
  model: SplitModel,
  cards: readonly Card[],
  options: PlanOptions,
  memory = hostMemory(),
): Promise<SplitPlan> {
  const { layers } = model.weights;
  const [card] = cards;
  const hasExperts = expertBytes(layers) > 0 && canSendExperts(layers);
  const isComputed = hasExperts && options.noGgml === undefined && computesExperts(layers);
  const byLayers = await attempt(planLayers(model, cards, options, memory));
  const usesHost = byLayers instanceof DoesNotFit || byLayers.computing.kind === 'split';
  if (!card || !hasExperts || !usesHost) return planOf(byLayers);
  if (isComputed && cards.length === 1) {
    const byExperts = await attempt(planExperts(model, card, { ...options, computed: true }, memory));
    const plans = [byLayers, byExperts].flatMap((plan) => (plan instanceof DoesNotFit ? [] : [plan]));
    const places = plans.map(({ computing }) => computing);
    const faster = fastestOf(sizesOf(model), places);
    const plan = plans.find(({ computing }) => computing === faster);
    if (plan) return plan;
  }
  if (!(byLayers instanceof DoesNotFit)) return byLayers;
  return planExperts(model, card, { ...options, computed: isComputed }, memory);
}

function sizesOf(model: SplitModel): SpeedSizes {
  const { activeWeightBytes, activeParameters, groups } = describeModel(model);
  return { bytesPerToken: activeWeightBytes, activeParameters, experts: routedExperts(model.spec, groups) };
}

const attempt = (planning: Promise<SplitPlan>): Promise<SplitPlan | DoesNotFit> =>
  planning.catch((error: unknown) => {
    if (error instanceof DoesNotFit) return error;
    throw error;
  });

function planOf(plan: SplitPlan | DoesNotFit): SplitPlan {
  if (plan instanceof DoesNotFit) throw plan;
  return plan;
}

interface Device extends Place {
  readonly backend: Backend;
}

async function planLayers(
  { spec, weights }: SplitModel,
  cards: readonly Card[],
  options: PlanOptions,
  memory: Place['pool'],
): Promise<SplitPlan> {
  const devices = cards.map(async (card): Promise<Device> => {
    const needsOf = await gpuStageNeeds(card.capabilities, spec, options);
    const needs: Place['needs'] = (range) => {
      const stage = stageOf(spec, weights, range);
      return needsOf(stage.spec, describeModel(stage).weightBytes);
    };
    return { pool: poolOf(card.memory), needs, backend: backendOf(card, options) };
  });
  const ggml = await ggmlFor({ spec, weights }, options);
  const host: Device = {
    backend: ggml?.ggmlBackend ?? onnxBackend,
    pool: memory,
    needs: (range) => {
      const stage = stageOf(spec, weights, range);
      const ggmlBytes = ggml?.ggmlBytesOf(stage.spec, stage.weights);
      return ggmlBytes === undefined
        ? hostNeeds(stage.spec, packedBytesOf(stage.weights), 'onnx', options.precision)
        : hostNeeds(stage.spec, ggmlBytes, 'ggml', options.precision);
    },
  };
  const placement = placeLayers(spec.layers.length, { host, cards: await Promise.all(devices) }, options.asked);
  const onHost = placement.stages.reduce(
    (sum, { place, range }) => sum + (place === host ? range.end - range.first : 0),
    0,
  );
  return {
    stages: placement.stages.map(({ place, range }) => ({ backend: place.backend, layers: range.end - range.first })),
    contextTokens: placement.contextTokens,
    note: layersNote(placement, host),
    computing: {
      name: cards[0]?.memory.name ?? '',
      cores: options.cores,
      ...(onHost > 0
        ? {
            kind: 'split',
            cardShare: 1 - onHost / spec.layers.length,
            packing: ggml ? 1 : packingOf({ spec, weights }),
          }
        : { kind: 'card' }),
    },
  };
}

/** ggml for whole layers, where it computes such a model alone as well. On demand: it loads a native library. */
async function ggmlFor({ spec, weights }: SplitModel, { noGgml }: PlanOptions) {
  if (noGgml !== undefined) return undefined;
  const ggml = await import('../ggml/index.ts');
  return ggml.ggmlBytesOf(spec, weights) === undefined ? undefined : ggml;
}

/** Bytes that ONNX Runtime keeps for one of the file's. */
const packingOf = (model: SplitModel): number => packedBytesOf(model.weights) / describeModel(model).weightBytes;

const backendOf = ({ adapter }: Card, { gpu }: PlanOptions, outside?: WebgpuOptions['outside']): Backend =>
  createWebgpuBackend({
    ...gpu,
    ...(outside && { outside }),
    gpu: { ...gpu.gpu, ...(adapter !== undefined && { adapter }) },
  });

/** The fastest card first. */
function layersNote({ stages }: Placement<Device>, host: Device): string {
  const all = stages.reduce((sum, { range }) => sum + range.end - range.first, 0);
  const [first, ...others] = stages.toReversed().map(({ place, range }) => {
    const where = place === host ? 'the CPU' : `the GPU (${place.pool.name})`;
    return { count: range.end - range.first, where };
  });
  if (others.length === 0) return `All ${all} layers run on ${first?.where}. Embeddings are read from the file.`;
  const rest = others.map(({ count, where }) => `, ${count} on ${where}`).join('');
  return `${first?.count} of ${all} layers run on ${first?.where}${rest}: the model is larger than one GPU's memory.`;
}

/** Memory for buffers of experts in transfer, and for the runtime. */
const sendingBytes = 400e6;

async function planExperts(
  { spec, weights }: SplitModel,
  card: Card,
  options: PlanOptions & { readonly computed: boolean },
  memory: Place['pool'],
): Promise<SplitPlan> {
  const layers = spec.layers.length;
  const whole = stageOf(spec, weights, { first: 0, end: layers });
  const needsOf = await gpuStageNeeds(card.capabilities, spec, options);
  const onCard: Place = {
    pool: poolOf(card.memory),
    needs: ({ first }) => needsOf(whole.spec, residentBytes(whole, first)),
  };
  const inMemory: Place = {
    pool: memory,
    needs: ({ end }): ModelNeeds => ({
      weightBytes: expertBytes(weights.layers.slice(0, end)),
      scratchBytes: sendingBytes,
      cacheBytes: () => 0,
      longestTokens: spec.contextTokens,
    }),
  };
  const { stages, contextTokens } = placeLayers(layers, { host: inMemory, cards: [onCard] }, options.asked);
  const outside = stages.find(({ place }) => place === inMemory)?.range.end ?? 0;
  const { computed, noGgml } = options;
  const where = { layers: outside, ...(computed && { computed: 'as stored' as const }) };
  const which = `The experts of ${outside} of ${layers} layers stay in the machine's memory`;
  const use = computed
    ? `: the CPU computes them for few tokens at once; for many they are sent to the GPU (${card.memory.name}), which computes all else.`
    : ` and are sent to the GPU (${card.memory.name}) as tokens choose them.${noGgml ? ` ${noGgml}` : ''}`;
  return {
    stages: [{ backend: backendOf(card, options, where), layers }],
    contextTokens,
    note: which + use,
    computing: { kind: 'split', name: card.memory.name, cores: options.cores, expertsOutside: outside },
  };
}

/**
 * The cards with known memory of their own, the fastest first. Of cards with the same name only one can be opened.
 * @throws HearthError `unavailable`, `unsupported`
 */
export async function findCards(options: GpuOptions = {}): Promise<Card[]> {
  const first = await openCard(options);
  const names = new Set((await graphicsCards()).flatMap(({ name, unified }) => (unified ? [] : [name])));
  names.delete(first.memory.name);
  const cards = [first];
  for (const adapter of names) {
    const card = await openCard({ ...options, adapter }).catch((error: unknown) => {
      if (error instanceof HearthError) return undefined;
      throw error;
    });
    if (card && cards.every(({ memory }) => memory.name !== card.memory.name)) cards.push({ ...card, adapter });
  }
  return cards.sort((a, b) => b.copyBytesPerSecond - a.copyBytesPerSecond);
}

async function openCard(options: GpuOptions): Promise<Card & { readonly copyBytesPerSecond: number }> {
  const gpu = await Gpu.open(options);
  try {
    const { capabilities } = gpu;
    const { memory, software } = capabilities;
    if (!memory) throw unsupported('The memory of this GPU is not known.');
    if (memory.unified && !software) throw unsupported(`${memory.name} shares the memory of the processor.`);
    return { capabilities, memory, copyBytesPerSecond: (await measureCopyBandwidth(gpu)) ?? 0 };
  } finally {
    gpu.dispose();
  }
}

// Decides which layers of a model are on which device, for the engine that loads it and for tables of machines. Nothing
// else decides this, and nothing is measured here. A layer's part of the KV cache is on the same device.

/** Layers `[first, end)`. */
export interface LayerRange {
  readonly first: number;
  readonly end: number;
}

/** A device that can hold layers. */
interface Place {
  readonly pool: MemoryPool;
  /** Memory needs of a stage with these layers; the stage with the last layer also has the head. */
  readonly needs: (range: LayerRange) => ModelNeeds;
}

/** A device and its layers. */
interface PlacedLayers<Device extends Place> {
  readonly place: Device;
  readonly range: LayerRange;
}

interface Placement<Device extends Place> {
  /** In order of computation: the host, then cards, the fastest last, because it has the head. */
  readonly stages: readonly PlacedLayers<Device>[];
  readonly contextTokens: number;
}

/**
 * Each card takes as many of the last layers as fit beside a usual context, the fastest card first; the host takes the
 * rest. The remaining memory goes to the context.
 * @param cards the fastest first
 * @param asked the requested context, if any
 * @throws DoesNotFit where the host has no memory for the rest, or no card for a layer.
 */
function placeLayers<Device extends Place>(
  layers: number,
  { host, cards }: { readonly host: Device; readonly cards: readonly Device[] },
  asked?: number,
): Placement<Device> {
  const longest = host.needs({ first: 0, end: layers }).longestTokens;
  const tokens = asked ?? Math.min(usualContextTokens, longest);
  const stages: PlacedLayers<Device>[] = [];
  let left = layers;
  for (const place of cards) {
    const first = firstFitting(place, left, tokens);
    if (first === left) continue;
    stages.unshift({ place, range: { first, end: left } });
    left = first;
  }
  if (stages.length === 0) throw refusal(cards, layers);
  if (left > 0) stages.unshift({ place: host, range: { first: 0, end: left } });
  const contexts = stages.map(({ place, range }) => planMemory(place.needs(range), place.pool, asked).contextTokens);
  return { stages, contextTokens: asked ?? Math.min(...contexts) };
}

/** The first of the layers up to `end` that fit together. */
function firstFitting(place: Place, end: number, tokens: number): number {
  const fits = (first: number): boolean => {
    try {
      planMemory(place.needs({ first, end }), place.pool, tokens);
      return true;
    } catch (error) {
      if (error instanceof DoesNotFit) return false;
      throw error;
    }
  };
  let [least, most] = [0, end];
  while (least < most) {
    const middle = Math.floor((least + most) / 2);
    if (fits(middle)) most = middle;
    else least = middle + 1;
  }
  return most;
}

function refusal(cards: readonly Place[], layers: number): DoesNotFit {
  const names = cards.map(({ pool }) => pool.name).join(', ');
  return new DoesNotFit(`Not one of ${layers} layers fits the memory of ${names}. Nothing was loaded.`, 0, 0);
}
