/** Which windows get which copies of a model. Loading is scripted, so that a test can make memory short. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { DoesNotFit } from '../../../engine/backend/memoryPlan.ts';
import { openStore } from '../../../engine/catalogue/store.ts';
import type { Progress } from '../../../engine/protocol/engineProtocol.ts';
import { loadParams, type ModelCard } from '../../../engine/protocol/models.ts';
import type { LoadedModel } from '../../../engine/runtime/loadedModel.ts';
import { ModelPool, type ModelUser } from '../../../engine/runtime/modelPool.ts';
import { ModelRoles, SharedModels } from '../../../engine/runtime/modelRoles.ts';
import { Engine } from '../../../engine/runtime/service.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { makeTinyModel } from './tinyModel.ts';

let models: Awaited<ReturnType<typeof makeTinyModel>>[];
/** What is loaded and closed, in order. */
let events: string[] = [];
/** How many models fit at once. */
let room = 2;
let loaded = 0;
let pool: ModelPool;

beforeAll(async () => {
  models = [await makeTinyModel(), await makeTinyModel()];
  return async () => {
    for (const { remove } of models) await remove();
  };
});
const nameOf = (model: string): string => (model === models[0]?.path ? 'A' : 'B');
const wish = (index: number, fields: object = {}) =>
  loadParams.parse({ model: models[index]?.path, backend: 'onnx', ...fields });

beforeEach(() => {
  [events, room, loaded] = [[], 2, 0];
  pool = new ModelPool({
    store: openStore({ directory: temporaryFolder() }),
    settleMs: 300,
    load: async ({ id, contextTokens = 2048, onProgress, besideOthers }) => {
      if (loaded >= room) throw new DoesNotFit('It needs 4 GB of memory.', 0, 0);
      loaded++;
      events.push(`load ${nameOf(id)} ${contextTokens}${besideOthers ? ' beside others' : ''}`);
      onProgress({ doneBytes: 1, totalBytes: 2 });
      const card = { id, name: nameOf(id), contextTokens, notes: [] as string[] } as ModelCard;
      const close = async (): Promise<void> => {
        loaded--;
        events.push(`close ${nameOf(id)}`);
      };
      return { card, close } as LoadedModel;
    },
  });
});

interface TestWindow extends ModelRoles {
  readonly seen: Progress[];
}
function window(): TestWindow {
  const seen: Progress[] = [];
  const user: ModelUser = { onProgress: (step) => seen.push(step), onChange: () => {} };
  return Object.assign(new ModelRoles(pool, user), { seen });
}

describe('windows that want the same model', () => {
  it('get one copy, though they ask at the same time, and all see its progress', async () => {
    const [a, b, c] = [window(), window(), window()];
    await Promise.all([a, b, c].map((each) => each.load(wish(0))));
    expect(events).toEqual(['load A 2048']);
    expect(a.get('chat')).toBe(c.get('chat'));
    expect([a, b, c].map(({ seen }) => seen.length)).toEqual([1, 1, 1]);
  });

  it('keep it until the last one gives it up', async () => {
    const [a, b] = [window(), window()];
    await a.load(wish(0));
    await b.load(wish(0));
    await a.unload('chat');
    expect(events).toEqual(['load A 2048']);
    await b.unload('chat');
    expect(events).toEqual(['load A 2048', 'close A']);
  });

  it('share it for chat and completion', async () => {
    const [a, b] = [window(), window()];
    await a.load(wish(0));
    await b.load(wish(0, { role: 'completion' }));
    await b.load(wish(1));
    expect(events).toEqual(['load A 2048', 'load B 2048 beside others']);
  });

  it('share the loaded context, with a note, instead of loading the model twice', async () => {
    const [a, b] = [window(), window()];
    await a.load(wish(0));
    const card = await b.load(wish(0, { contextTokens: 1024 }));
    expect(card).toMatchObject({
      contextTokens: 2048,
      notes: ['Another window uses this model with 2048 tokens of context, so this window does too.'],
    });
    expect(events).toEqual(['load A 2048']);
    expect((await a.load(wish(0))).notes).toEqual([]);
  });

  it('reload it once if a changed setting reaches all of them', async () => {
    const [a, b] = [window(), window()];
    await Promise.all([a.load(wish(0)), b.load(wish(0))]);
    const cards = await Promise.all([a, b].map((each) => each.load(wish(0, { contextTokens: 1024 }))));
    expect(events).toEqual(['load A 2048', 'close A', 'load A 1024']);
    expect(cards.map(({ contextTokens, notes }) => [contextTokens, notes])).toEqual([
      [1024, []],
      [1024, []],
    ]);
  });

  it('find it loaded for a while after the last one closed, unless its memory is needed', async () => {
    const [a, b] = [window(), window()];
    await a.load(wish(0));
    await a.unload('chat', 60_000);
    await b.load(wish(0));
    expect(events).toEqual(['load A 2048']);
    await b.unload('chat', 60_000);
    await window().load(wish(1));
    expect(events).toEqual(['load A 2048', 'close A', 'load B 2048']);
  });
});

describe('windows that want different models', () => {
  it('have both if both fit', async () => {
    const [a, b] = [window(), window()];
    await a.load(wish(0));
    await b.load(wish(1));
    expect(events).toEqual(['load A 2048', 'load B 2048 beside others']);
    expect(a.get('chat')?.loaded.card.name).toBe('A');
  });

  it('get one sentence if they do not fit; the first one keeps its model', async () => {
    room = 1;
    const [a, b] = [window(), window()];
    await a.load(wish(0));
    await expect(b.load(wish(1))).rejects.toMatchObject({
      code: 'out-of-memory',
      message:
        "Another window uses A, and this model doesn't fit beside it: choose the same model, or close that window. It needs 4 GB of memory.",
    });
    expect(events).toEqual(['load A 2048']);
    expect(a.get('chat')).toBeDefined();
    await b.load(wish(0));
    expect(events).toEqual(['load A 2048']);
  });

  it('switch to the other one together though only one fits', async () => {
    room = 1;
    const [a, b] = [window(), window()];
    await Promise.all([a.load(wish(0)), b.load(wish(0))]);
    await Promise.all([a.load(wish(1)), b.load(wish(1))]);
    expect(events).toEqual(['load A 2048', 'close A', 'load B 2048']);
  });

  it('are not told about other windows if the refusal has nothing to do with them', async () => {
    room = 0;
    await expect(window().load(wish(0))).rejects.toThrow('It needs 4 GB of memory.');
  });
});

it('progress of a download, and its end, reach every window that is open', async () => {
  const shared = new SharedModels(temporaryFolder());
  const seen: string[][] = [[], [], []];
  const windows = seen.map(
    (lines) =>
      new Engine({
        shared,
        onDelta: () => {},
        onProgress: ({ task }) => lines.at(-1) !== task && lines.push(task),
        onModelsChanged: () => lines.push('changed'),
      }),
  );
  await windows[2]?.close(0);
  await windows[0]?.models.add(models[0]?.path ?? '');
  await expect(windows[1]?.models.pull('no-such-model', {})).rejects.toMatchObject({ code: 'not-found' });
  expect(seen[0]).toEqual(['download', 'changed']);
  expect(seen[1]).toEqual(seen[0]);
  expect(seen[2]).toEqual([]);
});

it('a window that closes while its model loads leaves nothing behind', async () => {
  const a = window();
  const card = a.load(wish(0));
  card.catch(() => {});
  await a.unload('chat', 0);
  await Promise.allSettled([card]);
  expect(loaded).toBe(0);
});
