import { describe, expect, it } from 'vitest';
import type { BackendName } from '../../../engine/backend/backend.ts';
import { HearthError } from '../../../engine/errors.ts';
import type { BackendChoice, Candidate } from '../../../engine/runtime/backends.ts';
import { Recovery } from '../../../engine/runtime/loadedModel.ts';
import { FakeDecoder } from '../scheduler/fakeDecoder.ts';

const names: readonly BackendName[] = ['webgpu', 'onnx', 'reference'];
const candidates: Candidate[] = names.map((name) => ({
  name,
  open: async () => ({ name, load: async () => new FakeDecoder({ backend: name }) }),
}));
const webgpu = () => new FakeDecoder({ backend: 'webgpu' });
const loss = new HearthError('device-lost', 'The GPU stopped answering (unplugged).');
const minutes = (count: number): number => count * 60_000;

/** Loads the first candidate left, as `loadDecoder` does. */
function setUp(choice: BackendChoice) {
  const clock = { now: 0 };
  const recovery = new Recovery({
    choice,
    candidates,
    now: () => clock.now,
    load: async (among) => {
      const [first] = among.filter(({ name }) => choice === 'auto' || name === choice);
      if (!first) throw new Error('nothing is left');
      return { decoder: new FakeDecoder({ backend: first.name }), notes: [] };
    },
  });
  return { clock, recovery };
}

describe('recovering from the loss of a device', () => {
  it('reloads the model on the device once, with a note', async () => {
    const lost = webgpu();
    lost.createSequence();
    const { decoder, notice } = await setUp('auto').recovery.another(lost, loss);
    expect(decoder.backend).toBe('webgpu');
    expect(lost.live.size, 'it is disposed').toBe(0);
    expect(notice).toBe(
      'The GPU stopped answering (unplugged). The GPU was set up again, and answers continue where they stopped.',
    );
  });

  it('falls back to the CPU if it is lost again soon, and says what to do', async () => {
    const { clock, recovery } = setUp('auto');
    const { decoder: again } = await recovery.another(webgpu(), loss);
    clock.now = minutes(5);
    const { decoder, notice } = await recovery.another(again, loss);
    expect(decoder.backend).toBe('onnx');
    expect(notice).toContain("computed by 'onnx', which is slower. Load the model again to try the GPU once more.");
  });

  it('tries the device again if the last loss was long ago', async () => {
    const { clock, recovery } = setUp('auto');
    const { decoder: again } = await recovery.another(webgpu(), loss);
    clock.now = minutes(11);
    expect((await recovery.another(again, loss)).decoder.backend).toBe('webgpu');
  });

  it('asks for a restart if the CPU backend fails for the second time', async () => {
    const { recovery } = setUp('onnx');
    const { decoder: again } = await recovery.another(new FakeDecoder({ backend: 'onnx' }), loss);
    await expect(recovery.another(again, loss)).rejects.toMatchObject({
      message: expect.stringContaining('restart the engine'),
    });
  });

  it('never replaces a backend that was asked for by name', async () => {
    const { recovery } = setUp('webgpu');
    const { decoder: again } = await recovery.another(webgpu(), loss);
    await expect(recovery.another(again, loss)).rejects.toMatchObject({
      code: 'device-lost',
      message: expect.stringContaining("choose the CPU (backend 'cpu')"),
    });
  });
});
