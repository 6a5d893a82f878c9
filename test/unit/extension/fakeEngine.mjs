// A scripted engine: speaks the protocol's method names over the IPC channel, with behaviour chosen by the FAKE_* variables
// and by what it is asked. It imports nothing of Hearth, so that the protocol is written down independently.
import process from 'node:process';
import { createMessageConnection, IPCMessageReader, IPCMessageWriter, ResponseError } from 'vscode-jsonrpc/node';

const rpc = createMessageConnection(new IPCMessageReader(process), new IPCMessageWriter(process));
const env = process.env;
const figures = { promptTokens: 20, cachedTokens: 5, generatedTokens: 3, timeToFirstTokenMs: 4, tokensPerSecond: 50 };
const card = (id) => ({
  id,
  name: `Model ${id}`,
  family: 'llama',
  backend: 'onnx',
  contextTokens: 2048,
  parameters: 135e6,
  weightBytes: 1e8,
  thinkingModes: id.endsWith('thinker') ? ['off', 'on'] : ['off'],
  fillInTheMiddle: id.includes('coder'),
  chat: true,
  toolCalling: id.endsWith('thinker'),
  notes: [],
});
const entry = (id, state) => ({
  id,
  name: `Model ${id}`,
  description: 'For tests.',
  licence: 'Apache-2.0',
  family: id === 'thinker' ? 'qwen3' : 'llama',
  contextTokens: 8192,
  parameters: 135e6,
  downloadBytes: 1e8,
  state,
  fit: { verdict: 'good', reason: 'Fits.' },
  recommendedFor: id === 'small' ? ['chat'] : id === env.FAKE_PARTNER ? ['completion'] : [],
  suitability:
    id === env.FAKE_EMBEDDING ? {} : { chat: id === 'small' ? 2 : 1, ...(id.startsWith('coder') && { completion: 1 }) },
  embedding: id === env.FAKE_EMBEDDING,
  fillInTheMiddle: id.startsWith('coder'),
});
let loaded;
let completing;
let entries = [entry('small', env.FAKE_MODEL_STATE ?? 'present'), entry('thinker', 'absent')];
if (env.FAKE_CODER) entries.push(entry('coder', env.FAKE_CODER));
if (env.FAKE_EMBEDDING) entries.push(entry(env.FAKE_EMBEDDING, 'absent'));
if (env.FAKE_BROKEN) entries.push(entry('broken', 'present'));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const fail = (code, message) => new ResponseError(-32000, message, { code });

if (env.FAKE_EXIT_AT_START) process.exit(3);
if (env.FAKE_STDERR) process.stderr.write(`${env.FAKE_STDERR}\n`);

