/** Reads a tokenizer.json's `normalizer` and `pre_tokenizer`: the steps before merging. */
import { z } from 'zod';
import { firstIssue, invalidInput, unsupported } from '../errors.ts';
import { limits } from '../limits.ts';
import { gpt2Pattern, isPublishedPattern, regexStep, type SplitStep, textStep } from './preTokenise.ts';

type Normalise = (text: string, first: boolean) => string;

const typed = z.object({ type: z.string() });
const pattern = z.union([z.object({ String: z.string() }), z.object({ Regex: z.string() })]);

const sequenceNormaliser = z.object({ normalizers: z.array(z.unknown()).max(limits.text.patternSteps) });
const prepend = z.object({ prepend: z.string() });
const replace = z.object({ pattern: z.object({ String: z.string().min(1) }), content: z.string() });

/**
 * @throws HearthError `unsupported` naming a normaliser that byte-pair vocabularies don't use, `invalid-input` if a text
 * would grow too much.
 */
export function readNormaliser(config: unknown): (text: string) => string {
  const steps = normalisersOf(config, 0);
  if (steps.length > limits.text.patternSteps)
    throw invalidInput(`The tokenizer has too many normalizers: ${steps.length}.`);
  let growth = 1;
  for (const step of steps) growth *= growthOf(step);
  if (growth > limits.text.normaliserGrowth)
    throw invalidInput(`The tokenizer's normalizer makes texts ${growth} times as long.`);
  const functions = steps.map(readStep);
  return (text) => functions.reduce((value, step) => step(value), text);
}

/** Sequences may hold sequences. */
function normalisersOf(config: unknown, depth: number): unknown[] {
  if (config === null || config === undefined) return [];
  if (depth > limits.text.patternSteps) throw invalidInput("The tokenizer's normalizers are nested too deeply.");
  if (parse(typed, config, 'normalizer').type !== 'Sequence') return [config];
  return parse(sequenceNormaliser, config, 'Sequence').normalizers.flatMap((step) => normalisersOf(step, depth + 1));
}

/** Factor by which a step may lengthen a text. An added beginning counts in full, because short texts get it too. */
function growthOf(config: unknown): number {
  const replaced = replace.safeParse(config).data;
  if (replaced) return Math.max(1, replaced.content.length / replaced.pattern.String.length);
  return Math.max(1, prepend.safeParse(config).data?.prepend.length ?? 1);
}

function readStep(config: unknown): (text: string) => string {
  const { type } = parse(typed, config, 'normalizer');
  switch (type) {
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return (text) => text.normalize(type);
    case 'Prepend': {
      const start = parse(prepend, config, type).prepend;
      return (text) => (text === '' ? '' : start + text);
    }
    case 'Replace': {
      const { pattern: from, content } = parse(replace, config, type);
      return (text) => text.replaceAll(from.String, () => content);
    }
    default:
      throw unsupported(`The tokenizer's normalizer "${type}" is not supported.`);
  }
}

export interface PreTokeniser {
  readonly steps: readonly SplitStep[];
  readonly byteLevel: boolean;
  /** Applied before the steps; the identity unless spaces are prefixed or escaped. */
  readonly prepare: Normalise;
}

const split = z.object({ pattern, behavior: z.string(), invert: z.boolean().default(false) });
const digits = z.object({ individual_digits: z.boolean().default(false) });
const byteLevel = z.object({ add_prefix_space: z.boolean().default(true), use_regex: z.boolean().default(true) });
const metaspace = z.object({
  replacement: z.string().default('▁'),
  prepend_scheme: z.enum(['always', 'first', 'never']).optional(),
  add_prefix_space: z.boolean().default(true),
  split: z.boolean().default(true),
});
const sequence = z.object({ pretokenizers: z.array(z.unknown()).max(limits.text.patternSteps) });

/** @throws HearthError `unsupported` naming a step that byte-pair vocabularies don't use. */
export function readPreTokeniser(config: unknown): PreTokeniser {
  const steps: SplitStep[] = [];
  let isByteLevel = false;
  let prepare: Normalise = (text) => text;
  for (const item of flatten(config)) {
    const { type } = parse(typed, item, 'pre_tokenizer');
    switch (type) {
      case 'Split':
        steps.push(readSplit(item));
        break;
      case 'Digits':
        steps.push(regexStep(parse(digits, item, type).individual_digits ? '\\p{N}' : '\\p{N}+', 'both', true));
        break;
      case 'ByteLevel': {
        const level = parse(byteLevel, item, type);
        isByteLevel = true;
        if (level.add_prefix_space) prepare = prefixed(prepare, steps);
        if (level.use_regex) steps.push(regexStep(gpt2Pattern, 'both', true));
        break;
      }
      case 'Metaspace': {
        const space = parse(metaspace, item, type);
        const scheme = space.prepend_scheme ?? (space.add_prefix_space ? 'always' : 'never');
        prepare = escaped(prepare, space.replacement, scheme);
        if (space.split) steps.push(regexStep(wordsAfter(space.replacement), 'both', true));
        break;
      }
      default:
        throw unsupported(`The tokenizer's pre_tokenizer "${type}" is not supported.`);
    }
  }
  if (steps.length > limits.text.patternSteps)
    throw invalidInput(`The tokenizer has too many split steps: ${steps.length}.`);
  return { steps, byteLevel: isByteLevel, prepare };
}

function flatten(config: unknown): unknown[] {
  if (config === null || config === undefined) return [];
  if (parse(typed, config, 'pre_tokenizer').type !== 'Sequence') return [config];
  return parse(sequence, config, 'Sequence').pretokenizers;
}

function readSplit(config: unknown): SplitStep {
  const { pattern: where, behavior, invert } = parse(split, config, 'Split');
  const keep = behavior === 'Isolated' ? 'both' : invert ? 'matches' : 'between';
  if (behavior !== 'Isolated' && behavior !== 'Removed') {
    throw unsupported(`The tokenizer splits with behavior "${behavior}", which is not supported.`);
  }
  return 'Regex' in where
    ? regexStep(where.Regex, keep, isPublishedPattern(where.Regex))
    : textStep(where.String, keep);
}

/** Every mark starts a piece that extends to the next mark. */
function wordsAfter(mark: string): string {
  const code = `\\x{${mark.codePointAt(0)?.toString(16)}}`;
  return `${code}?[^${code}]+|${code}`;
}

function prefixed(prepare: Normalise, steps: readonly SplitStep[]): Normalise {
  if (steps.length > 0) throw unsupported('The tokenizer adds a space before every piece, which is not supported.');
  return (text, first) => {
    const prepared = prepare(text, first);
    return prepared.startsWith(' ') ? prepared : ` ${prepared}`;
  };
}

function escaped(prepare: Normalise, mark: string, scheme: 'always' | 'first' | 'never'): Normalise {
  if ([...mark].length !== 1) throw invalidInput('The tokenizer replaces spaces by more than one character.');
  return (text, first) => {
    const marked = prepare(text, first).replaceAll(' ', mark);
    const wanted = scheme === 'always' || (scheme === 'first' && first);
    return wanted && !marked.startsWith(mark) ? mark + marked : marked;
  };
}

function parse<T>(schema: z.ZodType<T>, value: unknown, name: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw invalidInput(`The tokenizer's ${name} is malformed: ${firstIssue(result.error.issues)}.`);
}
