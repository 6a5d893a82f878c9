/**
 * Measures the engine's memory over many requests and compares it with the model list's estimate before a download.
 *
 *     npm run build && npm run bench:memory [-- --requests N] [--seed N] [--model ID] [--backend NAME]
 *
 * The requests are those of one user in an hour: completions and warm-ups at changing places of this project's files, growing
 * chats, and summaries, on the CPU.
 */
import { readFileSync } from 'node:fs';
import { glob } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { defaultModelId, requireEntry } from '../engine/catalogue/catalogue.ts';
import { memoryNeededBytes } from '../engine/catalogue/fit.ts';
import { backendChoice } from '../engine/protocol/models.ts';
import { seededRandom } from '../engine/sampling/random.ts';
import { startEngine } from './shared/engineProcess.ts';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
    model: { type: 'string', default: defaultModelId },
    backend: { type: 'string', default: 'cpu' },
  },
});

const random = seededRandom(Number(values.seed));
const among = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
const files: { path: string; text: string }[] = [];
for await (const path of glob('engine/**/*.ts')) files.push({ path, text: readFileSync(path, 'utf8') });

const engine = startEngine('dist/engine.mjs');
const { requests } = engine;
await requests.load({ model: values.model, backend: backendChoice.parse(values.backend), diskCacheBytes: 0 });

const statedBytes = memoryNeededBytes(requireEntry(values.model), 'processor');
const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0);
/** Long, because the machine may be busy. */
const timeoutMs = 600_000;
let mostBytes = 0;
async function sample(done: number): Promise<void> {
  const { residentBytes, cacheBytes } = await requests.status();
  mostBytes = Math.max(mostBytes, residentBytes);
  console.log(
    `| ${done} | ${megabytes(residentBytes)} | ${megabytes(cacheBytes)} | ${(residentBytes / statedBytes).toFixed(2)} |`,
  );
}

function completion() {
  const { path, text } = among(files);
  const at = Math.floor(random() * Math.min(text.length, 4_000));
  const snippets = [among(files), among(files)].map((file) => ({ path: file.path, text: file.text.slice(0, 700) }));
  return {
    path,
    prefix: text.slice(0, at),
    suffix: text.slice(at),
    languageId: 'typescript',
    snippets,
    maxTokens: 24,
    timeoutMs,
  };
}

let messages: { role: 'user' | 'assistant'; content: string }[] = [];
async function chat(number: number): Promise<void> {
  if (messages.length > 8) messages = [];
  messages.push({ role: 'user', content: `Explain this.\n\n${among(files).text.slice(0, 3_000)}` });
  const thinking = 'off';
  const answer = engine.requests.chat({ stream: `s${number}`, messages, thinking, maxTokens: 48, timeoutMs });
  messages.push({ role: 'assistant', content: `${(await answer).finish}: it does what its name says.` });
}

console.log(
  `${cpus()[0]?.model}, load ${loadavg()[0]?.toFixed(1)}; ${values.model} needs ${megabytes(statedBytes)} MB by the list\n`,
);
console.log('| requests | resident MB | KV cache MB | resident ÷ list |\n|---:|---:|---:|---:|');
await sample(0);
for (let done = 1; done <= Number(values.requests); done++) {
  if (done % 40 === 0) {
    const { path, text } = among(files);
    await requests.summarise({ stream: `u${done}`, path, text: text.slice(0, 6_000), timeoutMs });
  } else if (done % 8 === 0) await chat(done);
  else if (done % 3 === 0) await requests.warm({ kind: 'completion', ...completion() });
  else await requests.complete(completion());
  if (done % 10 === 0) await sample(done);
}
console.log(`\nMost: ${megabytes(mostBytes)} MB, ${(mostBytes / statedBytes).toFixed(2)} of the list's figure.`);
await engine.stop();
