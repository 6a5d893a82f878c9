import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { draftOwner, PrefixCache } from '../../../engine/kv/prefixCache.ts';
import { clearSnapshots, listSnapshots, snapshotVersion } from '../../../engine/kv/snapshotFile.ts';
import { type Digest, type SnapshotOptions, Snapshots } from '../../../engine/kv/snapshots.ts';
import { Scheduler } from '../../../engine/scheduler/scheduler.ts';
import { warmUp } from '../../../engine/tasks/completionPrompt.ts';
import { FakeDecoder, type FakeDecoderOptions } from '../scheduler/fakeDecoder.ts';
import { patient } from '../scheduler/setUp.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);
const knownDigest = (letter: string): Digest => ({ known: letter.repeat(64), compute: async () => letter.repeat(64) });
const digest = knownDigest('a');
let root: string;
let folders = 0;

beforeAll(async () => {
  root = temporaryFolder();
});

const newFolder = (): string => join(root, `${folders++}`);

/** A start of the engine with empty memory and the folder's snapshots. */
function start(directory: string, options: Partial<SnapshotOptions> = {}, fake: FakeDecoderOptions = {}) {
  const decoder = new FakeDecoder({ contextTokens: 1000, vocabularySize: 5000, ...fake });
  const cache = new PrefixCache({ decoder, maxIdle: () => 8 });
  const snapshots = new Snapshots({
    directory,
    limitBytes: 1e6,
    digest,
    model: 'Fake',
    decoder,
    cache,
    minTokens: 32,
    ...options,
  });
  /** A request. @returns the tokens that were already computed. */
  const use = async (tokens: number[], owner = 'chat'): Promise<number> => {
    await snapshots.restorePrefix(tokens, owner);
    const lease = cache.acquire(tokens, owner);
    const { sequence, cachedTokens } = lease;
    await decoder.run([{ sequence, tokens: tokens.slice(cachedTokens), logits: 'none' }]);
    cache.release(lease, tokens);
    return cachedTokens;
  };
  return { decoder, cache, snapshots, use };
}

/** A folder with one snapshot, of `range(200)`. */
async function oneStored(): Promise<{ directory: string; path: string; bytes: Buffer }> {
  const directory = newFolder();
  const { use, snapshots } = start(directory);
  await use(range(200));
  await snapshots.save();
  const [name = ''] = await readdir(directory);
  const path = join(directory, name);
  return { directory, path, bytes: await readFile(path) };
}

