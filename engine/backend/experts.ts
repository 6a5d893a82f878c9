/** Routed experts apart from their layers: what the CPU or a card does with them, from the weights' types alone. Nothing is loaded here. */
import type { ExpertsWeights, LayerWeights, Weight } from '../model/weights/weights.ts';
import { weightBytesOf } from '../model/weights/weightViews.ts';
import { ggmlTypes } from './ggml/types.ts';

export type ExpertRole = 'gate' | 'up' | 'down';
export const expertRoles: readonly ExpertRole[] = ['gate', 'up', 'down'];

export const expertsOf = ({ feedForward }: LayerWeights): ExpertsWeights | undefined =>
  feedForward.kind === 'experts' ? feedForward : undefined;

const matricesOf = (layers: readonly LayerWeights[]) =>
  layers
    .flatMap((layer) => expertsOf(layer) ?? [])
    .flatMap((experts) => expertRoles.map((role) => experts[role].weight));

/** Bytes of the experts' matrices of some layers. */
export const expertBytes = (layers: readonly LayerWeights[]): number =>
  matricesOf(layers).reduce((sum, weight) => sum + weightBytesOf(weight), 0);

/** Whether a matrix's experts can be sent to a card: they are whole 32-bit words, without separate block scales. */
export const isSendable = ({ blockScale, shape }: Weight): boolean => !blockScale && (shape.at(-2) ?? 0) % 4 === 0;

export const canSendExperts = (layers: readonly LayerWeights[]): boolean => matricesOf(layers).every(isSendable);

/** Whether ggml can multiply by the layers' experts in the types of the file. */
export const computesExperts = (layers: readonly LayerWeights[]): boolean =>
  matricesOf(layers).every(({ type, blockScale }) => ggmlTypes[type] !== undefined && !blockScale);

/** Types of the layers' experts whose matmuls quantise activations on the CPU. */
export const roundedTypes = (layers: readonly LayerWeights[]): string[] =>
  [...new Set(matricesOf(layers).map(({ type }) => type))].filter((type) => type !== 'F32').sort();

/**
 * Tokens that a core multiplies with an expert's weights, about, in the time in which a card is sent them: at 8 GB/s 15 billion weights of
 * four bits a second, of which a core multiplies some 30 billion (docs/proof.md).
 */
const tokensPerCore = 2;

/** Whether `threads` cores compute experts that so many tokens each have chosen, on average, sooner than a card is sent them. */
export const areSoonerComputed = (tokensPerExpert: number, threads: number): boolean =>
  tokensPerExpert <= tokensPerCore * threads;
