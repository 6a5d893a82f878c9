/** Describes a model given by catalogue id (downloaded or not), file, folder or config.json. */
import { basename, dirname, join } from 'node:path';
import { HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import { openModel, readConfig, specFromConfig } from '../model/open.ts';
import { cacheBytes, describeModel, type Inspection, inspectSpec, type WeightGroup } from '../model/spec/describe.ts';
import { cacheBytesPerValue, type DecoderSpec } from '../model/spec/spec.ts';
import { plannedGroups, type Storage, storageOfConfig, storages } from '../model/weights/specTensors.ts';
import { compileChatTemplate } from '../prompt/formats/chatTemplate.ts';
import { promptFormatOf } from '../prompt/formats/promptFormat.ts';
import { type ThinkingMode, thinkingModes } from '../prompt/thinking.ts';
import type { CachePrecision } from '../protocol/models.ts';
import { readOptionalText } from '../tokenizer/huggingFaceTokenizer.ts';
import { type Architecture, architectures, specOfArchitecture } from './architectures.ts';
import { type CatalogueEntry, findEntry } from './catalogue.ts';
import { type Hardware, longestContext, memoryForModelBytes } from './fit.ts';
import type { Store } from './store.ts';

export interface InspectedModel extends Inspection {
  /** The argument as the user gave it. */
  readonly model: string;
  readonly name: string;
  readonly state: 'present' | 'absent';
  /** Source of weight types and sizes: the file, the publisher's config, or an assumption. */
  readonly weightsKnownFrom: 'file' | 'publication' | 'assumption';
  /** The publisher's name for the quantisation. */
  readonly quantisation?: string;
  /** Absent if not stated. */
  readonly licence?: string;
  /** Set for catalogue models, downloaded or not. */
  readonly download?: { readonly bytes: number; readonly estimated: boolean };
  /** Absent if there is no chat template. */
  readonly thinkingModes?: readonly ThinkingMode[];
  readonly thisMachine: {
    /** Available for weights and KV cache. */
    readonly memoryBytes: number;
    /** Longest context that fits; 0 if the weights don't fit. */
    readonly contextTokens: number;
  };
}

interface InspectOptions {
  /** Context lengths to compute memory for. */
  readonly contexts: readonly number[];
  /** KV-cache precision; default f16. */
  readonly cachePrecision?: CachePrecision;
  readonly hardware: Hardware;
}

/** Facts that don't follow from the spec. */
interface Known extends Pick<InspectedModel, 'name' | 'state' | 'weightsKnownFrom' | 'quantisation' | 'thinkingModes'> {
  readonly spec: DecoderSpec;
  readonly groups: readonly WeightGroup[];
  readonly licence?: string;
}

/** @throws HearthError `not-found`, `invalid-input` or `unsupported`, naming the model, key or tensor. */
export async function inspectModel(store: Store, model: string, options: InspectOptions): Promise<InspectedModel> {
  const entry = findEntry(model);
  const { spec, groups, ...known } = entry ? await ofEntry(store, entry) : await ofPath(await store.resolve(model));
  const { contexts, cachePrecision = 'f16' } = options;
  const inspection = inspectSpec(spec, groups, contexts, cachePrecision);
  const computed = { family: spec.family, quantisation: known.quantisation ?? mainType(groups) };
  const memoryBytes = memoryForModelBytes(computed, options.hardware);
  const { longestContextTokens, weights } = inspection;
  const perValue = cacheBytesPerValue(spec, cachePrecision);
  const needs = {
    weightBytes: weights.bytes,
    cacheBytes: (tokens: number) => cacheBytes(spec, tokens, perValue),
    longestTokens: longestContextTokens,
  };
  const contextTokens = longestContext(needs, computed, options.hardware);
  return {
    model,
    ...known,
    ...(entry && { licence: entry.licence.name }),
    ...(entry && { download: { bytes: entry.downloadBytes, estimated: entry.downloadEstimated } }),
    ...inspection,
    // The catalogue's count excludes a tied head that the file stores separately.
    ...(entry && { parameters: entry.parameters }),
    thisMachine: { memoryBytes, contextTokens },
  };
}

/** The type of most of the layers' weights. */
function mainType(groups: readonly WeightGroup[]): string {
  const layers = groups.filter(({ role }) => role !== 'embedding' && role !== 'head');
  return layers.toSorted((a, b) => b.bytes - a.bytes)[0]?.type ?? '';
}

async function ofEntry(store: Store, entry: CatalogueEntry): Promise<Known> {
  const { name, quantisation } = entry;
  const { path } = await store.get(entry.id);
  if (path !== undefined) return { ...(await ofFile(path)), name, quantisation };
  const architecture = knownArchitecture(entry);
  const spec = specOfArchitecture(architecture);
  return {
    name,
    state: 'absent',
    spec,
    groups: plannedGroups(spec, knownStorage(entry)),
    weightsKnownFrom: 'publication',
    quantisation,
    thinkingModes: architecture.thinkingModes,
  };
}

function knownArchitecture({ id }: CatalogueEntry): Architecture {
  const architecture = architectures[id];
  // A test checks that every entry has an architecture.
  if (!architecture) throw new Error(`no architecture for ${id}`);
  return architecture;
}

export function knownStorage({ id, quantisation }: CatalogueEntry): Storage {
  const storage = storages.find((known) => known === quantisation);
  if (!storage) throw new Error(`no storage ${quantisation} for ${id}`);
  return storage;
}

async function ofPath(path: string): Promise<Known> {
  return path.endsWith('.json') ? ofConfig(path) : ofFile(path);
}

async function ofFile(path: string): Promise<Known> {
  const model = await openModel(path);
  try {
    const { spec, tokenizer, licence } = model;
    return {
      name: basename(path),
      state: 'present',
      spec,
      groups: describeModel(model).groups,
      weightsKnownFrom: 'file',
      ...(licence !== undefined && { licence }),
      ...(tokenizer?.chatTemplate !== undefined && { thinkingModes: promptFormatOf(tokenizer).thinkingModes }),
    };
  } finally {
    await model.file.close();
  }
}

async function ofConfig(path: string): Promise<Known> {
  const config = await readConfig(path);
  const spec = specFromConfig(config);
  const { storage, fp8Block, assumed } = storageOfConfig(config);
  const modes = await thinkingModesBeside(path);
  return {
    // The file is always named config.json, so the folder names the model.
    name: basename(dirname(path)) || path,
    state: 'absent',
    spec,
    groups: plannedGroups(spec, storage, fp8Block),
    weightsKnownFrom: assumed ? 'assumption' : 'publication',
    quantisation: storage,
    ...(modes && { thinkingModes: modes }),
  };
}

async function thinkingModesBeside(path: string): Promise<ThinkingMode[] | undefined> {
  const source = await readOptionalText(join(dirname(path), 'chat_template.jinja'), limits.text.tokenizerConfigBytes);
  if (source === undefined) return undefined;
  try {
    return thinkingModes(compileChatTemplate(source), { templateTokens: { begin: '', end: '' } });
  } catch (error) {
    // An invalid template must not prevent inspecting the rest of the model.
    if (error instanceof HearthError) return undefined;
    throw error;
  }
}
