/**
 * The split backend: a model that is larger than a card, on card and CPU or on several cards. Start reading at plan.ts, which
 * decides, and decoder.ts, which computes.
 */
import { HearthError } from '../../errors.ts';
import type { Backend, Decoder, LoadOptions } from '../backend.ts';
import type { WebgpuOptions } from '../webgpu/index.ts';
import { SplitDecoder, stageOf } from './decoder.ts';
import type { LayerRange } from './plan.ts';
import { type Card, findCards, planSplit, type StagePlan } from './plan.ts';

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

/** Each stage keeps files of its own, and is an equal part of the progress. */
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
      let failure: unknown;
      for (const share of memoryShares) {
        const available = cards.map((card) => withShare(card, share));
        const planOptions = { precision, asked: options.contextTokens, gpu };
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

const withShare = (card: Card, share: number): Card => ({
  ...card,
  memory: { ...card.memory, freeBytes: card.memory.freeBytes * share },
});
