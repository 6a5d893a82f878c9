import { describe, expect, it } from 'vitest';
import type { Backend } from '../../../engine/backend/backend.ts';
import { DoesNotFit } from '../../../engine/backend/memoryPlan.ts';
import { type ErrorCode, HearthError } from '../../../engine/errors.ts';
import type { DecoderWeights } from '../../../engine/model/weights/weights.ts';
import { type Candidate, loadDecoder } from '../../../engine/runtime/backends.ts';
import { FakeDecoder } from '../scheduler/fakeDecoder.ts';

const { spec } = new FakeDecoder();
const weight = { name: 'w', shape: [1], type: 'F32', readRows: async () => new Uint8Array(4) } as const;
const weights: DecoderWeights = { embedding: weight, layers: [], finalNorm: weight, head: weight };

const working = (name: Backend['name']): Candidate => ({
  name,
  open: async () => ({ name, load: async () => new FakeDecoder() }),
});
const failing = (name: Backend['name'], code: ErrorCode): Candidate => ({
  name,
  open: async () => ({
    name,
    load: async () => {
      throw new HearthError(code, `no ${name}`);
    },
  }),
});
const load = (choice: Parameters<typeof loadDecoder>[0], among: readonly Candidate[]) =>
  loadDecoder(choice, spec, weights, { contextTokens: 16 }, among);

describe('choosing a backend', () => {
  it('takes the first that can compute the model, without a note', async () => {
    expect((await load('auto', [working('onnx'), failing('reference', 'unsupported')])).notes).toEqual([]);
  });

  it('takes the next one if one cannot, with a note', async () => {
    for (const code of ['unsupported', 'unavailable', 'device-lost', 'out-of-memory'] as const) {
      const { notes } = await load('auto', [failing('onnx', code), working('reference')]);
      expect(notes).toEqual(["Not on 'onnx': no onnx"]);
    }
  });

  it('takes the next one if a native library is missing', async () => {
    const missing: Candidate = {
      name: 'onnx',
      open: async () => {
        throw new Error('Cannot find libonnxruntime.so');
      },
    };
    expect((await load('auto', [missing, working('reference')])).notes[0]).toContain('libonnxruntime.so');
  });

  it('does not hide a broken file or a cancellation behind another backend', async () => {
    for (const code of ['invalid-input', 'cancelled'] as const) {
      await expect(load('auto', [failing('onnx', code), working('reference')])).rejects.toMatchObject({ code });
    }
  });

  it('never replaces a backend that was requested by name', async () => {
    const among = [failing('onnx', 'unsupported'), working('reference')];
    await expect(load('onnx', among)).rejects.toMatchObject({ code: 'unsupported' });
    await expect(load('webgpu', among)).rejects.toThrow("'webgpu'");
  });

  it('splits a model only if a GPU works and has too little memory', async () => {
    const full: Candidate = {
      name: 'webgpu',
      open: async () => ({
        name: 'webgpu',
        load: async () => {
          throw new DoesNotFit('too large', 1, 0);
        },
      }),
    };
    const split: Candidate = { name: 'split', open: async () => ({ name: 'split', load: async () => splitDecoder }) };
    const splitDecoder = new FakeDecoder();
    expect((await load('auto', [full, split, working('onnx')])).decoder).toBe(splitDecoder);
    expect((await load('auto', [failing('webgpu', 'unavailable'), split, working('onnx')])).notes).toHaveLength(1);
    expect((await load('auto', [failing('webgpu', 'unavailable'), split, working('onnx')])).decoder).not.toBe(
      splitDecoder,
    );
    expect((await load('auto', [full, failing('split', 'out-of-memory'), working('onnx')])).notes).toEqual([
      "Not on 'webgpu': too large",
      "Not on 'split': no split",
    ]);
    await expect(load('webgpu', [full, split])).rejects.toThrow('too large');
  });

  it('gives every reason when none can', async () => {
    const among = [failing('onnx', 'unsupported'), failing('reference', 'out-of-memory')];
    const message = "Not on 'onnx': no onnx Not on 'reference': no reference";
    await expect(load('auto', among)).rejects.toMatchObject({ code: 'out-of-memory', message });
  });
});
