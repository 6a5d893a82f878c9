/**
 * `npm run proof:clients`: installs the newest openai-python, litellm, LangChain, openai-node and LangChain.js, and runs their cases against the
 * server with a scripted engine. `-- --base URL --token TOKEN --model NAME` runs those that need no script against another
 * server. Prints the table of docs/proof.md; fails if a case does.
 */
import { type ExecFileSyncOptions, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { devCache } from '../../scripts/shared/paths.ts';
import { answerOf, ScriptedEngine, startScripted, token } from '../unit/http/support.ts';

interface Outcome {
  readonly who: string;
  readonly case: string;
  readonly error: string | null;
}

const { values } = parseArgs({
  options: { base: { type: 'string' }, token: { type: 'string' }, model: { type: 'string', default: 'scripted' } },
});
const folder = join(devCache, 'clients');
const python = join(folder, 'venv', 'bin', 'python');
const cases = (name: string): string => join(import.meta.dirname, 'clients', name);

function install(): string[] {
  mkdirSync(folder, { recursive: true });
  const quiet: ExecFileSyncOptions = { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] };
  if (!existsSync(python)) execFileSync('python3', ['-m', 'venv', 'venv'], quiet);
  const packages = ['openai', 'litellm', 'langchain', 'langchain-openai'];
  execFileSync(python, ['-m', 'pip', 'install', '--quiet', '--upgrade', ...packages], quiet);
  const modules = ['openai', '@langchain/openai', '@langchain/core', 'zod'];
  execFileSync(
    'npm',
    ['install', '--silent', '--no-audit', '--prefix', folder, ...modules.map((own) => `${own}@latest`)],
    quiet,
  );
  const installed = execFileSync(python, ['-m', 'pip', 'freeze'], { encoding: 'utf8' }).split('\n');
  const own = packages.flatMap((name) => installed.filter((line) => line.startsWith(`${name}==`)));
  const listed = JSON.parse(execFileSync('npm', ['ls', '--json', '--prefix', folder], { encoding: 'utf8' })) as {
    dependencies: Record<string, { version: string }>;
  };
  return [...own, ...modules.map((name) => `${name}@${listed.dependencies[name]?.version}`)];
}

/** Calls a tool if tools are offered and there is no result yet, writes JSON if requested, otherwise text. */
function scripted(dimensions?: number): ScriptedEngine {
  const engine = new ScriptedEngine();
  if (engine.model && dimensions !== undefined) engine.model = { ...engine.model, embeddingDimensions: dimensions };
  engine.answer = async ({ tools = [], toolChoice, messages, responseFormat }) => {
    if (responseFormat && responseFormat.kind !== 'text') return answerOf({ text: '{"city":"Oslo"}' });
    if (tools.length === 0 || toolChoice === 'none' || messages.at(-1)?.role === 'tool') return answerOf();
    const name = tools[0]?.name ?? '';
    const calls = ['Oslo', 'Rome'].map((city, i) => ({ id: `call_${i}`, name, arguments: JSON.stringify({ city }) }));
    return answerOf({ text: '', thinking: 'Which city?', toolCalls: calls, finish: 'tool-calls' });
  };
  return engine;
}

async function run(command: string, options: readonly string[]): Promise<Outcome[]> {
  const child = spawn(command, options, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const outcomes: Outcome[] = [];
  for await (const line of createInterface({ input: child.stdout }))
    if (line.startsWith('{')) outcomes.push(JSON.parse(line) as Outcome);
  return outcomes;
}

const versions = install();
const servers = [await startScripted(scripted()), await startScripted(scripted(3))];
const [base, embeddings] = servers.map(({ address }) => `${address}/v1`);
const options = [values.base ?? base ?? '', embeddings ?? '', values.token ?? token, values.model];
const outcomes = [
  ...(await run(python, [cases('cases.py'), ...options])),
  ...(await run(process.execPath, [cases('cases.mjs'), ...options])),
];
for (const server of servers) await server.close();
console.log(`${versions.join(', ')}\n\n| client | case | outcome |\n|---|---|---|`);
for (const { who, case: name, error } of outcomes)
  console.log(`| ${who} | ${name} | ${error === null ? 'as expected' : 'fails'} |`);
for (const { who, case: name, error } of outcomes) if (error !== null) console.error(`\n${who}: ${name}\n${error}`);
const failed = outcomes.filter(({ error }) => error !== null).length;
console.log(`\n${outcomes.length - failed} of ${outcomes.length} as expected.`);
process.exitCode = failed === 0 && outcomes.length > 0 ? 0 : 1;