describe('snapshots', () => {
  it('let a prompt continue an earlier one after a restart', async () => {
    const { directory } = await oneStored();
    const { decoder, use } = start(directory);
    expect(await use(range(240))).toBe(200);
    expect([...decoder.live].map(({ tokens }) => tokens)).toEqual([range(240)]);
    expect(decoder.runs.map(({ tokens }) => tokens.length)).toEqual([40]);
  });

  it('serve a prompt that diverges from the stored one, up to there', async () => {
    const { directory } = await oneStored();
    expect(await start(directory).use([...range(150), ...range(50, 700)])).toBe(150);
  });

  it('are not restored for a prefix that is in memory or short', async () => {
    const { directory } = await oneStored();
    const { decoder, use } = start(directory);
    expect(await use([...range(31), ...range(50, 700)])).toBe(0);
    await use(range(190));
    expect(await use(range(220))).toBe(190);
    expect(decoder.live.size).toBe(2);
  });

  it('are saved for long sequences only', async () => {
    const directory = newFolder();
    const { use, snapshots } = start(directory);
    await use(range(31));
    await snapshots.save();
    expect(await listSnapshots(directory)).toEqual([]);
  });

  it("are not saved for a draft model's sequence", async () => {
    const directory = newFolder();
    const { use, snapshots } = start(directory);
    await use(range(200), draftOwner);
    await snapshots.save();
    expect(await listSnapshots(directory)).toEqual([]);
  });

  it('are saved once, and again when a sequence has grown by a third', async () => {
    const { directory, path } = await oneStored();
    const { use, snapshots } = start(directory);
    await use(range(240));
    await snapshots.save();
    expect((await listSnapshots(directory)).map((snapshot) => snapshot.path)).toEqual([path]);
    await use(range(300));
    await snapshots.save();
    const [grown, ...others] = await listSnapshots(directory);
    expect(grown?.header.tokens).toEqual(range(300));
    expect(others).toEqual([]);
  });

  it('are separate for each model, backend and byte layout', async () => {
    const { directory } = await oneStored();
    expect(await start(directory, { digest: knownDigest('b') }).use(range(240))).toBe(0);
    expect(await start(directory, {}, { backend: 'onnx' }).use(range(240))).toBe(0);
    // Another context is another spec: where positions are stretched to it, keys are others.
    expect(await start(directory, {}, { contextTokens: 999 }).use(range(240))).toBe(0);
    expect(await start(directory).use(range(240))).toBe(200);
  });

  it('wait for the digest of the model', async () => {
    const { directory } = await oneStored();
    const late: { known: string | undefined; compute: Digest['compute'] } = {
      known: undefined,
      compute: async (signal) => (signal.aborted ? undefined : digest.compute(signal)),
    };
    const { cache, snapshots, use } = start(directory, { digest: late, idleMs: 0 });
    expect(await use(range(240))).toBe(0);
    await use(range(300, 1000));
    await snapshots.save();
    await snapshots.start();
    expect(await listSnapshots(directory)).toHaveLength(1);
    cache.clear();
    snapshots.onIdle();
    await vi.waitFor(() => expect(cache.idle.size).toBe(1));
    expect(await use(range(240))).toBe(200);
    await snapshots.stop();
  });

  it('are not saved for a model without a digest', async () => {
    const directory = newFolder();
    const unknown: Digest = { known: undefined, compute: async () => undefined };
    const { snapshots, use } = start(directory, { digest: unknown });
    await snapshots.start();
    await use(range(200));
    await snapshots.save();
    expect(await listSnapshots(directory)).toEqual([]);
  });

  it('are restored from the smallest file with the same prefix', async () => {
    const directory = newFolder();
    const { snapshots, use } = start(directory);
    await use([...range(100), ...range(300, 1000)], 'chat');
    await use([...range(100), ...range(60, 2000)], 'summary');
    await snapshots.save();
    expect(await listSnapshots(directory)).toHaveLength(2);
    const { cache, snapshots: later } = start(directory);
    await later.restorePrefix([...range(100), ...range(9, 3000)], 'chat');
    expect([...cache.idle].map(({ tokens }) => tokens.length)).toEqual([160]);
  });

  it('stay within the limit; the most recently used are kept', async () => {
    const directory = newFolder();
    const limitBytes = 20_000;
    const { use, snapshots } = start(directory, { limitBytes });
    for (let i = 0; i < 12; i++) {
      await use(range(200, 300 * i));
      await snapshots.save();
      for (const { path, header } of await listSnapshots(directory)) {
        const used = new Date(1e12 + 1000 * (header.tokens[0] ?? 0));
        await utimes(path, used, used);
      }
    }
    const kept = await listSnapshots(directory);
    const bytes = kept.reduce((sum, snapshot) => sum + snapshot.bytes, 0);
    expect(bytes).toBeLessThanOrEqual(limitBytes);
    expect(bytes).toBeGreaterThan(limitBytes / 2);
    expect(kept.map(({ header }) => header.tokens[0])).toEqual(range(kept.length).map((i) => 300 * (11 - i)));
  });

  it('hold the beginning of a sequence that is too long', async () => {
    const directory = newFolder();
    const { use, snapshots } = start(directory, { limitBytes: 12_000 });
    await use(range(900));
    await snapshots.save();
    const [snapshot] = await listSnapshots(directory);
    expect(snapshot?.bytes).toBeLessThanOrEqual(3000);
    expect(snapshot?.header.tokens.length).toBeGreaterThan(200);
    const { header } = snapshot ?? {};
    expect(await start(directory).use(range(950))).toBe(header?.tokens.length);
  });

  it('are readable by their owner only', async ({ skip }) => {
    if (process.platform === 'win32') skip('Windows keeps rights elsewhere');
    const { directory, path } = await oneStored();
    expect((await stat(path)).mode & 0o077).toBe(0);
    expect((await stat(directory)).mode & 0o077).toBe(0);
  });

  it('are removed when cleared; other files are kept', async () => {
    const { directory, bytes } = await oneStored();
    await writeFile(join(directory, 'notes.txt'), 'mine');
    expect(await clearSnapshots(directory)).toEqual({ files: 1, bytes: bytes.length });
    expect(await readdir(directory)).toEqual(['notes.txt']);
    expect(await clearSnapshots(newFolder())).toEqual({ files: 0, bytes: 0 });
  });

  it('may be cleared by another process', async () => {
    const { directory } = await oneStored();
    const { use, snapshots } = start(directory);
    await snapshots.restorePrefix(range(8), 'chat');
    await clearSnapshots(directory);
    expect(await use(range(240))).toBe(0);
    await snapshots.save();
    expect(await listSnapshots(directory)).toHaveLength(1);
  });

  it('don’t fail requests if the folder isn’t writable', async () => {
    const directory = newFolder();
    await writeFile(directory, 'a file where the folder should be');
    const { use, snapshots } = start(directory);
    expect(await use(range(200))).toBe(0);
    await snapshots.save();
    expect(await use(range(240))).toBe(200);
  });

  it('are not restored if they don’t fit the memory', async () => {
    const { directory } = await oneStored();
    const { decoder, cache, snapshots } = start(directory, {}, { blocks: 8 });
    const busy = cache.acquire(range(100, 3000), 'keystroke');
    await decoder.run([{ sequence: busy.sequence, tokens: range(100, 3000), logits: 'none' }]);
    await snapshots.restorePrefix(range(240), 'chat');
    expect(cache.idle.size).toBe(0);
    expect(decoder.live.size).toBe(1);
    expect(await listSnapshots(directory)).toHaveLength(1);
  });
});

