import { describe, expect, it } from 'vitest';
import { route } from '../../engine/backend/reference/feedForward.ts';
import { routerKernel } from '../../engine/backend/webgpu/kernels/router.ts';
import type { ExpertsSpec, RouterSpec } from '../../engine/model/spec/spec.ts';
import { normalisedError, randomValues, runKernelOutputs, useGpu } from './kernel.ts';

function expertsSpec(router: RouterSpec, numExperts: number, expertsPerToken: number, routedScale = 1): ExpertsSpec {
  const activation = { kind: 'silu-gate' } as const;
  return {
    kind: 'experts',
    numExperts,
    expertsPerToken,
    intermediateSize: 1,
    router,
    bias: false,
    activation,
    routedScale,
  };
}

describe('the router equals the reference', () => {
  const held = useGpu();

  async function check(spec: ExpertsSpec, logits: Float32Array<ArrayBuffer>, bias?: Float32Array<ArrayBuffer>) {
    const { numExperts, expertsPerToken } = spec;
    const tokens = logits.length / numExperts;
    const size = tokens * expertsPerToken;
    const inputs = bias ? [logits, bias] : [logits];
    const source = routerKernel(spec, bias !== undefined);
    const [chosen, weights] = await runKernelOutputs(held.gpu, source, inputs, [size, size], [tokens]);
    const choices = Array.from({ length: tokens }, (_, token) =>
      route(spec, logits.subarray(token * numExperts, (token + 1) * numExperts), bias),
    ).flat();
    expect([...new Uint32Array(chosen?.buffer ?? new ArrayBuffer(), 0, size)]).toEqual(
      choices.map(({ expert }) => expert),
    );
    expect(
      normalisedError(
        weights ?? [],
        choices.map(({ weight }) => weight),
      ),
    ).toBeLessThan(1e-11);
  }

  /** Few different values: many ties. */
  const tied = (count: number, seed: number) => randomValues(count, seed, 4).map((value) => Math.round(value));

  it('one expert of one', () => check(expertsSpec({ kind: 'topk-then-softmax' }, 1, 1), randomValues(1, 1)));

  it('softmax over the chosen: 4 of 32, with ties, and logits far apart', async () => {
    const spec = expertsSpec({ kind: 'topk-then-softmax' }, 32, 4);
    await check(spec, randomValues(5 * 32, 2, 10));
    await check(spec, tied(5 * 32, 3));
    await check(spec, randomValues(5 * 32, 4, 1000));
  });

  it('softmax over all, renormalised: 8 of 128', () =>
    check(expertsSpec({ kind: 'softmax-then-topk', renormalise: true }, 128, 8), randomValues(3 * 128, 5, 5)));

  it('softmax over all, not renormalised: 3 of 60', async () => {
    const spec = expertsSpec({ kind: 'softmax-then-topk', renormalise: false }, 60, 3);
    await check(spec, randomValues(3 * 60, 6, 5));
    await check(spec, tied(3 * 60, 7));
  });

  it('sigmoids with bias, groups and scale: 8 of 256 from 4 of 8 groups', async () => {
    const spec = expertsSpec({ kind: 'sigmoid-grouped', groups: 8, groupsUsed: 4, renormalise: true }, 256, 8, 2.5);
    await check(spec, randomValues(4 * 256, 8, 4), randomValues(256, 9, 0.5));
    await check(spec, tied(4 * 256, 10), new Float32Array(256));
  });

  it('sigmoids, not renormalised, without bias, groups of one expert', () =>
    check(
      expertsSpec({ kind: 'sigmoid-grouped', groups: 9, groupsUsed: 5, renormalise: false }, 9, 5, 2),
      randomValues(2 * 9, 11, 4),
    ));

  it('more experts than a workgroup has threads: 6 of 384', () =>
    check(
      expertsSpec({ kind: 'sigmoid-grouped', groups: 1, groupsUsed: 1, renormalise: true }, 384, 6),
      randomValues(2 * 384, 12, 4),
      randomValues(384, 13, 0.5),
    ));

  it.each([
    ['all', 1],
    ['every third', 3],
  ])('%s NaN logits: the chosen experts are distinct and exist', async (_, every) => {
    const routers: RouterSpec[] = [
      { kind: 'topk-then-softmax' },
      { kind: 'sigmoid-grouped', groups: 4, groupsUsed: 2, renormalise: true },
    ];
    for (const router of routers) {
      const logits = randomValues(32, 14).map((value, i) => (i % every === 0 ? Number.NaN : value));
      const source = routerKernel(expertsSpec(router, 32, 4), false);
      const [chosen] = await runKernelOutputs(held.gpu, source, [logits], [4, 4], [1]);
      const experts = [...new Uint32Array(chosen?.buffer ?? new ArrayBuffer(), 0, 4)];
      expect(new Set(experts).size).toBe(4);
      expect(Math.max(...experts)).toBeLessThan(32);
    }
  });
});
