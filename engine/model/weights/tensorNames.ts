/**
 * Tensor names. Hugging Face names come from transformers' module tree, GGUF names from llama.cpp's
 * `gguf-py/gguf/constants.py`. A family spreads a table and overrides the names that differ.
 */

export interface DecoderNames {
  readonly embedding: string;
  readonly finalNorm: string;
  readonly head: string;
  layer(index: number): LayerNames;
}

/** Linear layers are stems, completed by `.weight` and `.bias`. Norms and sinks are full names. */
export interface LayerNames {
  readonly attentionNorm: string;
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly output: string;
  readonly queryNorm: string;
  readonly keyNorm: string;
  readonly sinks: string;
  readonly feedForwardNorm: string;
  /** Of families with `postNorms`. */
  readonly attentionPostNorm?: string;
  readonly feedForwardPostNorm?: string;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
  readonly router: string;
}

export const huggingFaceNames: DecoderNames = {
  embedding: 'model.embed_tokens.weight',
  finalNorm: 'model.norm.weight',
  head: 'lm_head.weight',
  layer(index) {
    const layer = `model.layers.${index}`;
    return {
      attentionNorm: `${layer}.input_layernorm.weight`,
      query: `${layer}.self_attn.q_proj`,
      key: `${layer}.self_attn.k_proj`,
      value: `${layer}.self_attn.v_proj`,
      output: `${layer}.self_attn.o_proj`,
      queryNorm: `${layer}.self_attn.q_norm.weight`,
      keyNorm: `${layer}.self_attn.k_norm.weight`,
      sinks: `${layer}.self_attn.sinks`,
      feedForwardNorm: `${layer}.post_attention_layernorm.weight`,
      gate: `${layer}.mlp.gate_proj`,
      up: `${layer}.mlp.up_proj`,
      down: `${layer}.mlp.down_proj`,
      router: `${layer}.mlp.gate`,
    };
  },
};

export const ggufNames: DecoderNames = {
  embedding: 'token_embd.weight',
  finalNorm: 'output_norm.weight',
  head: 'output.weight',
  layer(index) {
    const layer = `blk.${index}`;
    return {
      attentionNorm: `${layer}.attn_norm.weight`,
      query: `${layer}.attn_q`,
      key: `${layer}.attn_k`,
      value: `${layer}.attn_v`,
      output: `${layer}.attn_output`,
      queryNorm: `${layer}.attn_q_norm.weight`,
      keyNorm: `${layer}.attn_k_norm.weight`,
      sinks: `${layer}.attn_sinks.weight`,
      feedForwardNorm: `${layer}.ffn_norm.weight`,
      attentionPostNorm: `${layer}.post_attention_norm.weight`,
      feedForwardPostNorm: `${layer}.post_ffw_norm.weight`,
      gate: `${layer}.ffn_gate`,
      up: `${layer}.ffn_up`,
      down: `${layer}.ffn_down`,
      router: `${layer}.ffn_gate_inp`,
    };
  },
};
