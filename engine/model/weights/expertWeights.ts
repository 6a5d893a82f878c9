/** Locates the weights of experts: one tensor an expert (Hugging Face), or all experts in one tensor (GGUF). */

import type { ExpertsSpec } from '../spec/spec.ts';
import type { LayerContext } from './decoderWeights.ts';
import { denseWeights } from './decoderWeights.ts';
import type { TensorTable } from './tensorTable.ts';
import type { ExpertsWeights, Linear, Weight } from './weights.ts';
import { joinRows, type RowSelection, selectRows, stackedWeight } from './weightViews.ts';

type ExpertLinears = Pick<ExpertsWeights, 'gate' | 'up' | 'down'>;

export function expertsOf({ layer }: LayerContext): ExpertsSpec {
  if (layer.feedForward.kind !== 'experts') throw new Error('A dense layer has no experts.');
  return layer.feedForward;
}

export function routerOf({ table, spec, names }: LayerContext, { numExperts, bias }: ExpertsSpec): Linear {
  return table.linear(names.router, [numExperts, spec.hiddenSize], bias);
}

/** `experts.E.gate_proj.weight`, one `[intermediate, hidden]` an expert. */
export function expertsApart({ table, spec }: LayerContext, experts: ExpertsSpec, prefix: string): ExpertLinears {
  const { numExperts, intermediateSize } = experts;
  const parts = Array.from({ length: numExperts }, (_, expert) =>
    denseWeights(
      table,
      spec.hiddenSize,
      { intermediateSize },
      {
        gate: `${prefix}.${expert}.gate_proj`,
        up: `${prefix}.${expert}.up_proj`,
        down: `${prefix}.${expert}.down_proj`,
      },
    ),
  );
  return {
    gate: { weight: stackedWeight(parts.map(({ gate }) => gate)) },
    up: { weight: stackedWeight(parts.map(({ up }) => up)) },
    down: { weight: stackedWeight(parts.map(({ down }) => down)) },
  };
}

/** `blk.N.ffn_gate_exps` etc.: `[experts, intermediate, hidden]`; newer files may fuse gate and up. */
export function ggufExperts({ table, spec, index }: LayerContext, experts: ExpertsSpec): ExpertLinears {
  const { numExperts, intermediateSize, bias } = experts;
  const layer = `blk.${index}`;
  const stacked = (stem: string, rows: number, columns: number): Linear => ({
    weight: table.weight(`${stem}.weight`, [numExperts, rows, columns]),
    ...(bias && { bias: table.weight(`${stem}.bias`, [numExperts, rows]) }),
  });
  const down = stacked(`${layer}.ffn_down_exps`, spec.hiddenSize, intermediateSize);
  const fused = `${layer}.ffn_gate_up_exps`;
  if (table.has(`${fused}.weight`)) {
    // All gate rows of an expert, then all up rows (llama.cpp llama-graph.cpp, build_moe_ffn).
    const half = { period: 2 * intermediateSize, length: intermediateSize };
    const gate = expertRows(table, fused, experts, spec.hiddenSize, { ...half, offset: 0 });
    const up = expertRows(table, fused, experts, spec.hiddenSize, { ...half, offset: intermediateSize });
    return { gate, up, down };
  }
  return {
    gate: stacked(`${layer}.ffn_gate_exps`, intermediateSize, spec.hiddenSize),
    up: stacked(`${layer}.ffn_up_exps`, intermediateSize, spec.hiddenSize),
    down,
  };
}

function expertRows(
  table: TensorTable,
  stem: string,
  { numExperts, intermediateSize, bias }: ExpertsSpec,
  hiddenSize: number,
  selection: RowSelection,
): Linear {
  const both = table.weight(`${stem}.weight`, [numExperts, 2 * intermediateSize, hiddenSize]);
  return {
    weight: selectRows(both, selection, [numExperts, intermediateSize, hiddenSize]),
    ...(bias && {
      bias: selectedBias(table, `${stem}.bias`, {
        stored: [numExperts, 2 * intermediateSize],
        selection,
        shape: [numExperts, intermediateSize],
      }),
    }),
  };
}

/** The elements of a stored bias that belong to the selected rows, with the given shape. */
export function selectedBias(
  table: TensorTable,
  name: string,
  {
    stored,
    selection,
    shape,
  }: {
    readonly stored: readonly number[];
    readonly selection: RowSelection;
    readonly shape: readonly number[];
  },
): Weight {
  const count = (dimensions: readonly number[]) => dimensions.reduce((product, dimension) => product * dimension, 1);
  const elements = table.weight(name, stored, [count(stored), 1]);
  return joinRows(selectRows(elements, selection, [count(shape), 1]), shape);
}
