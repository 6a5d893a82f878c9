/** Golden checkpoints in stages: some layers on one backend, the next on another. */
import type { Backend } from '../../engine/backend/backend.ts';
import { createStagedBackend } from '../../engine/backend/split/index.ts';
import { openModel } from '../../engine/model/open.ts';
import type { GoldenCase } from './goldens.ts';

export async function layersOf({ path }: GoldenCase): Promise<number> {
  const model = await openModel(path);
  await model.file.close();
  return model.spec.layers.length;
}

/** So many layers on each backend in turn; named after them. */
export function splitAt(layers: readonly number[], backends: readonly Backend[]): Backend {
  const plan = layers.flatMap((count, i) => {
    const backend = backends[i % backends.length];
    return backend ? [{ backend, layers: count }] : [];
  });
  const name = plan.map((stage) => `${stage.layers} layers of ${stage.backend.name}`).join(' and ');
  return { ...createStagedBackend(plan), name: name as Backend['name'] };
}
