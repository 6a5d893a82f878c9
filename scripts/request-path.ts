/**
 * Counts the frames and files that one completion and one question pass, in real processes: `node scripts/request-path.ts [--list]`.
 *
 * A frame is one of our functions that is on the (asynchronous) stack where the request leaves our own code or changes hands:
 * VS Code is asked, a process is sent to, text becomes tokens, the scheduler takes the request, the model computes, a token is
 * delivered, code is parsed, the page gets an event; and, in the indexer, a query. Functions that only help such a frame are counted
 * among those that ran. The model is the default one on the CPU; VS Code is the stub of the unit tests. The second request
 * is counted, when everything is warm.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import type { ToPage } from '../extension/messages.ts';
import { type Observed, Observer } from './requestPath/observe.ts';
import { projectRoot } from './shared/paths.ts';

const { values } = parseArgs({ options: { list: { type: 'boolean', default: false } } });
const stub = pathToFileURL(join(projectRoot, 'test/unit/extension/vscode.ts')).href;
registerHooks({
  resolve: (name, context, next) =>
    name === 'vscode' ? { url: stub, shortCircuit: true, format: 'module-typescript' } : next(name, context),
});
const vscode = await import('../test/unit/extension/vscode.ts');
const { EngineConnection } = await import('../extension/client/connection.ts');
const { EngineClient } = await import('../extension/client/client.ts');
const { EngineHost } = await import('../extension/client/host.ts');
const { Acceptance } = await import('../extension/completion/suggestions.ts');
const { CompletionProvider } = await import('../extension/completion/provider.ts');
const { ChatView } = await import('../extension/chat/chat.ts');
const { ChatSession } = await import('../extension/chat/session.ts');
const { ChatStore } = await import('../extension/chat/store.ts');
const { ContextGatherer } = await import('../extension/context/gather.ts');
const { ContextTracker } = await import('../extension/context/tracker.ts');
const { MentionSuggester } = await import('../extension/context/mentions.ts');
const { IndexClient } = await import('../extension/repository/indexClient.ts');
const { RepositoryIndex } = await import('../extension/repository/repositoryIndex.ts');
const { Thinking } = await import('../extension/thinking.ts');

const scratch = mkdtempSync(join(tmpdir(), 'hearth-path-'));
const log = { error: console.error, warn: console.error, info: () => {}, debug: () => {} };
const text = 'export function light(lamp) {\n  return lamp.on;\n}\n\nexport function add(a, b) {\n  ';
writeFileSync(join(scratch, 'lamp.js'), text);

/** One of our child processes, which observes itself. */
function childOf(entry: string) {
  const observed = join(scratch, entry.replaceAll('/', '-'));
  const launch = () => ({
    entry: join(projectRoot, entry),
    env: { HEARTH_OBSERVED: observed, NODE_OPTIONS: `--import=${join(projectRoot, 'scripts/requestPath/child.ts')}` },
  });
  return { observed, launch };
}
const engineChild = childOf('engine/main.ts');
const indexChild = childOf('engine/indexer.ts');

async function signal(pid: number | undefined, file: string): Promise<string> {
  rmSync(file, { force: true });
  if (pid !== undefined) process.kill(pid, 'SIGUSR2');
  while (!existsSync(file) || readFileSync(file, 'utf8') === '') await sleep(20);
  return readFileSync(file, 'utf8');
}

const observer = new Observer();
observer.watch(EngineConnection.prototype, 'request', (_, [method]) => observer.request(String(method)));
for (const name of ['complete', 'chat', 'countTokens'] as const) observer.watch(EngineClient.prototype, name);
for (const name of ['getConfiguration', 'asRelativePath'] as const) observer.watch(vscode.workspace, name);

vscode.settings.set('hearth.backend', 'onnx');
vscode.settings.set('hearth.completion.model', 'chat');
vscode.settings.set('hearth.completion.confidence', 'eager');
vscode.settings.set('hearth.completion.maxTokens', 12);
vscode.settings.set('hearth.chat.maxTokens', 12);
const client = new EngineClient(engineChild.launch, log);
const host = new EngineHost(() => Promise.resolve(client));
const index = new RepositoryIndex(
  async (options) => new IndexClient(indexChild.launch, log, options),
  () => ({ database: join(scratch, 'index.db'), folders: [{ name: '', directory: scratch }] }),
  log,
);
await host.client();
await client.ready();
await index.searchByMeaning('light', 1);