rpc.onRequest('status', () => ({
  protocolVersion: Number(env.FAKE_PROTOCOL ?? 1),
  state: loaded ? 'ready' : 'empty',
  ...(loaded ? { model: loaded } : {}),
  queuedRequests: 0,
  residentBytes: 1,
  cacheBytes: 0,
}));
rpc.onRequest('load', async ({ model, role = 'chat' }) => {
  rpc.sendNotification('progress', {
    task: 'load',
    subject: model,
    message: 'Reading',
    done: 1,
    total: 2,
    unit: 'bytes',
  });
  if (model === 'broken') throw fail('out-of-memory', 'The model does not fit.');
  await sleep(5);
  if (role === 'chat') loaded = card(model);
  else completing = card(model);
  return card(model);
});
// Returns the token, which no real server does, so that a test can check it.
rpc.onRequest('startServer', ({ port, token }) => {
  if (port === 1) throw fail('unavailable', 'Port 1 is taken, perhaps by Hearth in another window.');
  return { address: `http://127.0.0.1:${port}/v1#${token}` };
});
rpc.onRequest('stopServer', () => null);
const remoteModels = ['one', 'two'].map((id) => ({ id, contextTokens: 4096 }));
rpc.onRequest('remoteModels', ({ url, token }) => {
  if (url.includes('locked') && token !== 'secret') throw fail('unavailable', 'It answered: 401. Check the token.');
  return url.includes('single') ? remoteModels.slice(0, 1) : remoteModels;
});
rpc.onRequest('connect', async ({ url, token, role = 'chat', model = 'one', contextTokens = 4096 }) => {
  if (url.includes('away')) throw fail('unavailable', 'It cannot be reached; check the address.');
  if (url.includes('locked') && token !== 'secret') throw fail('unavailable', 'It answered: 401. Check the token.');
  const { host } = new URL(url);
  const served = { ...card(model), id: `remote:${url}#${model}`, backend: 'remote', host, contextTokens };
  if (role === 'chat') loaded = served;
  else completing = served;
  return served;
});
rpc.onRequest('unload', ({ role }) => {
  if (role !== 'completion') loaded = undefined;
  completing = undefined;
  return null;
});
rpc.onRequest('clearCache', () => ({ files: 3, bytes: 2_500_000 }));
rpc.onRequest('listModels', () => {
  if (env.FAKE_OTHERS_DOWNLOAD) void othersDownload(env.FAKE_OTHERS_DOWNLOAD);
  return entries;
});
let isDownloading = false;
/** Another window downloads the model; `how`: done or failed. */
async function othersDownload(how) {
  if (isDownloading) return;
  isDownloading = true;
  await sleep(20);
  const message = 'Downloading from a hub';
  rpc.sendNotification('progress', { task: 'download', subject: 'small', message, done: 1, total: 4, unit: 'bytes' });
  await sleep(20);
  if (how === 'done') entries = entries.map((each) => (each.id === 'small' ? entry('small', 'present') : each));
  rpc.sendNotification('modelsChanged', {});
}
// A gated repository: the token that opens it is "hf_right".
rpc.onRequest('hubOffers', ({ repository, token }) => {
  if (token !== 'hf_right') throw fail('unavailable', `${repository} is gated.`);
  const offer = (label, bytes) => ({ id: `${repository}:${label}`, label, bytes, files: 1, fit: entry('x').fit });
  return [offer('Q4_K_M', 2e9), offer('Q8_0', 4e9)];
});
let failedPulls = 0;
rpc.onRequest('pullModel', async ({ model, token: secret }, token) => {
  if (failedPulls++ < Number(env.FAKE_PULL_FAILURES ?? 0)) throw fail('unavailable', 'There is no network.');
  if (model.includes('/')) {
    if (secret !== 'hf_right') throw fail('unavailable', `${model} is gated.`);
    entries = [...entries, entry(model, 'absent')];
  }
  for (let done = 1; done <= 4; done++) {
    if (token.isCancellationRequested) throw fail('cancelled', 'The request was cancelled.');
    rpc.sendNotification('progress', {
      task: 'download',
      subject: model,
      message: 'Downloading',
      done,
      total: 4,
      unit: 'bytes',
    });
    await sleep(Number(env.FAKE_PULL_MS ?? 2));
  }
  entries = entries.map((e) => (e.id === model ? { ...e, state: 'present' } : e));
  return entries.find((e) => e.id === model);
});
rpc.onRequest('verifyModel', ({ model }) => entries.find((e) => e.id === model));
rpc.onRequest('removeModel', ({ model }) => {
  entries = entries.map((e) => (e.id === model ? { ...e, state: 'absent' } : e));
  return entries.find((e) => e.id === model);
});
rpc.onRequest('complete', async ({ prefix, multiline, candidates, confidence, stream }, token) => {
  if (prefix.includes('SLOW')) {
    while (!token.isCancellationRequested) await sleep(2);
    throw fail('cancelled', 'The request was cancelled.');
  }
  if (prefix.includes('SPELL')) {
    for (const text of ['ret', 'urn']) {
      await sleep(30);
      rpc.sendNotification('delta', { stream, kind: 'text', text });
    }
    await sleep(30);
    if (token.isCancellationRequested) throw fail('cancelled', 'The request was cancelled.');
  }
  if (prefix.includes('WHO')) return { text: (completing ?? loaded).id, finish: 'stop', statistics: figures };
  if (prefix.includes('INVALID')) return { text: 5 };
  if (prefix.includes('CYCLE'))
    return {
      text: confidence,
      alternatives: ['two', 'three', 'four'].slice(0, candidates - 1),
      finish: 'stop',
      statistics: figures,
    };
  if (prefix.includes('LINES'))
    return { text: multiline === 'never' ? ';' : ';\n  next();', finish: 'stop', statistics: figures };
  return { text: 'return 1;', finish: 'stop', statistics: figures };
});
rpc.onRequest('chat', async ({ stream, messages }, token) => {
  const question = messages.at(-1).content;
  if (question.includes('OVERFLOW')) throw fail('context-overflow', 'The question does not fit.');
  if (question.includes('BUG')) throw new Error('a broken invariant');
  if (question.includes('UNPLUG')) {
    loaded = { ...loaded, backend: 'reference' };
    rpc.sendNotification('modelChange', { message: 'The GPU stopped answering.', card: loaded });
  }
  rpc.sendNotification('delta', { stream, kind: 'nonsense', text: 4 });
  let text = '';
  const pieces = question.includes('CITE') ? ['It is in `a.ts:3`', ' and `gone.ts:3`.'] : ['One ', 'two ', 'three.'];
  for (const piece of pieces) {
    if (token.isCancellationRequested)
      return { text, thinking: '', toolCalls: [], finish: 'cancelled', statistics: figures, droppedMessages: 0 };
    text += piece;
    await rpc.sendNotification('delta', { stream, kind: 'text', text: piece });
    if (question.includes('CRASH')) process.kill(process.pid, 'SIGKILL');
    await sleep(question.includes('GLACIAL') ? 600 : question.includes('SLOW') ? 30 : 2);
  }
  return { text, thinking: '', toolCalls: [], finish: 'stop', statistics: figures, droppedMessages: 0 };
});
// A word is a token.
rpc.onRequest('countTokens', ({ texts }) => {
  if (env.FAKE_COUNTS_NOT) throw fail('unsupported', 'This engine does not count.');
  return texts.map((text) => text.split(/\s+/).filter(Boolean).length);
});
rpc.onRequest('summarise', async ({ stream, text }) => {
  for (let done = 0; done <= 2; done++) {
    rpc.sendNotification('progress', {
      task: 'summarise',
      subject: stream,
      message: `Part ${done}`,
      done,
      total: 2,
      unit: 'parts',
    });
  }
  rpc.sendNotification('delta', { stream, kind: 'text', text: 'A summary.' });
  return { text: 'A summary.', finish: 'stop', parts: text.length > 100 ? 2 : 1, statistics: figures };
});
process.on('disconnect', () => {
  if (!env.FAKE_STUBBORN) process.exit(0);
});
if (env.FAKE_STUBBORN) setInterval(() => {}, 1000);
rpc.listen();
