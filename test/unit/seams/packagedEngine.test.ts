/**
 * Seam: from a catalogue id, through the store, the built engine process (esbuild.mjs's own output), the choice of the backend and of the context, to
 * the first token of a chat and a completion.
 *
 * Fault it would have found: a load without settings gave 8,192 tokens of context whatever the model and the memory; a built file that lacks what
 * the sources have.
 *
 * The weights are a tiny checkpoint's under the default model's id, so that the test needs no network: what is loaded is read from disk as always.
 */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { defaultModelId } from '../../../engine/catalogue/catalogue.ts';
import { modelDigest } from '../../../engine/catalogue/manifest.ts';
import { type EngineProcess, startEngine } from '../../../scripts/shared/engineProcess.ts';
import { buildProduct, type Product } from '../built/product.ts';
import { makeTinyModel } from '../runtime/tinyModel.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

/** Longer than the 8,192 that were once the most. */
const trainedTokens = 65_536;
let home: string;
let product: Product;
let engine: EngineProcess;

/** The folder of an installed model: named by its digest, with a manifest. */
async function install(id: string, from: string): Promise<void> {
  const names = (await readdir(from, { withFileTypes: true })).filter((item) => item.isFile()).map(({ name }) => name);
  const files = await Promise.all(
    names.map(async (name) => {
      const content = await readFile(join(from, name));
      return { name, bytes: content.length, sha256: createHash('sha256').update(content).digest('hex') };
    }),
  );
  const digest = modelDigest(files);
  const folder = join(home, 'models', `sha256-${digest}`);
  await mkdir(folder, { recursive: true });
  for (const name of names) await copyFile(join(from, name), join(folder, name));
  const manifest = { version: 1, id, digest, files, source: 'a test', installedAt: new Date(0).toISOString() };
  await writeFile(join(folder, 'manifest.json'), JSON.stringify(manifest));
}

beforeAll(async () => {
  home = temporaryFolder();
  const tiny = await makeTinyModel();
  const config = join(tiny.path, 'config.json');
  const published: object = JSON.parse(await readFile(config, 'utf8'));
  await writeFile(config, JSON.stringify({ ...published, max_position_embeddings: trainedTokens }));
  await install(defaultModelId, tiny.path);
  await tiny.remove();
  product = await buildProduct();
  engine = startEngine(product.engine, { env: { HEARTH_HOME: home } });
}, 120_000);
afterAll(async () => {
  await engine?.stop();
  await product?.remove();
});

describe('the built engine, asked for a model by its catalogue id', () => {
  it('loads it with its trained context, and answers', { timeout: 120_000 }, async () => {
    const card = await engine.requests.load({ model: defaultModelId });
    expect(card).toMatchObject({ id: defaultModelId, contextTokens: trainedTokens });

    const pieces: string[] = [];
    engine.on({ delta: ({ text }) => pieces.push(text) });
    const messages = [{ role: 'user' as const, content: 'tell me' }];
    const answer = await engine.requests.chat({ stream: 'chat', messages, maxTokens: 12, sampling: { seed: 1 } });
    expect(answer.statistics.generatedTokens).toBeGreaterThan(0);
    expect(pieces.join('')).toBe(answer.thinking + answer.text);

    const completion = await engine.requests.complete({ prefix: 'const a = ', suffix: '', maxTokens: 4, whole: true });
    expect(completion.statistics.generatedTokens).toBeGreaterThan(0);

    const { requests, model } = await engine.requests.status();
    expect(model).toMatchObject({ backend: card.backend });
    const { chat } = requests?.classes ?? {};
    // Where logits are computed, tokens are sampled: on the GPU, or on the compute thread.
    expect(chat?.deviceTokens).toBeGreaterThan(0);
  });
});
