/**
 * `npm run proof:tokens [-- FILE.gguf…]`: how close each CPU backend as shipped, and llama.cpp if a llama-server is found, are to the exact logits.
 * For golden checkpoints these are Hugging Face transformers'; for other files the reference backend's, after a text of this project.
 * Every token is computed by itself behind a cached prompt, as in an answer. Prints the table of docs/proof.md.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fetch } from 'undici';
import { z } from 'zod';
import { openModel } from '../../engine/model/open.ts';
import { type BackendChoice, loadDecoder } from '../../engine/runtime/backends.ts';
import { argmax, goldenCases, readGolden } from '../unit/goldens.ts';
import { findLlamaServer, startLlamaServer, token } from '../unit/runtime/remote/peers.ts';

/** Long enough for every golden prompt. */
const contextTokens = 512;
/** Of the text for files without a golden. */
const textTokens = 64;

interface Case {
  readonly name: string;
  readonly path: string;
  readonly ids: readonly number[];
  /** Natural logarithms of the probabilities after each token. `[tokens, vocabulary]` */
  readonly exact: readonly Float64Array[];
}

/** Log-probabilities after each token of the case. */
type Engine = (of: Pick<Case, 'path' | 'ids'>) => Promise<Float64Array[]>;

function logProbabilities(logits: Float32Array): Float64Array {
  const highest = logits[argmax(logits)] ?? 0;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - highest);
  return Float64Array.from(logits, (logit) => logit - highest - Math.log(sum));
}

const hearth =
  (backend: BackendChoice): Engine =>
  async ({ path, ids }) => {
    const model = await openModel(path);
    const { decoder } = await loadDecoder(backend, model.spec, model.weights, { contextTokens, threads: 1 });
    const sequence = decoder.createSequence();
    const rows: Float64Array[] = [];
    for (const id of ids) {
      const [logits] = await decoder.run([{ sequence, tokens: [id], logits: 'last' }]);
      rows.push(logProbabilities(logits ?? new Float32Array()));
    }
    sequence.dispose();
    await decoder.dispose();
    await model.file.close();
    return rows;
  };

/** The probabilities are those before it. Without it, a token that ends within a character has none. */
const grammar = 'root ::= [a-z]+';

const answer = z.object({
  completion_probabilities: z.tuple([
    z.object({ top_logprobs: z.array(z.object({ id: z.number(), logprob: z.number() })) }),
  ]),
});

const llamaCpp =
  (program: string): Engine =>
  async ({ path, ids }) => {
    const peer = await startLlamaServer(program, path, contextTokens);
    try {
      const rows: Float64Array[] = [];
      for (const [last] of ids.entries()) {
        const body = { prompt: ids.slice(0, last + 1), n_predict: 1, cache_prompt: true, n_probs: 1_000_000, grammar };
        const response = await fetch(new URL('/completion', peer.url), {
          method: 'POST',
          headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
          body: JSON.stringify(body),
        });
        const { top_logprobs: all } = answer.parse(await response.json()).completion_probabilities[0];
        const row = new Float64Array(all.length);
        for (const { id, logprob } of all) row[id] = logprob;
        rows.push(row);
      }
      return rows;
    } finally {
      await peer.stop();
    }
  };

/** Share of tokens with the same likeliest next one, and the mean Kullback-Leibler divergence from the exact distribution in nats. */
function compare(exact: readonly Float64Array[], rows: readonly Float64Array[]): string {
  let [same, divergence] = [0, 0];
  for (const [at, wanted] of exact.entries()) {
    const row = rows[at] ?? new Float64Array();
    if (row.length !== wanted.length) throw new Error(`${row.length} probabilities instead of ${wanted.length}.`);
    if (argmax(row) === argmax(wanted)) same++;
    for (const [id, logarithm] of wanted.entries()) divergence += Math.exp(logarithm) * (logarithm - (row[id] ?? 0));
  }
  return `${((100 * same) / exact.length).toFixed(1)} % | ${(divergence / exact.length).toExponential(1)}`;
}

async function* goldens(): AsyncGenerator<Case> {
  for (const { name, path, golden } of goldenCases) {
    if (!path.endsWith('.gguf')) continue;
    const { ids, logits } = await readGolden(golden);
    const vocabulary = logits.length / ids.length;
    const exact = ids.map((_, at) => logProbabilities(logits.subarray(at * vocabulary, (at + 1) * vocabulary)));
    yield { name, path, ids, exact };
  }
}

async function* filesOf(paths: readonly string[]): AsyncGenerator<Case> {
  for (const path of paths) {
    const model = await openModel(path);
    const text = readFileSync(new URL('../../ARCHITECTURE.md', import.meta.url), 'utf8');
    if (model.tokenizer === undefined) throw new Error(`${path} has no tokenizer.`);
    const ids = model.tokenizer.encode(text.slice(0, 20 * textTokens), { special: 'plain' }).slice(0, textTokens);
    await model.file.close();
    yield { name: basename(path), path, ids, exact: await hearth('reference')({ path, ids }) };
  }
}

const program = findLlamaServer();
const engines: [string, Engine][] = [
  ['ONNX Runtime', hearth('onnx')],
  ['ggml', hearth('ggml')],
  ...(program === undefined ? [] : [['llama.cpp', llamaCpp(program)] satisfies [string, Engine]]),
];
console.log(`| File | Tokens | ${engines.map(([name]) => `${name}: same likeliest token | divergence`).join(' | ')} |`);
console.log(`| --- | ---: |${' ---: | ---: |'.repeat(engines.length)}`);
const asked = process.argv.slice(2);
for await (const one of asked.length > 0 ? filesOf(asked) : goldens()) {
  const cells: string[] = [];
  for (const [, engine] of engines) {
    const cell = engine(one).then((rows) => compare(one.exact, rows));
    cells.push(await cell.catch((error: Error) => `refused | (${error.message.split('\n')[0]})`));
  }
  console.log(`| ${one.name} | ${one.ids.length} | ${cells.join(' | ')} |`);
}
