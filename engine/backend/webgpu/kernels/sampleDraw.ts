/**
 * Sampling, second half: top-k, top-p, min-p and sampling, from the candidates of `sampleChunks`.
 *
 * Equal to `sample` of backend/sampler.ts given the same uniform, for every setting that `samplesOnGpu` accepts,
 * except for rounding: probabilities are summed in f32, so a uniform within about 1e-6 of a border between two tokens,
 * or a top-p within as much of a candidate's, may fall on the other side. Up to 64 candidates (any top-k; usually top-p
 * and min-p) are sampled from a list. For a larger set, its smallest logit is found by bisection in the sorted chunks,
 * and the token by a walk over one chunk.
 *
 * Bindings: settings, uniforms `[rows, steps]`, logits `[rows, vocabulary]` (penalised), parts u32, sorted; history u32
 * (write: the token is added), drawn u32 `[rows, 1 + steps]` (write): how many were sampled, then their ids, 0xffffffff
 * if the logits were not finite or all excluded; rows (Row, write): the token becomes the input of the next pass, one
 * position further. Workgroup: 256 threads a row, one for each chunk; groups: rows in x. Needs no features; uses
 * subgroups.
 */
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';
import { rowStruct } from './cacheCode.ts';
import { chunkTokens, excluded, mostCandidates, mostChunks, partWords, settingsCode } from './sampleChunks.ts';

const threads = mostChunks;
const each = chunkTokens / threads;

