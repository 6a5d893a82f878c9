/**
 * Sampling, first half: applies penalties to the logits in place, and finds the 64 most probable tokens of every chunk
 * of 1024, in order, with the chunk's sum of probabilities. For top-p, whose set may be larger, sorts all tokens of the
 * chunk, each with the sum up to it. `sampleDraw` is the second half.
 *
 * Bindings: settings (one a row), history u32 `[rows, ceil(vocabulary / 16)]` (two bits a token: in the sequence, in the
 * answer), forbidden u32 `[rows, ceil(vocabulary / 32)]` (a bit a token); logits `[rows, vocabulary]`, parts u32 (write), sorted `[rows, chunks, 1024]`
 * (logit, sum of weights up to it against the chunk's largest; write).
 * Workgroup: 256 threads a chunk; groups: chunks in x, rows in y. Needs nothing; uses subgroups. Must equal `without` of
 * backend/sampler.ts, then its `penalise` without its logit bias.
 */
import type { SamplingParams } from '../../backend.ts';
import type { GpuCapabilities } from '../device/adapter.ts';
import type { KernelSource } from '../device/gpu.ts';
import { declareBuffers, read, reductionCode, subgroupsEnable, write } from './bindings.ts';

export const chunkTokens = 1024;
/** Candidates of a chunk: the largest top-k that the GPU samples. */
export const mostCandidates = 64;
/** The second half has one thread for each chunk. */
export const mostChunks = 256;
/** Replaces NaN logits; larger than any other, so that no token is sampled. */
export const notANumber = '3.4e38';
/** Minus infinity, which WGSL does not guarantee. */
export const excluded = '-3.0e38';

/** Whether the GPU samples like the CPU, except for rounding. */
export function samplesOnGpu({ temperature, topK }: SamplingParams, vocabularySize: number): boolean {
  return vocabularySize <= mostChunks * chunkTokens && (temperature === 0 || topK <= mostCandidates);
}

export const settingsWords = 8;

/** One row of `settings`. */
export function packSettings(
  settings: SamplingParams,
  { forbids, vocabularySize }: { readonly forbids: boolean; readonly vocabularySize: number },
): Uint32Array<ArrayBuffer> {
  const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty } = settings;
  const greedy = temperature === 0;
  const words = new Uint32Array(settingsWords);
  const floats = [greedy ? 1 : temperature, topP, minP, repetitionPenalty, presencePenalty];
  new Float32Array(words.buffer).set(floats);
  words[5] = greedy ? 1 : topK;
  words[6] = forbids ? 1 : 0;
  words[7] = vocabularySize;
  return words;
}

/** Avoids overflow: a logit 80 temperatures below the largest has no weight. */
export const settingsCode = /* wgsl */ `
struct Settings { temperature: f32, top_p: f32, min_p: f32, repetition: f32, presence: f32, top_k: u32, forbids: u32, vocabulary: u32 }
fn chunks_of(rule: Settings) -> u32 { return (rule.vocabulary + ${chunkTokens - 1}u) / ${chunkTokens}u; }
fn history_words(rule: Settings) -> u32 { return (rule.vocabulary + 15u) / 16u; }
fn forbidden_words(rule: Settings) -> u32 { return (rule.vocabulary + 31u) / 32u; }
fn weight_of(logit: f32, largest: f32, temperature: f32) -> f32 {
  let least = -80.0 * temperature;
  let difference = max(logit - largest, least);
  return select(0.0, exp(difference / temperature), difference > least);
}`;

/** Words of one chunk in `parts`: sum, largest logit, candidates' logits, their ids. */
export const partWords = 2 + 2 * mostCandidates;
export const chunksOf = (vocabularySize: number): number => Math.ceil(vocabularySize / chunkTokens);
export const historyWords = (vocabularySize: number): number => Math.ceil(vocabularySize / 16);
export const forbiddenWords = (vocabularySize: number): number => Math.ceil(vocabularySize / 32);

const threads = 256;
const each = chunkTokens / threads;

