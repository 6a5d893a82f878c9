/**
 * A tiny embedding model: the weights of the golden qwen3, a tokenizer that ends texts with <|endoftext|>, and the files that
 * sentence-transformers puts beside them. Hugging Face's vectors are in test/fixtures/embedding/vectors.json.
 */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fixtureFile } from './shared.ts';

export interface EmbeddingVector {
  readonly text: string;
  readonly ids: readonly number[];
  readonly vector: readonly number[];
}

export async function embeddingVectors(): Promise<readonly EmbeddingVector[]> {
  const text = await readFile(fixtureFile('embedding/vectors.json'), 'utf8');
  return (JSON.parse(text) as { vectors: EmbeddingVector[] }).vectors;
}

export const queryPrefix = 'Instruct: find it\nQuery:';

export interface EmbeddingModelOptions {
  /** Tensors are named as published: without `model.`. */
  readonly bareNames?: boolean;
  readonly pooling?: Readonly<Record<string, unknown>>;
}

export async function makeEmbeddingModel({
  bareNames = false,
  pooling = { pooling_mode_lasttoken: true, pooling_mode_mean_tokens: false },
}: EmbeddingModelOptions = {}): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'hearth-embedding-'));
  const golden = fixtureFile('goldens/qwen3');
  const weights = await readFile(join(golden, 'model.safetensors'));
  await writeFile(join(path, 'model.safetensors'), bareNames ? renamed(weights) : weights);
  await copyFile(join(golden, 'config.json'), join(path, 'config.json'));
  await copyFile(fixtureFile('embedding/tokenizer.json'), join(path, 'tokenizer.json'));
  await mkdir(join(path, '1_Pooling'));
  await writeFile(join(path, '1_Pooling', 'config.json'), JSON.stringify(pooling));
  const prompts = { prompts: { query: queryPrefix, document: '' }, default_prompt_name: null };
  await writeFile(join(path, 'config_sentence_transformers.json'), JSON.stringify(prompts));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** The same safetensors file with names that lack `model.`. */
function renamed(file: Buffer): Buffer {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = file
    .subarray(8, 8 + headerBytes)
    .toString('utf8')
    .replaceAll('"model.', '"');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)));
  return Buffer.concat([length, Buffer.from(header), file.subarray(8 + headerBytes)]);
}