export function sampleDrawKernel(steps: number, capabilities: GpuCapabilities): KernelSource {
  const buffers = declareBuffers([
    read('settings', 'Settings'),
    read('uniforms'),
    read('logits'),
    read('parts', 'u32'),
    read('sorted', 'vec2f'),
    write('history', 'u32'),
    write('drawn', 'u32'),
    write('rows', 'Row'),
  ]);
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${settingsCode}
${rowStruct}
${buffers.code}
${reductionCode(1, threads, capabilities)}
${candidatesCode}
${listCode}
${bisectionCode}
${walkCode}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = group.x;
  let rule = settings[row];
  let chunks = chunks_of(rule);
  // A plain temperature needs only the largest logit.
  let whole = rule.top_k == 0u && rule.top_p >= 1.0 && rule.min_p <= 0.0;
  let rounds = select(select(${mostCandidates}u, 1u, whole), rule.top_k, rule.top_k > 0u);
  merge_candidates(row, rounds, chunks, thread);
  let largest = top_logit[0];
  let part = (row * chunks + min(thread, chunks - 1u)) * ${partWords}u;
  var mass = 0.0;
  if (thread < chunks) { mass = bitcast<f32>(parts[part]) * weight_of(bitcast<f32>(parts[part + 1u]), largest, rule.temperature); }
  reduce(thread, vec4f(mass, 0.0, 0.0, 0.0));
  let uniform_value = min(uniforms[row * ${steps}u + drawn[row * ${steps + 1}u]], 0.99999994);
  close_list(rounds, totals[0].x, rule, thread);
  if (workgroupUniformLoad(&list_count) > 0u) { draw_from_list(uniform_value, thread); }
  else { draw_from_all(row, mass, whole, uniform_value, rule, thread); }
  workgroupBarrier();
  if (thread == 0u) {
    let valid = abs(largest) < 2.9e38;
    let id = atomicLoad(&winner);
    let at = row * ${steps + 1}u;
    let step = drawn[at];
    drawn[at + 1u + step] = select(0xffffffffu, id, valid);
    drawn[at] = step + 1u;
    let last = rows[row];
    rows[row] = Row(last.position + 1u, last.table, select(0u, id, valid), last.angle + 1u);
    if (valid) { history[row * history_words(rule) + id / 16u] |= 3u << (2u * (id & 15u)); }
  }
}
`;
  return { label: 'sampleDraw', code, bindings: buffers.bindings };
}

/** `merge_candidates`: the chunks' sorted lists merged, one candidate a round, into `top_logit` and `top_id`. */
const candidatesCode = /* wgsl */ `
var<workgroup> head_logit: array<f32, ${threads}>;
var<workgroup> head_id: array<u32, ${threads}>;
var<workgroup> group_logit: array<f32, 16>;
var<workgroup> group_id: array<u32, 16>;
var<workgroup> top_logit: array<f32, ${mostCandidates}>;
var<workgroup> top_id: array<u32, ${mostCandidates}>;
fn merge_candidates(row: u32, rounds: u32, chunks: u32, thread: u32) {
  let part = (row * chunks + min(thread, chunks - 1u)) * ${partWords}u + 2u;
  var taken = select(${mostCandidates}u, 0u, thread < chunks);
  for (var r = 0u; r < rounds; r++) {
    if (taken < ${mostCandidates}u) {
      head_logit[thread] = bitcast<f32>(parts[part + taken]);
      head_id[thread] = parts[part + ${mostCandidates}u + taken];
    } else {
      head_logit[thread] = ${excluded};
      head_id[thread] = 0xffffffffu;
    }
    workgroupBarrier();
    if (thread < 16u) {
      var best = 16u * thread;
      for (var i = best + 1u; i < 16u * thread + 16u; i++) {
        if (head_logit[i] > head_logit[best] || (head_logit[i] == head_logit[best] && head_id[i] < head_id[best])) { best = i; }
      }
      group_logit[thread] = head_logit[best];
      group_id[thread] = head_id[best];
    }
    workgroupBarrier();
    var best = 0u;
    for (var i = 1u; i < 16u; i++) {
      if (group_logit[i] > group_logit[best] || (group_logit[i] == group_logit[best] && group_id[i] < group_id[best])) { best = i; }
    }
    if (thread == 0u) { top_logit[r] = group_logit[best]; top_id[r] = group_id[best]; }
    if (head_id[thread] == group_id[best]) { taken++; }
  }
  workgroupBarrier();
}`;

/** `close_list`: number of candidates to sample from; 0 if the list does not contain all of them. */
const listCode = /* wgsl */ `
var<workgroup> top_weight: array<f32, ${mostCandidates}>;
var<workgroup> list_count: u32;
var<workgroup> list_mass: f32;
var<workgroup> winner: atomic<u32>;
fn close_list(rounds: u32, whole_mass: f32, rule: Settings, thread: u32) {
  if (thread < rounds) { top_weight[thread] = weight_of(top_logit[thread], top_logit[0], rule.temperature); }
  if (thread == 0u) { atomicStore(&winner, 0u); }
  workgroupBarrier();
  if (thread > 0u) { return; }
  var all = whole_mass;
  if (rule.top_k > 0u) {
    all = 0.0;
    for (var r = 0u; r < rounds; r++) { all += top_weight[r]; }
  }
  let target_mass = select(3.0e38, rule.top_p * all, rule.top_p < 1.0);
  var closed = rule.top_k > 0u;
  var mass = 0.0;
  var count = 0u;
  for (var r = 0u; r < rounds; r++) {
    // The most probable token is always kept.
    if (r > 0u && (mass >= target_mass || top_weight[r] < rule.min_p)) { closed = true; break; }
    mass += top_weight[r];
    count++;
  }
  list_count = select(0u, count, closed || mass >= target_mass);
  list_mass = mass;
}
// By id: the last token whose predecessors have a total weight of at most the uniform.
fn draw_from_list(uniform_value: f32, thread: u32) {
  if (thread >= list_count) { return; }
  var before = 0.0;
  for (var other = 0u; other < list_count; other++) {
    if (top_id[other] < top_id[thread]) { before += top_weight[other]; }
  }
  if (top_weight[thread] > 0.0 && before <= uniform_value * list_mass) { atomicMax(&winner, top_id[thread]); }
}`;

/** The smallest logit of the nucleus, by bisection over the ordered bits of floats. */
const bisectionCode = /* wgsl */ `
fn key_of(logit: f32) -> u32 {
  let bits = bitcast<u32>(logit);
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
fn logit_of(key: u32) -> f32 { return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u)); }
/** Number and total weight of a chunk's tokens with at least this key and weight. */
fn chunk_from(row: u32, chunk: u32, key: u32, least: f32, rule: Settings) -> vec2f {
  if (chunk >= chunks_of(rule)) { return vec2f(); }
  let first = (row * chunks_of(rule) + chunk) * ${chunkTokens}u;
  var low = 0u;
  var high = ${chunkTokens}u;
  while (low < high) {
    let middle = (low + high) / 2u;
    let logit = sorted[first + middle].x;
    let holds = key_of(logit) >= key && weight_of(logit, top_logit[0], rule.temperature) >= least;
    low = select(low, middle + 1u, holds);
    high = select(middle, high, holds);
  }
  if (low == 0u) { return vec2f(); }
  let scale = weight_of(sorted[first].x, top_logit[0], rule.temperature);
  return vec2f(f32(low), sorted[first + low - 1u].y * scale);
}
/** The same for all tokens with at least this key; every thread gets it. */
fn mass_from(row: u32, key: u32, rule: Settings, thread: u32) -> f32 {
  reduce(thread, vec4f(chunk_from(row, thread, key, 0.0, rule).y, 0.0, 0.0, 0.0));
  let all = totals[0].x;
  workgroupBarrier();
  return all;
}
/** The nucleus: all tokens with a key above x, and the y lowest ids with this key. */
fn nucleus(row: u32, target_mass: f32, rule: Settings, thread: u32) -> vec2u {
  var low = key_of(top_logit[0] - 48.0 * rule.temperature);
  var high = key_of(top_logit[0]);
  for (var bit = 0u; bit < 32u; bit++) {
    let middle = low + (high - low + 1u) / 2u;
    let enough = mass_from(row, middle, rule, thread) >= target_mass;
    low = select(low, middle, enough);
    high = select(max(middle, low + 1u) - 1u, high, enough);
  }
  let missing = target_mass - mass_from(row, low + 1u, rule, thread);
  return vec2u(low, u32(clamp(ceil(missing / weight_of(logit_of(low), top_logit[0], rule.temperature)), 1.0, 1.0e6)));
}`;

/** Samples from any number of tokens: first the chunk, then its token, both by id. */
const walkCode = /* wgsl */ `
var<workgroup> masses: array<f32, ${threads}>;
var<workgroup> ties: array<u32, ${threads}>;
var<workgroup> ties_before_chunk: u32;
fn kept_weight(logit: f32, cut: vec2u, rule: Settings) -> f32 {
  let weight = weight_of(logit, top_logit[0], rule.temperature);
  return select(0.0, weight, key_of(logit) >= cut.x && weight >= rule.min_p);
}
fn ties_before(thread: u32) -> u32 {
  var sum = 0u;
  for (var i = 0u; i < thread; i++) { sum += ties[i]; }
  return sum;
}
fn mass_before(thread: u32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < thread; i++) { sum += masses[i]; }
  return sum;
}
fn draw_from_all(row: u32, chunk_mass: f32, whole: bool, uniform_value: f32, rule: Settings, thread: u32) {
  var cut = vec2u(key_of(top_logit[0] - 48.0 * rule.temperature), 0xffffffffu);
  let target_mass = rule.top_p * totals[0].x;
  workgroupBarrier();
  if (rule.top_p < 1.0) { cut = nucleus(row, target_mass, rule, thread); }
  // Kept tokens of a chunk: those above the cut, and its share of those at the cut.
  var mass = chunk_mass;
  var own_ties = 0u;
  var tie_weight = 0.0;
  if (!whole) {
    let above = chunk_from(row, thread, cut.x + 1u, rule.min_p, rule);
    mass = above.y;
    own_ties = u32(chunk_from(row, thread, cut.x, rule.min_p, rule).x - above.x);
    tie_weight = kept_weight(logit_of(cut.x), cut, rule);
  }
  ties[thread] = own_ties;
  workgroupBarrier();
  let earlier = ties_before(thread);
  mass += tie_weight * f32(min(own_ties, cut.y - min(cut.y, earlier)));
  masses[thread] = mass;
  workgroupBarrier();
  let drawn_mass = uniform_value * mass_before(${threads}u);
  if (mass > 0.0 && mass_before(thread) <= drawn_mass) { atomicMax(&winner, thread); }
  workgroupBarrier();
  let chunk = atomicLoad(&winner);
  let rest = drawn_mass - mass_before(chunk);
  if (thread == chunk) { ties_before_chunk = earlier; }
  workgroupBarrier();
  if (thread == 0u) { atomicStore(&winner, 0u); }
  draw_from_chunk(row, chunk, rest, cut, rule, thread);
}
fn draw_from_chunk(row: u32, chunk: u32, rest: f32, cut: vec2u, rule: Settings, thread: u32) {
  let first = chunk * ${chunkTokens}u + thread * ${each}u;
  let end = min(first + ${each}u, rule.vocabulary);
  var own_ties = 0u;
  for (var id = first; id < end; id++) {
    if (key_of(logits[row * rule.vocabulary + id]) == cut.x) { own_ties++; }
  }
  ties[thread] = own_ties;
  workgroupBarrier();
  let earlier = ties_before_chunk + ties_before(thread);
  var mass = 0.0;
  var seen = earlier;
  for (var id = first; id < end; id++) {
    let logit = logits[row * rule.vocabulary + id];
    let is_tie = key_of(logit) == cut.x;
    if (!is_tie || seen < cut.y) { mass += kept_weight(logit, cut, rule); }
    if (is_tie) { seen++; }
  }
  masses[thread] = mass;
  workgroupBarrier();
  var before = mass_before(thread);
  seen = earlier;
  for (var id = first; id < end; id++) {
    let logit = logits[row * rule.vocabulary + id];
    let is_tie = key_of(logit) == cut.x;
    let weight = select(0.0, kept_weight(logit, cut, rule), !is_tie || seen < cut.y);
    if (weight > 0.0 && before <= rest) { atomicMax(&winner, id); }
    before += weight;
    if (is_tie) { seen++; }
  }
}`;