/** Pauses the read of every sequence after its first piece; `open` continues it. */
function gated({ serializer }: FakeDecoder) {
  const { restore } = serializer;
  let [begin, open] = [(): void => {}, (): void => {}];
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const isOpen = new Promise<void>((resolve) => {
    open = resolve;
  });
  const gate = { begun, open, reads: 0 };
  async function* held(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      yield piece;
      begin();
      await isOpen;
    }
  }
  Object.assign(serializer, {
    restore(...[shape, pieces]: Parameters<typeof restore>) {
      gate.reads++;
      return restore(shape, held(pieces));
    },
  });
  return gate;
}

/** A folder with snapshots that begin at these tokens; the last of them was used last. */
async function stored(lengths: readonly number[]): Promise<{ directory: string; firsts: number[] }> {
  const directory = newFolder();
  const { use, snapshots } = start(directory);
  const firsts = lengths.map((_, i) => 1000 * i);
  for (const [i, first] of firsts.entries()) await use(range(lengths[i] ?? 0, first));
  await snapshots.save();
  for (const { path, header } of await listSnapshots(directory)) {
    const used = new Date(1e12 + 1000 * (header.tokens[0] ?? 0));
    await utimes(path, used, used);
  }
  return { directory, firsts };
}

const firstTokens = ({ idle }: PrefixCache) => [...idle].map(({ tokens }) => tokens[0]);