export function sampleChunksKernel(capabilities: GpuCapabilities): KernelSource {
  const buffers = declareBuffers([
    read('settings', 'Settings'),
    read('history', 'u32'),
    read('forbidden', 'u32'),
    write('logits'),
    write('parts', 'u32'),
    write('sorted', 'vec2f'),
  ]);
  const own = Array.from({ length: each }, (_, i) => i);
  const code = /* wgsl */ `
${subgroupsEnable(capabilities)}
${settingsCode}
${buffers.code}
var<workgroup> keys: array<f32, ${chunkTokens}>;
var<workgroup> ids: array<u32, ${chunkTokens}>;
var<workgroup> sums: array<f32, ${threads}>;
${reductionCode(1, threads, capabilities)}
fn penalised(stored: f32, bits: u32, rule: Settings) -> f32 {
  var logit = max(stored, ${excluded});
  if ((bits & 1u) != 0u && rule.repetition != 1.0) {
    logit = select(logit * rule.repetition, logit / rule.repetition, logit > 0.0);
  }
  if ((bits & 2u) != 0u) { logit -= rule.presence; }
  // No negative zero: the order of floats is then that of their bits.
  logit = select(max(logit, ${excluded}), 0.0, logit == 0.0);
  return select(logit, ${notANumber}, (bitcast<u32>(stored) & 0x7fffffffu) > 0x7f800000u);
}
fn before(a: u32, b: u32) -> bool { return keys[a] > keys[b] || (keys[a] == keys[b] && ids[a] < ids[b]); }
/** Bitonic sort: largest first, ties by lower id. */
fn sort(thread: u32) {
  for (var size = 2u; size <= ${chunkTokens}u; size *= 2u) {
    for (var stride = size / 2u; stride > 0u; stride /= 2u) {
      workgroupBarrier();
      for (var pair = thread; pair < ${chunkTokens / 2}u; pair += ${threads}u) {
        let low = 2u * pair - (pair & (stride - 1u));
        let high = low + stride;
        if (before(high, low) == ((low & size) == 0u)) {
          let key = keys[low]; keys[low] = keys[high]; keys[high] = key;
          let id = ids[low]; ids[low] = ids[high]; ids[high] = id;
        }
      }
    }
  }
  workgroupBarrier();
}
/** The sorted chunk with sums of weights, ${each} tokens a thread. */
fn write_sorted(chunk: u32, rule: Settings, thread: u32) {
  var own: array<f32, ${each}>;
  var sum = 0.0;
  for (var i = 0u; i < ${each}u; i++) {
    sum += weight_of(keys[${each}u * thread + i], keys[0], rule.temperature);
    own[i] = sum;
  }
  sums[thread] = sum;
  workgroupBarrier();
  var before = 0.0;
  for (var i = 0u; i < thread; i++) { before += sums[i]; }
  if (rule.top_k > 0u || (rule.top_p >= 1.0 && rule.min_p <= 0.0)) { return; }
  for (var i = 0u; i < ${each}u; i++) {
    let at = ${each}u * thread + i;
    sorted[chunk * ${chunkTokens}u + at] = vec2f(keys[at], before + own[i]);
  }
}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let rule = settings[group.y];
  for (var i = thread; i < ${chunkTokens}u; i += ${threads}u) {
    let id = group.x * ${chunkTokens}u + i;
    var key = ${excluded};
    if (id < rule.vocabulary) {
      let at = group.y * rule.vocabulary + id;
      let word = history[group.y * history_words(rule) + id / 16u];
      key = penalised(logits[at], (word >> (2u * (id & 15u))) & 3u, rule);
      if (rule.forbids != 0u && ((forbidden[group.y * forbidden_words(rule) + id / 32u] >> (id & 31u)) & 1u) != 0u) {
        key = ${excluded};
      }
      logits[at] = key;
    }
    keys[i] = key;
    ids[i] = id;
  }
  sort(thread);
  let largest = keys[0];
  let sum = vec4f(${own.map((i) => `weight_of(keys[thread + ${i * threads}u], largest, rule.temperature)`).join(', ')});
  reduce(thread, sum);
  let chunk = group.y * chunks_of(rule) + group.x;
  write_sorted(chunk, rule, thread);
  let part = chunk * ${partWords}u;
  if (thread == 0u) {
    parts[part] = bitcast<u32>(dot(totals[0], vec4f(1.0)));
    parts[part + 1u] = bitcast<u32>(largest);
  }
  if (thread < ${mostCandidates}u) {
    parts[part + 2u + thread] = bitcast<u32>(keys[thread]);
    parts[part + ${2 + mostCandidates}u + thread] = ids[thread];
  }
}
`;
  return { label: 'sampleChunks', code, bindings: buffers.bindings };
}
