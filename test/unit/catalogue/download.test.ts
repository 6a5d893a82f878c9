import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Headers } from 'undici';
import { afterEach, describe, expect, it } from 'vitest';
import { type DownloadJob, download } from '../../../engine/catalogue/download.ts';
import { statusFailure } from '../../../engine/catalogue/http.ts';
import { type FileOptions, type FileServer, sendFile, sendHubFile, startServer } from './fileServer.ts';
import { filesBelow, randomBytes, randomNumbers, removeTemporaryFolders, sha256, temporaryFolder } from './tools.ts';

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

const content = randomBytes(50_000);
const impatient = { attempts: 1, firstWaitMs: 1, idleMs: 5000 };
const patient = { attempts: 4, firstWaitMs: 1, idleMs: 5000 };

async function jobFor(server: FileServer, changes: Partial<DownloadJob> = {}): Promise<DownloadJob> {
  return {
    address: new URL(`${server.origin}/model.gguf`),
    folder: await temporaryFolder(),
    name: 'model.gguf',
    expected: { bytes: content.length, sha256: sha256(content) },
    maxBytes: 1e9,
    retry: impatient,
    ...changes,
  };
}

const partialOf = (job: DownloadJob): string => join(job.folder, `${job.name}.partial`);

/** A job whose server breaks the connection after `cutAfter` bytes are on the client's disk. */
async function cutJob(cutAfter: number, options: FileOptions = {}, changes: Partial<DownloadJob> = {}) {
  const server = await serve((request, response) =>
    sendFile(server, request, response, content, { ...options, cutAfter, landsIn: () => partialOf(job) }),
  );
  const job = await jobFor(server, changes);
  return { server, job };
}

const failure = (job: DownloadJob) =>
  download(job).then(
    () => expect.fail('It succeeded.'),
    (error: Error) => error,
  );

describe('a download from a good server', () => {
  it('leaves the complete file and its state, and nothing else', async () => {
    const server = await serve((request, response) => sendFile(server, request, response, content));
    const seen: number[] = [];
    const job = await jobFor(server, { onBytes: (done) => seen.push(done) });
    const file = await download(job);
    expect(file).toEqual({ path: join(job.folder, 'model.gguf'), bytes: content.length, sha256: sha256(content) });
    expect(await readFile(file.path)).toEqual(content);
    expect(await filesBelow(job.folder)).toEqual(['model.gguf', 'model.gguf.state.json']);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    expect(seen.at(-1)).toBe(content.length);
  });

  it('is not requested again after it is finished', async () => {
    const server = await serve((request, response) => sendFile(server, request, response, content));
    const job = await jobFor(server);
    await download(job);
    await download(job);
    expect(server.requests).toHaveLength(1);
  });

  it('needs no length if the digest is known', async () => {
    const server = await serve((request, response) => sendFile(server, request, response, content, { chunked: true }));
    const job = await jobFor(server, { expected: { sha256: sha256(content) } });
    expect((await download(job)).bytes).toBe(content.length);
  });
});

