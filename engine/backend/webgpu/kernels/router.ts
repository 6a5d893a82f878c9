/**
 * Chooses the experts of each token and their weights: the three routers of `RouterSpec`.
 *
 * Bindings: logits `[tokens, experts]`, selection_bias? `[experts]`; chosen `[tokens, topK]` u32 (write), weights
 * `[tokens, topK]` (write). Workgroup: one token, a thread an expert; groups: tokens in x. Needs no features.
 * Must equal `route` of backend/reference except for ties between scores that f32 cannot distinguish.
 */
import type { ExpertsSpec, RouterSpec } from '../../../model/spec/spec.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, write } from './bindings.ts';

/** Below every score: a sigmoid with a bias, or a logit. */
const dropped = '-3.0e38';

/**
 * WGSL `fn route(token: u32, thread: u32)` for a workgroup of `threads`: afterwards `picked[slot]` is an expert and
 * `share(slot)` its weight. Needs the bindings `logits` and, where there is one, `selection_bias`.
 */
export function routeCode(spec: ExpertsSpec, selectionBias: boolean, threads: number): string {
  const { numExperts: experts, expertsPerToken: topK, router } = spec;
  const score = scoreCode(router, selectionBias);
  const quads = Math.ceil(experts / 4);
  return /* wgsl */ `
var<workgroup> score: array<f32, ${experts}>;
var<workgroup> selection: array<vec4f, ${quads}>;
var<workgroup> picked: array<u32, ${topK}>;
fn selection_of(expert: u32) -> f32 { return selection[expert / 4u][expert % 4u]; }
fn is_number(value: f32) -> bool { return (bitcast<u32>(value) & 0x7fffffffu) <= 0x7f800000u; }
${groupCode(router, experts, threads)}
// Experts that rank before this one: larger selection, or equal selection and lower index.
fn rank(expert: u32) -> u32 {
  let own = vec4f(selection_of(expert));
  var before = vec4u();
  for (var quad = 0u; quad < ${quads}u; quad++) {
    let values = selection[quad];
    let earlier = vec4u(4u * quad) + vec4u(0u, 1u, 2u, 3u) < vec4u(expert);
    before += select(vec4u(), vec4u(1u), (values > own) | ((values == own) & earlier));
  }
  return before.x + before.y + before.z + before.w;
}
fn route(token: u32, thread: u32) {
  // NaN ranks last, so that ranks are a permutation and every slot has an expert; its score remains NaN.
  for (var expert = thread; expert < ${4 * quads}u; expert += ${threads}u) {
    var chance = ${dropped};
    if (expert < ${experts}u) {
      let logit = logits[token * ${experts}u + expert];
      ${score.each}
      chance = select(${dropped}, chance, is_number(chance));
    }
    selection[expert / 4u][expert % 4u] = chance;
  }
  workgroupBarrier();
  ${router.kind === 'sigmoid-grouped' ? 'keep_best_groups(thread);' : ''}
  for (var expert = thread; expert < ${experts}u; expert += ${threads}u) {
    let slot = rank(expert);
    if (slot < ${topK}u) { picked[slot] = expert; }
  }
  workgroupBarrier();
}
fn share(slot: u32) -> f32 {
  let largest = score[picked[0]];
  let own = score[picked[slot]];
  var sum = 0.0;
  ${score.sum(experts, topK)}
  return ${score.weight} * ${spec.routedScale};
}`;
}

/** WGSL that writes the result of `route` to `chosen` and `weights`. */
export const storeRoute = (topK: number, threads: number): string => /* wgsl */ `
fn store_route(token: u32, thread: u32) {
  for (var slot = thread; slot < ${topK}u; slot += ${threads}u) {
    chosen[token * ${topK}u + slot] = picked[slot];
    weights[token * ${topK}u + slot] = share(slot);
  }
}`;

export function routerKernel(spec: ExpertsSpec, selectionBias: boolean): KernelSource {
  const { numExperts: experts, expertsPerToken: topK, router } = spec;
  const threads = Math.min(256, Math.ceil(experts / 32) * 32);
  const buffers = declareBuffers([
    read('logits'),
    ...(selectionBias ? [read('selection_bias')] : []),
    write('chosen', 'u32'),
    write('weights'),
  ]);
  const code = /* wgsl */ `
${buffers.code}
${routeCode(spec, selectionBias, threads)}
${storeRoute(topK, threads)}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  route(group.x, thread);
  store_route(group.x, thread);
}
`;
  return { label: `router ${router.kind} ${topK} of ${experts}`, code, bindings: buffers.bindings };
}

/**
 * `each` computes an expert's `score` and its selection score `chance` from its `logit`; `sum` computes `sum`; `weight`
 * uses `own`, `largest` and `sum`. Softmax needs no scores to choose, because logits have the same order.
 */
function scoreCode(
  router: RouterSpec,
  selectionBias: boolean,
): { readonly each: string; readonly sum: (experts: number, topK: number) => string; readonly weight: string } {
  if (router.kind === 'sigmoid-grouped') {
    return {
      each: `score[expert] = 1.0 / (1.0 + exp(min(-logit, 80.0)));
      chance = score[expert]${selectionBias ? ' + selection_bias[expert]' : ''};`,
      sum: (_, topK) =>
        router.renormalise ? `for (var i = 0u; i < ${topK}u; i++) { sum += score[picked[i]]; }` : 'sum = 1.0;',
      weight: 'own / sum',
    };
  }
  // A softmax over all, renormalised over the chosen, is a softmax over the chosen: the sum over all cancels.
  const overChosen = router.kind === 'topk-then-softmax' || router.renormalise;
  return {
    each: 'score[expert] = logit; chance = logit;',
    sum: (experts, topK) =>
      overChosen
        ? `for (var i = 0u; i < ${topK}u; i++) { sum += exp(score[picked[i]] - largest); }`
        : `for (var i = 0u; i < ${experts}u; i++) { sum += exp(score[i] - largest); }`,
    weight: 'exp(own - largest) / sum',
  };
}

/** A group ranks by its two best experts; experts of lower groups are dropped. */
function groupCode(router: RouterSpec, experts: number, threads: number): string {
  if (router.kind !== 'sigmoid-grouped') return '';
  const { groups, groupsUsed } = router;
  const width = experts / groups;
  return /* wgsl */ `
var<workgroup> group_score: array<f32, ${groups}>;
fn keep_best_groups(thread: u32) {
  for (var g = thread; g < ${groups}u; g += ${threads}u) {
    var best = ${dropped};
    var second = ${dropped};
    for (var expert = g * ${width}u; expert < (g + 1u) * ${width}u; expert++) {
      let value = selection_of(expert);
      second = max(second, min(best, value));
      best = max(best, value);
    }
    group_score[g] = best${width > 1 ? ' + second' : ''};
  }
  workgroupBarrier();
  for (var expert = thread; expert < ${experts}u; expert += ${threads}u) {
    let own = expert / ${width}u;
    var before = 0u;
    for (var g = 0u; g < ${groups}u; g++) {
      if (group_score[g] > group_score[own] || (group_score[g] == group_score[own] && g < own)) { before++; }
    }
    if (before >= ${groupsUsed}u) { selection[expert / 4u][expert % 4u] = ${dropped}; }
  }
  workgroupBarrier();
}`;
}
