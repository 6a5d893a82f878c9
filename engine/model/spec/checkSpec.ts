/** Relations between the sizes of a configuration that no single field shows. */
import { invalidInput } from '../../errors.ts';
import type { AttentionSpec, DecoderSpec, ExpertsSpec } from './spec.ts';

/** @throws HearthError `invalid-input` saying which sizes do not go together. */
export function checkedSpec(spec: DecoderSpec): DecoderSpec {
  for (const { attention, feedForward } of spec.layers) {
    checkAttention(attention);
    if (feedForward.kind === 'experts') checkExperts(feedForward);
  }
  return spec;
}

function checkAttention(attention: AttentionSpec): void {
  const { dimensions, frequencyFactors } = attention.rope;
  const headDim = attention.kind === 'latent' ? attention.ropeHeadDim : attention.headDim;
  require(Number.isInteger(headDim), `a head of ${headDim} elements`);
  require(dimensions % 2 === 0 && dimensions <= headDim, `rotating ${dimensions} of a head's ${headDim} elements`);
  require(frequencyFactors === undefined ||
    frequencyFactors.length ===
      dimensions / 2, `${frequencyFactors?.length} rotary factors for ${dimensions / 2} pairs`);
  if (attention.kind === 'grouped-query') {
    const { numAttentionHeads, numKeyValueHeads } = attention;
    require(numAttentionHeads % numKeyValueHeads ===
      0, `${numAttentionHeads} query heads on ${numKeyValueHeads} key-value heads`);
  }
}

function checkExperts({ numExperts, expertsPerToken, router }: ExpertsSpec): void {
  require(expertsPerToken <= numExperts, `choosing ${expertsPerToken} of ${numExperts} experts`);
  if (router.kind !== 'sigmoid-grouped') return;
  const { groups, groupsUsed } = router;
  require(numExperts % groups === 0, `${numExperts} experts in ${groups} groups`);
  require(groupsUsed <= groups &&
    expertsPerToken <=
      (numExperts / groups) * groupsUsed, `choosing ${expertsPerToken} experts from ${groupsUsed} of ${groups} groups`);
}

function require(condition: boolean, relation: string): void {
  if (!condition) throw invalidInput(`The configuration asks for ${relation}, which cannot be.`);
}