describe('an interrupted download', () => {
  it('resumes at any byte', async () => {
    const random = randomNumbers(7);
    const edges = [0, 1, 2, 16_383, 16_384, 16_385, content.length - 2, content.length - 1];
    const cuts = [...edges, ...Array.from({ length: 24 }, () => Math.floor(random() * content.length))];
    for (const cutAfter of cuts) {
      const { server, job } = await cutJob(cutAfter);
      expect(await failure(job)).toMatchObject({ code: 'unavailable' });
      expect(await filesBelow(job.folder)).not.toContain('model.gguf');
      const kept = (await readFile(join(job.folder, 'model.gguf.partial'))).length;
      expect(kept).toBe(cutAfter);
      server.handle = (request, response) => sendFile(server, request, response, content);
      const file = await download(job);
      expect(await readFile(file.path)).toEqual(content);
      expect(server.requests.at(-1)?.headers.range).toBe(kept === 0 ? undefined : `bytes=${kept}-`);
    }
  });

  it('resumes after many cuts in one call, because every connection made progress', async () => {
    const { server, job } = await cutJob(3000, {}, { retry: { ...patient, attempts: 2 } });
    expect((await download(job)).sha256).toBe(sha256(content));
    expect(server.requests).toHaveLength(Math.ceil(content.length / 3000));
  });

  it('is downloaded in full from a server that ignores ranges', async () => {
    const { server, job } = await cutJob(20_000, { ignoreRanges: true });
    await failure(job);
    server.handle = (request, response) => sendFile(server, request, response, content, { ignoreRanges: true });
    expect((await download(job)).sha256).toBe(sha256(content));
  });

  it('restarts once if the partial file was damaged on disk', async () => {
    const { server, job } = await cutJob(20_000);
    await failure(job);
    await writeFile(join(job.folder, 'model.gguf.partial'), Buffer.alloc(20_000));
    server.handle = (request, response) => sendFile(server, request, response, content);
    expect((await download(job)).sha256).toBe(sha256(content));
    expect(server.requests.map((request) => request.headers.range)).toEqual([undefined, 'bytes=20000-', undefined]);
  });

  it('restarts if the partial file is longer than the file', async () => {
    const { server, job } = await cutJob(20_000);
    await failure(job);
    await writeFile(join(job.folder, 'model.gguf.partial'), Buffer.alloc(content.length + 1));
    server.handle = (request, response) => sendFile(server, request, response, content);
    expect((await download({ ...job, retry: patient })).sha256).toBe(sha256(content));
  });

  it("discards a partial of a different file than the catalogue's", async () => {
    const { server, job } = await cutJob(20_000);
    await failure(job);
    const other = randomBytes(30_000, 2);
    server.handle = (request, response) => sendFile(server, request, response, other);
    const expected = { bytes: other.length, sha256: sha256(other) };
    expect((await download({ ...job, expected })).sha256).toBe(sha256(other));
    expect(server.requests.at(-1)?.headers.range).toBeUndefined();
  });

  it('sends If-Range if only an ETag is known, and downloads the new file if it changed', async () => {
    const gitBlob = (bytes: Buffer) => sha1(`blob ${bytes.length}\0`, bytes);
    const { server, job } = await cutJob(20_000, { etag: '"one"' }, { expected: { gitBlob: gitBlob(content) } });
    await failure(job);
    const changed = randomBytes(40_000, 3);
    server.handle = (request, response) => sendFile(server, request, response, changed, { etag: '"two"' });
    const file = await download({ ...job, expected: { gitBlob: gitBlob(changed) } });
    expect(file.sha256).toBe(sha256(changed));
    expect(server.requests.at(-1)?.headers).toMatchObject({ range: 'bytes=20000-', 'if-range': '"one"' });
  });

  it('downloads the new file if the announced digest changed', async () => {
    let current = content;
    const server = await serve((request, response) =>
      sendHubFile(server, request, response, current, sha256(current), {
        cutAfter: 20_000,
        landsIn: () => partialOf(job),
      }),
    );
    const announced: NonNullable<DownloadJob['announced']> = ({ hops }) => ({
      sha256: hops[0]?.headers.get('x-linked-etag')?.replaceAll('"', ''),
    });
    const job = await jobFor(server, { expected: {}, announced });
    await failure(job);
    current = randomBytes(60_000, 4);
    server.handle = (request, response) => sendHubFile(server, request, response, current, sha256(current));
    expect((await download({ ...job, retry: patient })).sha256).toBe(sha256(current));
  });

  it('keeps its bytes when cancelled, and reports the cancellation', async () => {
    const server = await serve((request, response) =>
      sendFile(server, request, response, content, { chunkBytes: 1000, chunkPauseMs: 5 }),
    );
    const cancel = new AbortController();
    const onBytes = (done: number) => done >= 5000 && cancel.abort();
    const job = await jobFor(server, { signal: cancel.signal, onBytes });
    expect(await failure(job)).toMatchObject({ code: 'cancelled' });
    const kept = (await readFile(join(job.folder, 'model.gguf.partial'))).length;
    expect(kept).toBeGreaterThanOrEqual(5000);
    expect(kept).toBeLessThan(content.length);
  });
});

