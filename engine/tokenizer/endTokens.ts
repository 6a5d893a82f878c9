/** Tokens that end a turn or the text, by the names that published vocabularies give them. */

/** As in llama.cpp's list of end-of-generation tokens, for the families that Hearth runs and their relatives. */
const names: readonly string[] = [
  '<|im_end|>', // ChatML: Qwen, SmolLM
  '<|endoftext|>',
  '<|eot_id|>', // Llama 3
  '<|eom_id|>',
  '<|end_of_text|>',
  '<｜end▁of▁sentence｜>', // DeepSeek
  '<|EOT|>', // DeepSeek-Coder
  '<|return|>', // GPT-OSS: the answer is complete
  '<|call|>', // GPT-OSS: a tool is called
  '<|end|>', // Phi
  '<end_of_turn>', // Gemma
  '</s>',
  '▁<EOT>', // CodeLlama
  // A model that fills the middle may go on with the next file.
  '<|fim_pad|>',
  '<|file_sep|>',
  '<|repo_name|>',
];

/** `idOf` must know framing tokens only; `published` are the ids that the checkpoint names itself. */
export function findEndIds(idOf: (token: string) => number | undefined, published: readonly number[]): Set<number> {
  const ids = new Set(published);
  for (const name of names) {
    const id = idOf(name);
    if (id !== undefined) ids.add(id);
  }
  // In harmony `<|end|>` ends a message, after which the same turn goes on (openai/harmony, docs/format.md).
  const messageEnd = idOf('<|end|>');
  if (messageEnd !== undefined && idOf('<|return|>') !== undefined) ids.delete(messageEnd);
  return ids;
}

export const endTokenNames: ReadonlySet<string> = new Set(names);
