/**
 * `npm run proof:schemas [-- MODEL…]`: the whole JSON-Schema-Test-Suite, token by token, with the published vocabularies in
 * `../shared/models`: every token of a valid answer is in the mask; for an invalid answer, some token or the end is not. Then 2,000
 * schemas in a row, most of them refused. Prints the tables of docs/proof.md; fails if a claim does not hold.
 */
import { existsSync } from 'node:fs';
import { HearthError } from '../../engine/errors.ts';
import type { Machine, State } from '../../engine/grammar/machine.ts';
import { TokenTrie } from '../../engine/grammar/tokenTrie.ts';
import { Grammars, spellingOf } from '../../engine/sampling/grammar.ts';
import type { Tokenizer } from '../../engine/tokenizer/tokenizer.ts';
import { drafts, isOtherwise, machineOf, type SuiteGroup, styles, suiteGroups } from '../unit/grammar/schemaSuite.ts';
import { sharedFile } from '../unit/shared.ts';
import { publishedModels, publishedTokenizer } from '../unit/tokenizer/vocabularies.ts';

const asked = process.argv.slice(2);
const models = (asked.length > 0 ? asked : publishedModels).filter((model) =>
  existsSync(sharedFile(`models/${model}/tokenizer.json`)),
);

interface Figures {
  valid: number;
  invalid: number;
  checkedAfter: number;
  refusedSchemas: number;
  readonly wrong: string[];
  readonly compileMs: number[];
  readonly maskMs: number[];
}

const quantile = (values: readonly number[], share: number): string =>
  ([...values].sort((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? 0).toFixed(2);

class Walker {
  readonly #tokenizer: Tokenizer;
  readonly #trie: TokenTrie;
  readonly #figures: Figures;

  constructor(tokenizer: Tokenizer, trie: TokenTrie, figures: Figures) {
    this.#tokenizer = tokenizer;
    this.#trie = trie;
    this.#figures = figures;
  }

  /** Every token is allowed where it stands, and the text may end. */
  takes(machine: Machine, masks: Map<State, Int32Array>, text: string): boolean {
    let state = machine.state(machine.start);
    for (const id of this.#tokenizer.encode(text, { special: 'plain' })) {
      const mask = this.#mask(machine, masks, state);
      const next = ((mask[id >> 5] ?? 0) >> (id & 31)) & 1 ? machine.take(state, this.#trie.spelled(id)) : null;
      if (next === null) return false;
      state = next;
    }
    return state.mayEnd;
  }

  #mask(machine: Machine, masks: Map<State, Int32Array>, state: State): Int32Array {
    const abstracted = machine.abstracted(state);
    const begin = processorMs();
    const mask = masks.get(abstracted) ?? this.#trie.mask(machine, abstracted);
    this.#figures.maskMs.push(processorMs() - begin);
    masks.set(abstracted, mask);
    return mask;
  }
}

/** CPU time, which other work on the machine does not change much. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function walkGroup(walker: Walker, group: SuiteGroup, figures: Figures): void {
  const begin = processorMs();
  let machine: Machine;
  try {
    machine = machineOf(group.schema);
  } catch (error) {
    if (!(error instanceof HearthError)) throw error;
    figures.refusedSchemas++;
    return;
  } finally {
    figures.compileMs.push(processorMs() - begin);
  }
  const masks = new Map<State, Int32Array>();
  for (const { data, valid, description } of group.tests) {
    for (const text of styles(data)) {
      const taken = walker.takes(machine, masks, text);
      if (!valid && machine.loose.length > 0) figures.checkedAfter++;
      else if (taken !== valid) figures.wrong.push(`${group.keyword}: ${group.description}: ${description}: ${text}`);
      else if (valid) figures.valid++;
      else figures.invalid++;
    }
  }
}

async function walkSuite(model: string): Promise<boolean> {
  const tokenizer = await publishedTokenizer(model);
  const trie = new TokenTrie(await spellingOf(tokenizer));
  const figures: Figures = {
    valid: 0,
    invalid: 0,
    checkedAfter: 0,
    refusedSchemas: 0,
    wrong: [],
    compileMs: [],
    maskMs: [],
  };
  const walker = new Walker(tokenizer, trie, figures);
  for (const draft of drafts)
    for (const group of suiteGroups(draft)) if (!isOtherwise(group)) walkGroup(walker, group, figures);
  const { valid, invalid, checkedAfter, refusedSchemas, wrong, compileMs, maskMs } = figures;
  const times = [compileMs, maskMs].map(
    (own) => `${quantile(own, 0.5)} / ${quantile(own, 0.95)} / ${quantile(own, 1)}`,
  );
  const counts = [valid, invalid, wrong.length, checkedAfter, refusedSchemas];
  console.log(`| ${model} (${tokenizer.vocabularySize}) | ${counts.join(' | ')} | ${times.join(' | ')} |`);
  for (const line of wrong.slice(0, 20)) console.error(line);
  return wrong.length === 0;
}

const nested = (depth: number): unknown =>
  Array.from({ length: depth }).reduce<unknown>((schema) => ({ properties: { a: schema } }), {});

/** Schemas in a row, of which most are refused. */
async function manySchemas(model: string): Promise<boolean> {
  const grammars = new Grammars(await publishedTokenizer(model));
  const kinds: readonly object[] = [
    { type: 'strange' },
    { $ref: '#' },
    { $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' },
    { pattern: '(' },
    { pattern: '(a{1,200}){1,200}' },
    nested(500) as object,
    nested(55) as object,
    { type: 'string', maxLength: 1e6 },
    { properties: { a: false }, required: ['a'] },
    { type: 'integer', minimum: -5, maximum: 130 },
  ];
  let refused = 0;
  const begin = performance.now();
  for (let i = 0; i < 2000; i++) {
    const schema = { ...kinds[i % kinds.length], title: String(i) };
    try {
      (await grammars.walk({ form: [[{ kind: 'json', schema }]], last: true })).close();
    } catch (error) {
      if (!(error instanceof HearthError)) throw error;
      refused++;
    }
  }
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  const walk = await grammars.walk({ form: [[{ kind: 'json', schema: { const: 1 } }]], last: true });
  await grammars.close();
  console.log(
    `\n2,000 schemas in ${seconds} s with ${model}: ${refused} refused; the next one is followed: ${walk.allowed !== undefined}.`,
  );
  return walk.allowed !== undefined;
}

if (models.length === 0) {
  console.log('No published vocabulary lies beside the project (../shared/models): nothing was proved.');
} else {
  console.log(
    '| vocabulary | valid taken | invalid out of reach | wrong | checked afterwards | schemas refused | compile ms (p50 / p95 / max) | mask ms |',
  );
  console.log('| --- | --- | --- | --- | --- | --- | --- | --- |');
  let holds = true;
  for (const model of models) holds = (await walkSuite(model)) && holds;
  holds = (await manySchemas(models[0] ?? '')) && holds;
  process.exitCode = holds ? 0 : 1;
}