async function observe(processes: readonly [number | undefined, string][], request: () => Promise<void>) {
  await request();
  for (const [pid, file] of processes) await signal(pid, `${file}.started`);
  await observer.start();
  await request();
  const own = await observer.stop();
  const others: Observed[] = [];
  for (const [pid, file] of processes) others.push(JSON.parse(await signal(pid, `${file}.stopped`)));
  return { requests: own.requests, parts: [own, ...others] };
}

const engine: [number | undefined, string] = [client.pid, engineChild.observed];
const indexer: [number | undefined, string] = [index.pid, indexChild.observed];

// ---- A completion ----

const nothingLearned = new Acceptance({ get: (_key, usual) => usual, update: async () => {} });
const nearby = { snippets: async () => [], refresh: async () => {} };
const provider = new CompletionProvider(host, log, nearby, nothingLearned, () => Promise.resolve());
let typed = 0;
const completion = await observe([engine], async () => {
  const lines = `${text}${'x'.repeat(++typed)} = `.split('\n');
  const document = {
    languageId: 'javascript',
    lineCount: lines.length,
    lineAt: (line: number) => ({ text: lines[line] ?? '' }),
    uri: vscode.Uri.file('/lamp.js'),
  };
  const end = new vscode.Position(lines.length - 1, lines.at(-1)?.length ?? 0);
  const kind = { triggerKind: vscode.InlineCompletionTriggerKind.Automatic, selectedCompletionInfo: undefined };
  await provider.provideInlineCompletionItems(document as never, end, kind, new vscode.CancellationTokenSource().token);
});

// ---- A question ----

const memory = { keys: () => [], get: <T>(_: string, fallback?: T) => fallback as T, update: async () => {} };
const thinking = new Thinking(memory, host);
const files = { reread: async () => undefined, find: async () => undefined };
const session = new ChatSession(host, new ChatStore(join(scratch, 'chats'), log), thinking, log, files);
const tracker = new ContextTracker();
const gatherer = new ContextGatherer(host, tracker, index);
const suggester = new MentionSuggester(index);
const extensionUri = vscode.Uri.file(projectRoot);
const parts = { engine: host, session, tracker, gatherer, suggester, thinking, log, memory, extensionUri };
const agent = { onChange: new vscode.EventEmitter<void>().event, isOn: () => false } as never;
const changes = { onChange: new vscode.EventEmitter<string>().event, viewOf: async () => undefined } as never;
const view = new ChatView({ ...parts, proposals: undefined as never, models: undefined as never, changes, agent });
const ended = new vscode.EventEmitter<void>();
const page = {
  options: {},
  html: '',
  cspSource: '',
  asWebviewUri: (uri: unknown) => uri,
  onDidReceiveMessage: new vscode.EventEmitter<unknown>(),
  postMessage(message: ToPage) {
    observer.handOver();
    if (message.type === 'end') ended.fire();
  },
};
const never = new vscode.EventEmitter<void>().event;
view.pages.attach({
  ...{ webview: { ...page, onDidReceiveMessage: page.onDidReceiveMessage.event }, visible: true },
  ...{ onDidDispose: never, onDidChangeVisibility: never },
} as never);
const question = await observe([engine, indexer], async () => {
  const done = new Promise<void>((resolve) => ended.event(() => resolve()));
  page.onDidReceiveMessage.fire({ type: 'send', text: 'Where is the function that lights the lamp?' });
  await done;
});

// ---- What was seen ----

function report(name: string, { requests, parts: seen }: typeof completion): void {
  const frames = [...new Set(seen.flatMap((part) => part.frames))];
  const ran = [...new Set(seen.flatMap((part) => part.ran))];
  const files = (list: readonly string[]) => new Set(list.map((frame) => frame.split(' ', 1)[0])).size;
  console.log(`${name}: ${frames.length} frames in ${files(frames)} files; requests: ${requests.join(', ')}`);
  console.log(`  ${ran.length} functions in ${files(ran)} files ran at all`);
  if (values.list) for (const frame of frames) console.log(`    ${frame}`);
}
report('A completion', completion);
report('A question', question);
await session.close();
await Promise.all([client.stop(), index.stop()]);
rmSync(scratch, { recursive: true, force: true });
process.exit(0);
