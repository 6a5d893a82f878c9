/** Every backend's contract for sequences that are stored and restored (`Decoder.serializer`). */
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Backend, Decoder } from '../../engine/backend/backend.ts';
import type { Sequence, SequenceShape } from '../../engine/kv/blockCache.ts';
import type { Model } from '../../engine/model/open.ts';
import { openModel } from '../../engine/model/open.ts';
import { isRecurrent } from '../../engine/model/spec/spec.ts';
import type { GoldenCase } from './goldens.ts';

async function* given(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  // Who restores them takes their memory over.
  for (const piece of pieces) yield piece.slice();
}

/** @param tokens of the longest sequence; beyond a window and its way back, layers with a window let go of some. */
export function checkStored(backend: Backend, { name, path }: GoldenCase, tokens: number): void {
  describe(`stored sequences of ${name} on ${backend.name}`, () => {
    let model: Model;
    let first: Decoder;
    let second: Decoder;

    beforeAll(async () => {
      model = await openModel(path);
      const load = () => backend.load(model.spec, model.weights, { contextTokens: tokens + 64 });
      [first, second] = [await load(), await load()];
    });
    afterAll(async () => {
      await Promise.all([first?.dispose(), second?.dispose()]);
      await model?.file.close();
    });

    const idAt = (position: number): number => (position * 7 + (position >> 3)) % model.spec.vocabularySize;
    const grow = async (decoder: Decoder, sequence: Sequence, by: number): Promise<Float32Array> => {
      let last: Float32Array = new Float32Array();
      for (const end = sequence.length + by; sequence.length < end; ) {
        const count = Math.min(decoder.maxTokensPerRun, 96, end - sequence.length);
        const ids = Array.from({ length: count }, (_, i) => idAt(sequence.length + i));
        last = (await decoder.run([{ sequence, tokens: ids, logits: 'last' }]))[0] ?? last;
      }
      return last;
    };
    const saved = async (decoder: Decoder, sequence: Sequence) => {
      const pieces: Uint8Array[] = [];
      for await (const piece of decoder.serializer.save(sequence)) pieces.push(piece.slice());
      return { shape: decoder.serializer.shapeOf(sequence), pieces };
    };

    // Not of one token: ONNX Runtime has a kernel of its own for a cache with room for one, which restoring rounds up.
    for (const length of [2, 33, tokens]) {
      it(`continue bit-identically after ${length} tokens`, { timeout: 120_000 }, async () => {
        const sequence = first.createSequence();
        await grow(first, sequence, length);
        const { shape, pieces } = await saved(first, sequence);
        expect(shape.tokens).toBe(length);
        expect(pieces.map(({ byteLength }) => byteLength)).toEqual(first.serializer.pieceBytes(shape));
        const restored = await second.serializer.restore(shape, given(pieces));
        expect(restored.length).toBe(length);
        expect((await saved(second, restored)).pieces.map(sha)).toEqual(pieces.map(sha));
        for (const by of [1, 5]) {
          const [wanted, got] = [await grow(first, sequence, by), await grow(second, restored, by)];
          expect(Buffer.compare(Buffer.from(got.buffer), Buffer.from(wanted.buffer))).toBe(0);
        }
        for (const each of [sequence, restored]) each.dispose();
      });
    }

    it('fork and truncate like any other', { timeout: 120_000 }, async () => {
      const sequence = first.createSequence();
      // A state can't be taken back to where it wasn't kept.
      const reached = isRecurrent(first.spec) && first.backend !== 'reference' ? 40 : 50;
      sequence.setCheckpoints([40]);
      await grow(first, sequence, 80);
      const { shape, pieces } = await saved(first, sequence);
      const restored = await second.serializer.restore(shape, given(pieces));
      const fork = restored.fork();
      await grow(second, restored, 9);
      expect(fork.truncate(50)).toBe(reached);
      expect(sequence.truncate(50)).toBe(reached);
      expect(await grow(second, fork, 3)).toEqual(await grow(first, sequence, 3));
      for (const each of [sequence, restored, fork]) each.dispose();
    });

    it('release everything if pieces end early, are too few or too many, or have other sizes', async () => {
      const sequence = first.createSequence();
      await grow(first, sequence, 40);
      const { shape, pieces } = await saved(first, sequence);
      sequence.dispose();
      const before = second.memory().cacheBytes;
      async function* broken() {
        yield pieces[0] ?? new Uint8Array();
        throw new Error('the disk is gone');
      }
      const whole = pieces[0] ?? new Uint8Array();
      const attempts = [
        broken(),
        given(pieces.slice(1)),
        given([...pieces, whole]),
        given([whole.subarray(4), ...pieces.slice(1)]),
      ];
      for (const attempt of attempts) await expect(second.serializer.restore(shape, attempt)).rejects.toThrow();
      expect(second.memory().cacheBytes).toBe(before);
    });

    it('are refused if no sequence has such a shape', () => {
      const groups = first.serializer.shapeOf(first.createSequence()).ranges.length;
      const shape = (tokens: number, range: readonly number[]): SequenceShape => ({
        tokens,
        ranges: Array.from({ length: groups }, () => range),
      });
      const strange = [
        shape(0, [0, 0]),
        shape(first.contextTokens + 1, [0, first.contextTokens + 1]),
        shape(8.5, [0, 8.5]),
        shape(8, [0, 9]),
        shape(8, [0]),
        shape(8, [-1, 8]),
        shape(8, [8, 0]),
        shape(8, []),
        { tokens: 8, ranges: [...shape(8, [0, 8]).ranges, [0, 8]] },
        // Whatever the window, the last token sees the one before it.
        shape(8, [7, 8]),
      ];
      for (const each of strange) {
        expect(() => first.serializer.pieceBytes(each), JSON.stringify(each)).toThrow(/doesn't fit/);
      }
    });

    it('are restored as long as memory is free', async () => {
      const sequence = first.createSequence();
      await grow(first, sequence, 32);
      const { shape, pieces } = await saved(first, sequence);
      sequence.dispose();
      const restored: Sequence[] = [];
      while (second.serializer.canAllocate(shape)) restored.push(await second.serializer.restore(shape, given(pieces)));
      const { cacheBytes, cacheCapacityBytes } = second.memory();
      expect(restored.length).toBeGreaterThan(2);
      expect(cacheBytes).toBeLessThanOrEqual(cacheCapacityBytes);
      for (const each of restored) each.dispose();
      expect(second.serializer.canAllocate(shape)).toBe(true);
    });
  });
}

/** Recurrent layers keep a state every 1,024 tokens, unasked: a long sequence goes back to it, also one that was stored. */
export function checkKeptStates(backend: Backend, { name, path }: GoldenCase): void {
  it(`a long sequence of ${name} on ${backend.name} goes back to the state that it kept, also after it was stored`, {
    timeout: 240_000,
  }, async () => {
    const model = await openModel(path);
    const decoder = await backend.load(model.spec, model.weights, { contextTokens: 1200, cachePrecision: 'f32' });
    const grow = async (sequence: Sequence, end: number): Promise<Float32Array> => {
      let last: Float32Array = new Float32Array();
      while (sequence.length < end) {
        const tokens = Array.from(
          { length: Math.min(96, end - sequence.length) },
          (_, i) => (sequence.length + i) % 509,
        );
        last = (await decoder.run([{ sequence, tokens, logits: 'last' }]))[0] ?? last;
      }
      return last;
    };
    const long = decoder.createSequence();
    await grow(long, 1150);
    const shape = decoder.serializer.shapeOf(long);
    const pieces: Uint8Array[] = [];
    for await (const piece of decoder.serializer.save(long)) pieces.push(piece.slice());
    const restored = await decoder.serializer.restore(shape, given(pieces));
    // The first end of a pass of 96 tokens beyond 1,024.
    const kept = 1056;
    const fresh = decoder.createSequence();
    await grow(fresh, kept);
    const expected = await grow(fresh, kept + 40);
    for (const sequence of [long, restored]) {
      expect(sequence.truncate(1149)).toBe(kept);
      expect(await grow(sequence, kept + 40)).toEqual(expected);
    }
    for (const each of [long, restored, fresh]) each.dispose();
    expect(decoder.memory().cacheBytes).toBe(0);
    await decoder.dispose();
    await model.file.close();
  });
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
