/** The host's work for experts outside a card's memory, with a device that only records. test/gpu/split.test.ts computes for real. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { ExpertHost } from '../../../engine/backend/ggml/experts.ts';
import { OutsideExperts } from '../../../engine/backend/webgpu/decoder/outsideExperts.ts';
import { matrixLayout, type Uploader } from '../../../engine/backend/webgpu/decoder/weightLayout.ts';
import { HearthError } from '../../../engine/errors.ts';
import type { Weight } from '../../../engine/model/weights/weights.ts';

beforeAll(() => {
  Object.assign(globalThis, { GPUBufferUsage: { COPY_DST: 4, MAP_READ: 8 }, GPUMapMode: { READ: 1 } });
});

const router = { kind: 'topk-then-softmax' };
const layer = { feedForward: { kind: 'experts', numExperts: 8, expertsPerToken: 2, router } };
/** Two tokens of four values, with chosen experts 3, 1 and 1, 0. */
const chosen = Int32Array.of(3, 1, 1, 0);
const activations = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);

function fakes(host?: Partial<ExpertHost>) {
  const events: string[] = [];
  const given = new Uint8Array([...new Uint8Array(chosen.buffer), ...new Uint8Array(activations.buffer)]);
  const device = {
    queue: {
      submit: () => events.push('submitted'),
      writeBuffer: (buffer: { readonly label: string }, offset: number, bytes: ArrayBufferView) =>
        events.push(`${bytes.byteLength} bytes to ${buffer.label} at ${offset}`),
    },
    createBuffer: ({ size }: { readonly size: number }) => ({
      size,
      mapAsync: async () => {},
      getMappedRange: () => given.buffer,
      unmap: () => {},
      destroy: () => {},
    }),
  };
  const encoder = { copyBufferToBuffer: () => {}, finish: () => ({}) } as unknown as GPUCommandEncoder;
  const gpu = { device, readBack: async () => chosen.buffer } as unknown as ConstructorParameters<
    typeof OutsideExperts
  >[0];
  const open =
    host &&
    (async (): Promise<ExpertHost> => ({
      weightBytes: 0,
      threads: 4,
      compute: async () => new Float32Array(),
      end: async () => {},
      ...host,
    }));
  const pass = {
    spec: { hiddenSize: 4, layers: [layer, layer] },
    scratch: { normed: {}, experts: {}, expertOutputs: { label: 'outputs' } },
    inputs: { tokens: 2 },
  } as unknown as Parameters<OutsideExperts['submit']>[2];
  return { outside: new OutsideExperts(gpu, 2, open), events, encoder, pass };
}

describe('experts that the processor computes', () => {
  it('get the activations and the chosen experts, and return outputs when the card has done its part', async () => {
    const asked: unknown[] = [];
    let answer: (outputs: Float32Array) => void = () => {};
    const compute: ExpertHost['compute'] = (...all) => {
      asked.push(all);
      return new Promise((resolve) => (answer = resolve));
    };
    const { outside, events, encoder, pass } = fakes({ compute });
    await outside.load({});
    await outside.submit({ task: 'give', layer: 1 }, encoder, pass);
    await new Promise((resolve) => setTimeout(resolve, 0));
    expect(asked).toEqual([[1, activations, chosen]]);
    const taken = outside.submit({ task: 'take', layer: 1 }, encoder, pass);
    expect(events).toEqual(['submitted', 'submitted']);
    answer(new Float32Array(16));
    await taken;
    expect(events).toEqual(['submitted', 'submitted', '64 bytes to outputs at 0']);
  });

  it('fail only the pass that waits for them', async () => {
    let fails = true;
    const compute = async () => {
      if (fails) throw new HearthError('unsupported', 'ggml failed: no room');
      return new Float32Array(16);
    };
    const { outside, events, encoder, pass } = fakes({ compute });
    await outside.load({});
    await outside.submit({ task: 'give', layer: 0 }, encoder, pass);
    await expect(outside.submit({ task: 'take', layer: 0 }, encoder, pass)).rejects.toThrow('ggml failed: no room');
    await expect(outside.submit({ task: 'both', layer: 0 }, encoder, pass)).rejects.toThrow('ggml failed: no room');
    expect(events).toEqual(['submitted', 'submitted', 'submitted']);
    fails = false;
    await outside.submit({ task: 'both', layer: 0 }, encoder, pass);
    expect(events.at(-1)).toBe('64 bytes to outputs at 0');
  });

  it('are chosen for prompts with few tokens per expert and core', async () => {
    const { outside, pass } = fakes({ threads: 4 });
    await outside.load({});
    // Two of eight: 8 tokens an expert.
    expect([32, 33].map((rows) => outside.computes(pass.spec, rows))).toEqual([true, false]);
    expect(fakes().outside.computes(pass.spec, 17)).toBe(false);
  });
});

describe('experts that are sent', () => {
  it('are sent to the card once, until another layer replaces them', async () => {
    const { outside, events, encoder, pass } = fakes();
    const read: number[] = [];
    const weight = (name: string): Weight => ({
      name,
      type: 'F32',
      shape: [8, 4, 8],
      readRows: async (first, count) => {
        read.push(first);
        return new Uint8Array(count * 32);
      },
    });
    const layout = matrixLayout('F32', 32, 8);
    const matrix = { rows: 32, columns: 8, pieces: [{ layout, firstRow: 0, buffer: { label: 'gates' } }] };
    const uploader = { matrix: async () => matrix } as unknown as Uploader;
    for (const index of [0, 1]) await outside.place(index, 'gate', weight(`layer ${index}`), uploader);
    const sent = async (index: number) => {
      events.length = 0;
      await outside.submit({ task: 'send', layer: index }, encoder, pass);
      return events.slice(1);
    };
    const all = [3, 1, 0].map((expert) => `128 bytes to gates at ${128 * expert}`);
    expect(await sent(0)).toEqual(all);
    expect(await sent(0)).toEqual([]);
    expect(await sent(1)).toEqual(all);
    expect(await sent(0)).toEqual(all);
    // Without a host backend for them they are kept as read.
    expect(read).toEqual([12, 4, 0, 12, 4, 0]);
  });
});
