/**
 * The feed-forward part of one layer. Dense networks are recorded up to their last matmul, which the plan adds to the
 * residual stream; experts add their own output.
 */
import type { Activation, DenseSpec, ExpertsSpec } from '../../../model/spec/spec.ts';
import { expertsDownGroups, expertsDownKernel } from '../kernels/expertsDown.ts';
import { sigmoidGateGroups, sigmoidGateKernel } from '../kernels/gatedDelta.ts';
import {
  activationGroups,
  activationKernel,
  canRoute,
  type GatedShape,
  gatedVectorGroups,
  gatedVectorKernel,
  jointPieces,
} from '../kernels/gatedNetwork.ts';
import { mostTileTokens } from '../kernels/matrixTiles.ts';
import {
  combineExpertsGroups,
  combineExpertsKernel,
  type ExpertTilesShape,
  expertTilesGroups,
  expertTilesKernel,
  groupExpertsKernel,
} from '../kernels/promptExperts.ts';
import { routerKernel } from '../kernels/router.ts';
import type { GpuDense, GpuExperts, GpuLinear, GpuPlain } from './gpuWeights.ts';
import type { BlockOutput, Recorder } from './recorder.ts';
import { tokensPerRun } from './scratch.ts';

export function recordDense(recorder: Recorder, spec: DenseSpec, weights: GpuDense, norm: GPUBuffer): BlockOutput {
  const { scratch, spec: decoder } = recorder.parts;
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed);
  return recordGated(recorder, spec.activation, weights, x, gain);
}

export function recordPlain(recorder: Recorder, { up, down }: GpuPlain, norm: GPUBuffer): BlockOutput {
  const { scratch, spec: decoder } = recorder.parts;
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed);
  recorder.product(up, x, scratch.up, { ...gain, gelu: true });
  return { linear: down, x: scratch.up };
}

/** down(activation(gate · x) · (up · x)); `isScaled`: times the sigmoid of each row's number in `betas`. */
function recordGated(
  recorder: Recorder,
  activation: Activation,
  { gate, up, down }: GpuDense,
  x: GPUBuffer,
  { isScaled, ...gain }: { readonly gain?: GPUBuffer; readonly isScaled?: boolean },
): BlockOutput {
  const { inputs, scratch, gpu } = recorder.parts;
  const width = gate.weight.rows;
  if (recorder.rows === 'prompt') {
    recorder.product(gate, x, scratch.gate, gain);
    recorder.product(up, x, scratch.up, gain);
    recorder.add(activationKernel(activation, width), [scratch.gate, scratch.up], () =>
      activationGroups(width, inputs.tokens),
    );
  } else {
    for (const { buffers, ...shape } of gatedShapes(recorder, gate, up, width, activation, gain)) {
      const operands = [...buffers, x, ...(gain.gain ? [gain.gain] : []), scratch.up];
      const whole = { ...shape, tokens: recorder.rows };
      recorder.add(gatedVectorKernel(whole, gpu.capabilities), operands, gatedVectorGroups(whole));
    }
  }
  if (isScaled) {
    recorder.add(sigmoidGateKernel(width, 'one a row'), [scratch.betas, scratch.up], () =>
      sigmoidGateGroups(width, inputs.tokens),
    );
  }
  return { linear: down, x: scratch.up };
}

/** The dispatches of a gated matmul: one, except for matrices in pieces. */
function gatedShapes(
  recorder: Recorder,
  gate: GpuLinear,
  up: GpuLinear,
  rows: number,
  activation: Activation,
  { gain }: { readonly gain?: GPUBuffer },
): (Omit<GatedShape, 'tokens' | 'experts'> & { readonly buffers: readonly GPUBuffer[] })[] {
  const { normEpsilon } = recorder.parts.spec;
  return jointPieces(gate.weight.pieces, up.weight.pieces).map((joint) => ({
    gate: { ...joint.gate, ...(gate.weight.blockScale && { blockScale: gate.weight.blockScale }) },
    up: { ...joint.up, ...(up.weight.blockScale && { blockScale: up.weight.blockScale }) },
    firstRow: joint.firstRow,
    endRow: joint.endRow,
    rows,
    activation,
    ...(gain && { norm: { epsilon: normEpsilon } }),
    buffers: [joint.gate.buffer, joint.up.buffer],
  }));
}