describe('a server that has trouble', () => {
  it('is retried after 500 and 429, after the wait that it requests', async () => {
    const answers = [500, 429, 503];
    const server = await serve((request, response) => {
      const status = answers.shift();
      if (status === undefined) return sendFile(server, request, response, content);
      return void response.writeHead(status, { 'retry-after': '0' }).end();
    });
    const job = await jobFor(server, { retry: { ...patient, firstWaitMs: 60_000 } });
    expect((await download(job)).sha256).toBe(sha256(content));
  });

  // Three formats of one date: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
  it.each(['Sun, 06 Nov 1994 08:49:37 GMT', 'Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994'])(
    'is retried at the date that it requests, by its own clock: %s',
    (date) => {
      const headers = new Headers({ date: 'Sun, 06 Nov 1994 08:49:35 GMT', 'retry-after': date });
      expect(statusFailure({ status: 503, url: new URL('https://host/'), headers }).waitMs).toBe(2000);
    },
  );

  it('is retried without a wait if it requests no time or a past one', () => {
    const waitMs = (retryAfter: string) =>
      statusFailure({ status: 503, url: new URL('https://host/'), headers: new Headers({ 'retry-after': retryAfter }) })
        .waitMs;
    for (const text of ['soon', 'may 5', '-5', '', 'Sunday']) expect(waitMs(text), text).toBeUndefined();
    expect(waitMs('Sun, 06 Nov 1994 08:49:37 GMT')).toBe(0);
  });

  it.each([401, 403])('adds a hint to the status %i', async (status) => {
    const server = await serve((_request, response) => void response.writeHead(status).end());
    const { message } = await failure(await jobFor(server, { retry: patient }));
    expect(message).toContain(`answered ${status}: it`);
    expect(message).toContain('PIP_INDEX_URL');
    expect(message).toContain('hearth models add');
    expect(server.requests).toHaveLength(1);
  });

  it('is given up after the maximum number of failures', async () => {
    const server = await serve((_request, response) => void response.writeHead(500).end());
    expect(await failure(await jobFor(server, { retry: patient }))).toMatchObject({
      code: 'unavailable',
      message: `${server.origin}/model.gguf answered 500.`,
    });
    expect(server.requests).toHaveLength(patient.attempts);
  });

  it('is not retried after 404', async () => {
    const server = await serve((_request, response) => void response.writeHead(404).end());
    expect((await failure(await jobFor(server, { retry: patient }))).message).toContain('answered 404');
    expect(server.requests).toHaveLength(1);
  });

  it('is given up after the idle timeout', async () => {
    const server = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': '50000' }).write('x');
    });
    const error = await failure(await jobFor(server, { retry: { ...impatient, idleMs: 100 } }));
    expect(error.message).toContain('sent nothing for');
  });

  it('is given up immediately if it refuses the first connection', async () => {
    const server = await serve((_request, response) => void response.end());
    await server.close();
    const error = await failure(await jobFor(server, { retry: { ...patient, firstWaitMs: 60_000 } }));
    expect(error).toMatchObject({ code: 'unavailable', message: expect.stringContaining('ECONNREFUSED') });
  });
});

