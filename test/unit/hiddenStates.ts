/** An embedding model on any backend gives the hidden states that Hugging Face transformers computes from the same weights. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Decoder } from '../../engine/backend/backend.ts';
import type { Model } from '../../engine/model/open.ts';
import { openModel } from '../../engine/model/open.ts';
import { makeEmbeddingModel } from './embeddingModel.ts';
import { float32Bounds, largestDifference, readGolden, standardDeviation } from './goldens.ts';
import { fixtureFile } from './shared.ts';

export function checkHiddenStates(backend: Backend): void {
  describe(`an embedding model on ${backend.name}`, () => {
    let model: Model;
    let decoder: Decoder;
    let ids: readonly number[];
    /** After the final norm. `[tokens, hidden]` */
    let states: Float32Array;
    let remove: () => Promise<void>;

    beforeAll(async () => {
      const made = await makeEmbeddingModel({ bareNames: true });
      remove = made.remove;
      model = await openModel(made.path);
      decoder = await backend.load(model.spec, model.weights, { contextTokens: 256 });
      const golden = await readGolden(fixtureFile('goldens/qwen3/golden.safetensors'));
      ids = golden.ids;
      states = golden.hidden.slice(-ids.length * model.spec.hiddenSize);
    });
    afterAll(async () => {
      await decoder?.dispose();
      await model?.file.close();
      await remove?.();
    });

    const expectStates = (rows: Float32Array | undefined, first: number, count: number) => {
      const { hiddenSize } = decoder.spec;
      const wanted = states.subarray(first * hiddenSize, (first + count) * hiddenSize);
      expect(rows).toHaveLength(wanted.length);
      const deviation = largestDifference(rows ?? new Float32Array(), wanted) / standardDeviation(states);
      expect(deviation).toBeLessThan(float32Bounds.maxDeviation);
    };

    it('gives the hidden state of every token', async () => {
      const sequence = decoder.createSequence();
      for (let first = 0; first < ids.length; first += 100) {
        const [rows] = await decoder.run([{ sequence, tokens: ids.slice(first, first + 100), logits: 'all' }]);
        expectStates(rows, first, 100);
      }
      sequence.dispose();
    });

    it('gives the hidden state of the last token only, if earlier chunks request none', async () => {
      const sequence = decoder.createSequence();
      let at = 0;
      for (const [count, logits] of [
        [60, 'none'],
        [40, 'last'],
        [3, 'last'],
        [1, 'last'],
        [96, 'last'],
      ] as const) {
        const [rows] = await decoder.run([{ sequence, tokens: ids.slice(at, at + count), logits }]);
        at += count;
        if (logits === 'none') expect(rows).toHaveLength(0);
        else expectStates(rows, at - 1, 1);
      }
      sequence.dispose();
    });
  });
}