export function recordExperts(recorder: Recorder, spec: ExpertsSpec, weights: GpuExperts, norm: GPUBuffer): void {
  const { scratch, spec: decoder } = recorder.parts;
  const isPrompt = recorder.rows === 'prompt';
  const onProcessor = weights.outside === 'computed' && recorder.computesExperts;
  const { x, gain } = recorder.normalised(scratch.hidden, norm, decoder.hiddenSize, scratch.normed, {
    once: onProcessor,
  });
  recorder.product(weights.router, x, scratch.scores, gain);
  if (isPrompt || weights.outside) recordRouter(recorder, spec, weights.selectionBias);
  if (weights.outside) recorder.cut(onProcessor ? (weights.shared ? 'give' : 'both') : 'send');
  if (!isPrompt && !onProcessor) recordExpertStates(recorder, spec, weights, x, gain);
  // After the experts' states, because they are computed from the residual stream that this changes.
  if (weights.shared) {
    const { sharedGate } = weights;
    if (sharedGate) recorder.product(sharedGate, x, scratch.betas, gain);
    recorder.addOutput(
      recordGated(recorder, spec.activation, weights.shared, x, { ...gain, isScaled: sharedGate !== undefined }),
    );
  }
  if (onProcessor) {
    if (weights.shared) recorder.cut('take');
  } else if (isPrompt) recordExpertTiles(recorder, spec, weights, x);
  else recordExpertsDown(recorder, spec, weights.down);
  if (isPrompt || onProcessor) recordCombined(recorder, spec.expertsPerToken);
}

/** Adds the chosen experts' outputs to the residual stream. */
function recordCombined(recorder: Recorder, topK: number): void {
  const { inputs, scratch, spec: decoder } = recorder.parts;
  recorder.add(
    combineExpertsKernel(decoder.hiddenSize, topK, true),
    [scratch.expertOutputs, scratch.expertWeights, scratch.hidden],
    () => combineExpertsGroups(decoder.hiddenSize, inputs.tokens),
  );
}

/** A prompt's experts, in tiles of the tokens that chose them. */
function recordExpertTiles(recorder: Recorder, spec: ExpertsSpec, { gate, up, down }: GpuExperts, x: GPUBuffer): void {
  const { inputs, scratch, spec: decoder, gpu } = recorder.parts;
  const { numExperts, expertsPerToken: topK, intermediateSize } = spec;
  const layouts = [gate, up, down].flatMap(({ weight }) => weight.pieces.map(({ layout }) => layout));
  const tileTokens = Math.min(...layouts.map(({ type }) => mostTileTokens(type, gpu.capabilities)));
  const grouping = { numExperts, topK, tileTokens, maxTokens: tokensPerRun(decoder, gpu.capabilities) };
  recorder.add(groupExpertsKernel(grouping), [scratch.experts, inputs.paramBuffer, scratch.grouping], [1]);
  const tiles = (linear: GpuLinear, rows: number, from: GPUBuffer, input: 'tokens' | 'visits', y: GPUBuffer) =>
    recordTiles(recorder, linear, { rows, input, grouping }, from, y);
  tiles(gate, intermediateSize, x, 'tokens', scratch.expertGates);
  tiles(up, intermediateSize, x, 'tokens', scratch.expertStates);
  const width = topK * intermediateSize;
  recorder.add(activationKernel(spec.activation, width), [scratch.expertGates, scratch.expertStates], () =>
    activationGroups(width, inputs.tokens),
  );
  tiles(down, decoder.hiddenSize, scratch.expertStates, 'visits', scratch.expertOutputs);
}