describe('a server that lies', () => {
  it.each([
    ['other content', randomBytes(50_000, 9), {}, 'instead of'],
    ['too few bytes', content.subarray(0, 49_999), {}, 'has 49999 bytes instead of 50000'],
    ['too many bytes', Buffer.concat([content, content]), { chunked: true }, 'sent more bytes'],
    ['compressed content', content, { headers: { 'content-encoding': 'gzip' } }, 'was sent in gzip'],
  ])('is refused: %s', async (_name, body, options, message) => {
    const server = await serve((request, response) => sendFile(server, request, response, body, options));
    const job = await jobFor(server);
    expect(await failure(job)).toMatchObject({ code: 'unavailable', message: expect.stringContaining(message) });
    expect(await filesBelow(job.folder)).not.toContain('model.gguf');
  });

  it('leaves no file after a wrong digest', async () => {
    const server = await serve((request, response) => sendFile(server, request, response, randomBytes(50_000, 9)));
    const job = await jobFor(server);
    await failure(job);
    expect(await filesBelow(job.folder)).toEqual([]);
  });

  it.each(['bytes', 'Bytes', 'BYTES'])('is resumed with the range unit %s', async (unit) => {
    const { server, job } = await cutJob(100);
    await failure(job);
    server.handle = (_request, response) => {
      response.writeHead(206, { 'content-range': `${unit} 100-49999/50000` }).end(content.subarray(100));
    };
    expect((await download(job)).sha256).toBe(sha256(content));
  });

  it('is refused if it sends a range that was not requested', async () => {
    const { server, job } = await cutJob(100);
    await failure(job);
    server.handle = (_request, response) => {
      response.writeHead(206, { 'content-range': 'bytes 7-49999/50000' }).end(content.subarray(7));
    };
    expect((await failure(job)).message).toContain('did not send the requested byte range');
  });

  it('is refused without any digest, before the first byte', async () => {
    const server = await serve((request, response) => sendFile(server, request, response, content));
    const error = await failure(await jobFor(server, { expected: {} }));
    expect(error.message).toContain('has no digest');
  });

  it('is refused above the size limit', async () => {
    const server = await serve((request, response) => sendFile(server, request, response, content));
    const error = await failure(await jobFor(server, { maxBytes: 1000 }));
    expect(error.message).toContain('more than 1 kB');
  });
});

describe('addresses', () => {
  it('are followed through several redirects', async () => {
    const server = await serve((request, response) => {
      const step = Number(/\d+$/.exec(request.url ?? '')?.[0] ?? 0);
      if (step === 5) return sendFile(server, request, response, content);
      return void response.writeHead(302, { location: `/step${step + 1}` }).end();
    });
    expect((await download(await jobFor(server))).sha256).toBe(sha256(content));
  });

  it('are not followed in a redirect loop', async () => {
    const server = await serve((_request, response) => void response.writeHead(302, { location: '/again' }).end());
    expect((await failure(await jobFor(server, { retry: patient }))).message).toContain('redirects more than 8 times');
  });

  it.each([
    ['http://example.invalid/model', 'must use https'],
    ['file:///etc/passwd', 'must use https'],
    ['ftp://example.invalid/model', 'must use https'],
    ['http://169.254.169.254/latest/meta-data', 'must use https'],
    ['http://[::ffff:7f00:1]/model', 'must use https'],
    ['http://127.0.0.1.example.invalid/', 'must use https'],
    ['http://%zz', 'an invalid address'],
  ])('are refused as redirects: %s', async (location, message) => {
    const server = await serve((_request, response) => void response.writeHead(302, { location }).end());
    expect((await failure(await jobFor(server))).message).toMatch(new RegExp(message));
  });

  it('with a password send it only to their own host', async () => {
    const other = await serve((request, response) => sendFile(other, request, response, content));
    const server = await serve((request, response) => {
      const location = request.url === '/model.gguf' ? '/moved' : `${other.origin}/elsewhere`;
      response.writeHead(302, { location }).end();
    });
    const address = new URL(`${server.origin}/model.gguf`);
    address.username = 'me';
    address.password = 'secret';
    await download(await jobFor(server, { address }));
    const basic = `Basic ${Buffer.from('me:secret').toString('base64')}`;
    expect(server.requests.map((request) => request.headers.authorization)).toEqual([basic, basic]);
    expect(other.requests.map((request) => request.headers.authorization)).toEqual([undefined]);
  });
});

function sha1(...parts: (string | Buffer)[]): string {
  const hash = createHash('sha1');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}