describe('snapshots at startup', () => {
  it('are preloaded, the most recently used first', async () => {
    const { directory } = await stored([100, 110, 120, 130, 140, 150]);
    const { cache, snapshots, use } = start(directory);
    await snapshots.start();
    expect(firstTokens(cache)).toEqual([5000, 4000, 3000, 2000]);
    await rm(directory, { recursive: true });
    expect(await use(range(200, 5000))).toBe(150);
  });

  it('fit one context together', async () => {
    const { directory } = await stored([100, 300, 800, 300]);
    const { cache, snapshots } = start(directory);
    await snapshots.start();
    expect(firstTokens(cache)).toEqual([3000, 1000, 0]);
  });

  it('evict nothing, and are evicted first', async () => {
    const { directory } = await stored([200, 200]);
    // 17 pages of 32 tokens: five are taken, and seven for each.
    const { decoder, cache, snapshots, use } = start(directory, {}, { blocks: 17 });
    await use(range(150, 3000), 'keystroke');
    await snapshots.start();
    expect(firstTokens(cache)).toEqual([3000, 1000]);
    const { sequence } = cache.acquire(range(8, 4000), 'chat');
    expect(cache.evictFor([{ sequence, tokens: 200 }])).toBe(true);
    expect(firstTokens(cache)).toEqual([3000]);
    expect(decoder.live.size).toBe(2);
  });

  it('in progress are awaited by a request that needs them', async () => {
    const { directory } = await stored([200, 200]);
    const { decoder, cache, snapshots, use } = start(directory);
    const gate = gated(decoder);
    const reading = snapshots.start();
    await gate.begun;
    await snapshots.onRequest();
    const answer = use(range(240, 1000));
    setImmediate(gate.open);
    expect(await answer).toBe(200);
    await reading;
    expect(gate.reads).toBe(1);
    expect(firstTokens(cache)).toEqual([1000]);
    expect(decoder.live.size).toBe(1);
  });

  it('stop for other requests, and continue when the engine is idle', async () => {
    const { directory } = await stored([200, 200]);
    const { decoder, cache, snapshots, use } = start(directory, { idleMs: 0 });
    const gate = gated(decoder);
    const reading = snapshots.start();
    await gate.begun;
    await snapshots.onRequest();
    const answer = use(range(100, 4000));
    setImmediate(gate.open);
    expect(await answer).toBe(0);
    await reading;
    expect(firstTokens(cache)).toEqual([4000]);
    expect(decoder.live.size).toBe(1);
    snapshots.onIdle();
    await vi.waitFor(() => expect(firstTokens(cache)).toEqual([4000, 1000, 0]));
    await snapshots.stop();
  });

  it('count as used when a request uses them', async () => {
    const { directory } = await stored([200, 200]);
    const first = async () => (await listSnapshots(directory))[0]?.header.tokens[0];
    const { snapshots, use } = start(directory);
    await snapshots.start();
    expect(await first()).toBe(1000);
    await use(range(240));
    expect(await first()).toBe(0);
  });

  it('are removed if damaged; the others are restored', async () => {
    const { directory } = await stored([200, 210]);
    const [last] = await listSnapshots(directory);
    const path = last?.path ?? '';
    const bytes = await readFile(path);
    bytes[bytes.length - 40] = (bytes[bytes.length - 40] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const { decoder, cache, snapshots, use } = start(directory);
    await snapshots.start();
    expect(existsSync(path)).toBe(false);
    expect(firstTokens(cache)).toEqual([0]);
    expect(decoder.live.size).toBe(1);
    expect(await use(range(240, 1000))).toBe(0);
  });

  it('are not restored after a stop', async () => {
    const { directory } = await stored([200, 200]);
    const { decoder, cache, snapshots } = start(directory);
    const gate = gated(decoder);
    const reading = snapshots.start();
    await gate.begun;
    const stopped = snapshots.stop();
    setImmediate(gate.open);
    await stopped;
    await reading;
    expect(cache.idle.size).toBe(0);
    expect(decoder.live.size).toBe(0);
  });
});

/** Every field of the file, and where it stands. */
function fields(bytes: Buffer): Record<string, number> {
  const headerBytes = bytes.readUInt32LE(12);
  const digestAt = 16 + headerBytes;
  const firstPiece = digestAt + 32;
  return {
    magic: 0,
    version: 8,
    'length of the header': 12,
    header: 16 + Math.floor(headerBytes / 2),
    'digest of the header': digestAt + 5,
    'first piece': firstPiece + 1,
    'last piece': bytes.length - 41,
    'sum of the first piece': bytes.length - 39,
    'sum of the last piece': bytes.length - 35,
    'digest of the sums': bytes.length - 1,
  };
}

const sha256 = (...parts: Buffer[]) => createHash('sha256').update(Buffer.concat(parts)).digest();

/** A file of this head, with digests that are right. `rest`: two pieces and their sums. */
function signed(head: Buffer, rest: Buffer): Buffer {
  const whole = Buffer.concat([head, sha256(head)]);
  return Buffer.concat([whole, rest, sha256(whole, rest.subarray(-8))]);
}

describe('a snapshot that is not what was written', () => {
  const names = Object.keys(fields(Buffer.alloc(128)));

  it.each(names)('is never used, and removed: %s changed', async (name) => {
    const { directory, path, bytes } = await oneStored();
    const at = fields(bytes)[name] ?? 0;
    bytes[at] = (bytes[at] ?? 0) ^ 0x10;
    await writeFile(path, bytes);
    const { decoder, cache, use } = start(directory);
    expect(await use(range(240))).toBe(0);
    expect(decoder.live.size).toBe(1);
    expect(cache.idle.size).toBe(1);
    expect(existsSync(path)).toBe(false);
  });

  it('is never used, whichever byte was changed or wherever it was cut', async () => {
    const { path, bytes } = await oneStored();
    await rm(path);
    const directory = newFolder();
    await mkdir(directory);
    for (let at = 0; at < bytes.length; at += 7) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
      for (const [i, content] of [changed, bytes.subarray(0, at)].entries()) {
        const damaged = join(directory, `${at}-${i}.kv`);
        await writeFile(damaged, content);
        expect(await start(directory).use(range(240)), `${['changed', 'cut'][i]} at ${at}`).toBe(0);
        expect(existsSync(damaged)).toBe(false);
      }
    }
  });

  it('is never used with trailing bytes, of another version or of another kind', async () => {
    const { directory, path, bytes } = await oneStored();
    await writeFile(path, Buffer.concat([bytes, Buffer.alloc(1)]));
    expect(await listSnapshots(directory)).toEqual([]);
    // A later version may give the same header another meaning, with valid digests.
    const later = Buffer.from(bytes);
    later.writeUInt32LE(snapshotVersion + 1, 8);
    const headEnd = 16 + later.readUInt32LE(12);
    await writeFile(path, signed(later.subarray(0, headEnd), later.subarray(headEnd + 32, -32)));
    expect(await listSnapshots(directory)).toEqual([]);
    await writeFile(path, 'GGUF');
    expect(await listSnapshots(directory)).toEqual([]);
    expect(await readdir(directory)).toEqual([]);
  });

  it('is never used with the keys and values of another', async () => {
    const { directory, path, bytes } = await oneStored();
    const { use, snapshots } = start(directory);
    await use(range(200, 1000));
    await snapshots.save();
    const other = (await listSnapshots(directory)).find((snapshot) => snapshot.path !== path)?.path ?? '';
    const otherBytes = await readFile(other);
    // 199 ids and one before them, two sums and a digest.
    await writeFile(path, Buffer.concat([bytes.subarray(0, bytes.length - 840), otherBytes.subarray(-840)]));
    expect(await start(directory).use(range(240))).toBe(0);
    expect(existsSync(path)).toBe(false);
  });

  it('has a header that fits the model, whatever its digests say', async () => {
    const { directory, path, bytes } = await oneStored();
    const headEnd = 16 + bytes.readUInt32LE(12);
    const forge = async (change: (header: Record<string, unknown>) => void): Promise<void> => {
      const header = JSON.parse(bytes.toString('utf8', 16, headEnd));
      change(header);
      const json = Buffer.from(JSON.stringify(header));
      const head = Buffer.concat([bytes.subarray(0, 16), json]);
      head.writeUInt32LE(json.length, 12);
      await writeFile(path, signed(head, bytes.subarray(headEnd + 32, -32)));
    };
    await forge(() => {});
    expect(await start(directory).use(range(240))).toBe(200);
    const changes: ((header: Record<string, unknown>) => void)[] = [
      (header) => Object.assign(header, { tokens: range(199) }),
      (header) => Object.assign(header, { tokens: [] }),
      (header) => Object.assign(header, { tokens: ['x'] }),
      (header) => Object.assign(header, { pieceBytes: [800] }),
      (header) => Object.assign(header, { pieceBytes: [-4, 804] }),
      (header) => Object.assign(header, { held: 'all' }),
      (header) => Object.assign(header, { identity: '../../etc/passwd' }),
    ];
    for (const change of changes) {
      await forge(change);
      expect(await start(directory).use(range(240)), `${change}`).toBe(0);
      expect(existsSync(path), `${change}`).toBe(false);
    }
  });

  it('was left by a process that died, and goes after an hour', async () => {
    const { directory, path } = await oneStored();
    const [recent, old] = [`${path}.1.new`, `${path}.2.new`];
    for (const partial of [recent, old]) await copyFile(path, partial);
    await utimes(old, new Date(Date.now() - 2 * 3600_000), new Date(Date.now() - 2 * 3600_000));
    expect(await listSnapshots(directory)).toHaveLength(1);
    expect(existsSync(old)).toBe(false);
    expect(existsSync(recent)).toBe(true);
  });
});