function recordTiles(
  recorder: Recorder,
  { weight, bias }: GpuLinear,
  options: Pick<ExpertTilesShape, 'rows' | 'input' | 'grouping'>,
  x: GPUBuffer,
  y: GPUBuffer,
): void {
  const { inputs, scratch, gpu } = recorder.parts;
  const rowsOfX = options.input === 'tokens' ? 1 : options.grouping.topK;
  const operand = recorder.tileOperand(x, weight.columns, rowsOfX);
  for (const { layout, firstRow, buffer } of weight.pieces) {
    const scale = weight.blockScale ? { blockScale: weight.blockScale } : {};
    const shape: ExpertTilesShape = { ...options, layout, firstRow, bias: bias !== undefined, ...scale };
    recorder.add(
      expertTilesKernel(shape, gpu.capabilities),
      [buffer, ...operand, ...(bias ? [bias] : []), scratch.grouping, y],
      () => expertTilesGroups(shape, inputs.tokens),
    );
  }
}

/** The router's choice from its scores, in a separate dispatch. */
function recordRouter(recorder: Recorder, spec: ExpertsSpec, selectionBias: GPUBuffer | undefined): void {
  const { inputs, scratch } = recorder.parts;
  recorder.add(
    routerKernel(spec, selectionBias !== undefined),
    [scratch.scores, ...(selectionBias ? [selectionBias] : []), scratch.experts, scratch.expertWeights],
    () => [inputs.tokens],
  );
}

/** activation(gate · x) · (up · x) of the chosen experts, into `expertStates`; routed in the same dispatch if the adapter allows it. */
function recordExpertStates(
  recorder: Recorder,
  spec: ExpertsSpec,
  { gate, up, selectionBias, outside }: GpuExperts,
  x: GPUBuffer,
  gain: { readonly gain?: GPUBuffer },
): void {
  const { inputs, scratch, gpu } = recorder.parts;
  const shapes = gatedShapes(recorder, gate, up, spec.intermediateSize, spec.activation, gain);
  const routes = !outside && shapes.length === 1 && canRoute(spec, gpu.capabilities);
  if (!routes && !outside) recordRouter(recorder, spec, selectionBias);
  const experts = { topK: spec.expertsPerToken, bias: gate.bias !== undefined, ...(routes && { routing: spec }) };
  const biases = gate.bias && up.bias ? [gate.bias, up.bias] : [];
  const choice = routes ? [scratch.scores, scratch.experts, scratch.expertWeights] : [scratch.experts];
  for (const { buffers, ...shape } of shapes) {
    const whole = { ...shape, experts, tokens: 1 };
    recorder.add(
      gatedVectorKernel(whole, gpu.capabilities),
      [...buffers, x, ...(gain.gain ? [gain.gain] : []), ...biases, ...choice, scratch.expertStates],
      () => gatedVectorGroups({ ...whole, tokens: inputs.tokens }),
    );
  }
}

function recordExpertsDown(recorder: Recorder, spec: ExpertsSpec, { weight, bias }: GpuLinear): void {
  const { inputs, scratch, gpu, spec: decoder } = recorder.parts;
  for (const { layout, firstRow, buffer } of weight.pieces) {
    const shape = {
      layout,
      firstRow,
      rows: decoder.hiddenSize,
      topK: spec.expertsPerToken,
      bias: bias !== undefined,
      accumulate: true,
      ...(weight.blockScale && { blockScale: weight.blockScale }),
    };
    recorder.add(
      expertsDownKernel(shape, gpu.capabilities),
      [buffer, scratch.expertStates, ...(bias ? [bias] : []), scratch.experts, scratch.expertWeights, scratch.hidden],
      () => expertsDownGroups(shape, inputs.tokens),
    );
  }
}
