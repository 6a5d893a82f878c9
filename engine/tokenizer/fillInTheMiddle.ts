/** Fill-in-the-middle: finds a vocabulary's FIM tokens and builds prompts from them. */
import type { FillInTheMiddle } from './tokenizer.ts';

interface Markers {
  readonly prefix: string;
  readonly suffix: string;
  readonly middle?: string;
  readonly order: FillInTheMiddle['order'];
  readonly fileSeparator?: string;
  readonly repositoryNames?: readonly string[];
  readonly pad?: string;
}

const published: readonly Markers[] = [
  // Qwen2.5-Coder and Qwen3 (README of QwenLM/Qwen2.5-Coder).
  {
    prefix: '<|fim_prefix|>',
    suffix: '<|fim_suffix|>',
    middle: '<|fim_middle|>',
    order: 'prefix-suffix-middle',
    fileSeparator: '<|file_sep|>',
    repositoryNames: ['<|repo_name|>'],
    pad: '<|fim_pad|>',
  },
  // DeepSeek: `hole` precedes the suffix, `end` precedes the completion.
  {
    prefix: '<｜fim▁begin｜>',
    suffix: '<｜fim▁hole｜>',
    middle: '<｜fim▁end｜>',
    order: 'prefix-suffix-middle',
  },
  // StarCoder, StarCoder2, Granite. SmolLM2 has their repository tokens but not these.
  {
    prefix: '<fim_prefix>',
    suffix: '<fim_suffix>',
    middle: '<fim_middle>',
    order: 'prefix-suffix-middle',
    fileSeparator: '<file_sep>',
    repositoryNames: ['<repo_name>', '<reponame>'],
    pad: '<fim_pad>',
  },
  // CodeLlama, as SentencePiece spells it.
  { prefix: '▁<PRE>', suffix: '▁<SUF>', middle: '▁<MID>', order: 'prefix-suffix-middle' },
  // Codestral: the suffix comes first and the completion continues the prefix (mistral-common, `encode_fim`).
  { prefix: '[PREFIX]', suffix: '[SUFFIX]', order: 'suffix-prefix-middle' },
];

/** Names that can't be ordinary words: a token with such a name is a FIM token. */
export const fillInTheMiddleNames: ReadonlySet<string> = new Set(
  published
    .flatMap((markers) => [markers.prefix, markers.suffix, markers.middle, markers.pad])
    .filter((name) => name?.includes('fim'))
    .filter((name) => name !== undefined),
);

/** The first published set that the vocabulary contains completely. `idOf` must know framing tokens only. */
export function findFillInTheMiddle(idOf: (token: string) => number | undefined): FillInTheMiddle | undefined {
  const optional = (name: string | undefined): number | undefined => (name === undefined ? undefined : idOf(name));
  for (const markers of published) {
    const prefix = idOf(markers.prefix);
    const suffix = idOf(markers.suffix);
    const middle = optional(markers.middle);
    if (prefix === undefined || suffix === undefined) continue;
    if (markers.middle !== undefined && middle === undefined) continue;
    const fileSeparator = optional(markers.fileSeparator);
    const repositoryName = markers.repositoryNames?.map(idOf).find((id) => id !== undefined);
    const pad = optional(markers.pad);
    return {
      prefix,
      suffix,
      order: markers.order,
      ...(middle === undefined ? {} : { middle }),
      ...(fileSeparator === undefined ? {} : { fileSeparator }),
      ...(repositoryName === undefined ? {} : { repositoryName }),
      ...(pad === undefined ? {} : { pad }),
    };
  }
  return undefined;
}

/** The prompt that the model continues with the missing middle. */
export function fillInTheMiddlePrompt(
  tokens: FillInTheMiddle,
  prefixIds: readonly number[],
  suffixIds: readonly number[],
): number[] {
  const before = [tokens.prefix, ...prefixIds];
  const after = [tokens.suffix, ...suffixIds];
  const parts = tokens.order === 'prefix-suffix-middle' ? [...before, ...after] : [...after, ...before];
  return tokens.middle === undefined ? parts : [...parts, tokens.middle];
}