describe('a scheduler with snapshots', () => {
  function scheduled(directory: string, options: Partial<SnapshotOptions> = {}) {
    const parts = start(directory, options);
    const scheduler = new Scheduler({
      ...parts,
      maxPendingPerClass: 8,
      patienceMs: patient,
      now: () => parts.decoder.runs.length,
      yieldToEventLoop: () => new Promise((resolve) => setImmediate(resolve)),
    });
    const close = async (): Promise<void> => {
      await scheduler.close();
      await parts.snapshots.onRequest();
    };
    return { ...parts, scheduler, close };
  }
  const until = async (isTrue: () => Promise<boolean>): Promise<void> => {
    while (!(await isTrue())) await new Promise((resolve) => setImmediate(resolve));
  };

  it('saves warmed-up prompts once idle, and restores them at the next start', async () => {
    const directory = newFolder();
    const before = scheduled(directory, { idleMs: 0 });
    await warmUp(before.scheduler, range(300));
    await until(async () => (await listSnapshots(directory)).length === 1);
    await before.close();
    expect(before.decoder.live.size).toBe(1);
    const after = scheduled(directory);
    expect((await warmUp(after.scheduler, range(320))).cachedTokens).toBe(300);
    await after.close();
  });

  it('stops saving when a request arrives, and leaves no partial file', async () => {
    const directory = newFolder();
    const { scheduler, close, decoder } = scheduled(directory, { idleMs: 0, pauseMs: 0 });
    const { save } = decoder.serializer;
    let begun = (): void => {};
    const hasBegun = new Promise<void>((resolve) => {
      begun = resolve;
    });
    // Its second piece comes only when somebody has asked.
    let asked = (): void => {};
    const hasAsked = new Promise<void>((resolve) => {
      asked = resolve;
    });
    Object.assign(decoder.serializer, {
      async *save(sequence: Parameters<typeof save>[0]) {
        for await (const piece of save(sequence)) {
          yield piece;
          begun();
          await hasAsked;
        }
      },
    });
    await warmUp(scheduler, range(300));
    await hasBegun;
    const answer = warmUp(scheduler, range(310));
    setImmediate(asked);
    expect((await answer).cachedTokens).toBe(300);
    await close();
    expect(decoder.live.size).toBe(1);
    expect((await readdir(directory)).filter((name) => name.endsWith('.new'))).toEqual([]);
  });
});
