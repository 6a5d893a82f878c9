/**
 * Files and folders that change during a run of the engine and between two starts: `npm run fuzz:files [-- STEP]`, together with
 * those of the index (changedIndex.ts) and of the chat (changedJournal.ts). Hearth's own files (packed weights, snapshots,
 * digests, summaries) may be damaged, emptied, removed, replaced by a folder or unreadable, and its folders may vanish or refuse
 * writes: the next answer must be the same. With changed model files the result is the same answer or a one-line error. Runs as
 * an ordinary user, because file modes do not restrict root.
 */
import { chmodSync, cpSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { HearthError } from '../../engine/errors.ts';
import { completeParams, summariseParams, warmParams } from '../../engine/protocol/engineProtocol.ts';
import { loadParams } from '../../engine/protocol/models.ts';
import { Engine } from '../../engine/runtime/service.ts';
import { bundle } from '../unit/runtime/bundle.ts';
import { makeTinyModel } from '../unit/runtime/tinyModel.ts';
import { changeIndex } from './changedIndex.ts';
import { changeJournal } from './changedJournal.ts';
import {
  asOrdinaryUser,
  type ChangeFigures,
  changes,
  clear,
  damageOf,
  filesBelow,
  folderChanges,
  foldersBelow,
  runParts,
} from './damage.ts';
import { damageVectors } from './damagedVectors.ts';

const place = { prefix: 'value = other(1)\n'.repeat(60), suffix: '\n' };
const source = 'function one() { return 1; }\n'.repeat(20);

export class Session {
  readonly #engine: Engine;

  private constructor(engine: Engine) {
    this.#engine = engine;
  }

  static async start(store: string, model: string): Promise<Session> {
    const engine = new Engine({ storeDirectory: store, onDelta: () => {}, onProgress: () => {} });
    try {
      await engine.load(loadParams.parse({ model, backend: 'onnx', contextTokens: 1024, threads: 1 }));
    } catch (error) {
      await engine.unload();
      throw error;
    }
    return new Session(engine);
  }

  async answer(): Promise<string> {
    const { text } = await this.#engine.complete(
      completeParams.parse({ ...place, maxTokens: 8, sampling: { temperature: 0 } }),
    );
    const request = { stream: 's', path: 'one.ts', languageId: 'typescript', text: source, symbols: [] };
    const summary = await this.#engine.summarise(summariseParams.parse(request));
    return `${text}\n${summary.text}`;
  }

  warm(): Promise<unknown> {
    return this.#engine.warm(warmParams.parse({ kind: 'completion', ...place }));
  }

  end(): Promise<void> {
    return this.#engine.unload();
  }
}

/** A store and a model within it, used once, with every kind of file. */
async function prepare(root: string): Promise<{ store: string; model: string; expected: string }> {
  const store = join(root, 'store');
  const model = join(store, 'models', `sha256-${'c'.repeat(64)}`);
  const tiny = await makeTinyModel();
  cpSync(tiny.path, model, { recursive: true });
  await tiny.remove();
  const session = await Session.start(store, model);
  const expected = await session.answer();
  await session.warm();
  const snapshots = join(store, 'sequences');
  // Snapshots are written after some idle seconds.
  while (!filesBelow(store).some((path) => path.startsWith(snapshots) && !path.endsWith('.new'))) {
    await new Promise((done) => setTimeout(done, 50));
  }
  await session.end();
  return { store, model, expected };
}

/** @param step 1: every change of every file and folder; otherwise one of so many. */
export const changeFiles = (step: number): Promise<ChangeFigures> => asOrdinaryUser(() => changeEach(step));

async function changeEach(step: number): Promise<ChangeFigures> {
  const root = mkdtempSync(join(tmpdir(), 'hearth-files-'));
  const { store, model, expected } = await prepare(root);
  const sound = join(root, 'sound');
  cpSync(store, sound, { recursive: true });
  const isOwn = (path: string): boolean => !path.startsWith(model);
  const kinds = [
    ...filesBelow(store).flatMap((path) => damageOf(path, changes)),
    ...foldersBelow(store)
      .filter((path) => isOwn(path) && !model.startsWith(path))
      .flatMap((path) => damageOf(path, folderChanges)),
    { path: store, name: 'not writable', change: (path: string) => chmodSync(path, 0o500) },
  ];
  const moments = ['between two starts', 'while it is used'] as const;
  const all = kinds.flatMap((kind) => moments.map((moment) => ({ ...kind, moment })));
  const chosen = all.filter((_, number) => number % step === 0);
  const problems: string[] = [];
  let [same, refused] = [0, 0];
  for (const { path, name, change, moment } of chosen) {
    clear(store);
    cpSync(sound, store, { recursive: true });
    const what = `${relative(root, path)} ${name} ${moment}`;
    let session: Session | undefined;
    try {
      if (moment === 'while it is used') session = await Session.start(store, model);
      change(path);
      session ??= await Session.start(store, model);
      const answer = await session.answer();
      if (answer === expected) same++;
      // Changed weights or vocabulary may give another answer.
      else if (isOwn(path)) problems.push(`${what}: another answer`);
    } catch (error) {
      refused++;
      if (!(error instanceof HearthError)) problems.push(`${what}: ${error instanceof Error ? error.stack : error}`);
      else if (isOwn(path)) problems.push(`${what}: ${error.message}`);
    } finally {
      await session?.end();
    }
  }
  clear(root);
  return { changes: chosen.length, same, refused, problems };
}

if (import.meta.main) {
  const step = Number(process.argv[2] ?? 1);
  const indexer = await bundle('engine/indexer.ts');
  const parts = {
    index: () => changeIndex(indexer.path, step),
    vectors: () => damageVectors(Math.ceil(500 / step)),
    journal: () => changeJournal(step),
    store: () => changeFiles(step),
  };
  try {
    await runParts(parts);
  } finally {
    await indexer.remove();
  }
}
