/**
 * The parts of a window that use processes: chat with its journal, completions, structured answers and the index, through
 * the extension's own clients and the built engine and indexer, with two tiny models (one chats, one completes). It is greedy,
 * so that every answer is known in advance.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CancellationTokenSource } from 'vscode-jsonrpc/node';
import type { StoredTurn } from '../../extension/chat/conversation.ts';
import { ChatSession } from '../../extension/chat/session.ts';
import { ChatStore } from '../../extension/chat/store.ts';
import { EngineClient } from '../../extension/client/client.ts';
import { EngineHost } from '../../extension/client/host.ts';
import type { Log } from '../../extension/parts.ts';
import { IndexClient } from '../../extension/repository/indexClient.ts';
import { RepositoryIndex } from '../../extension/repository/repositoryIndex.ts';
import { Thinking } from '../../extension/thinking.ts';
import { settings } from '../unit/extension/vscode.ts';

export interface WindowPaths {
  /** Of the build. */
  readonly engine: string;
  readonly indexer: string;
  readonly chatModel: string;
  readonly completionModel: string;
  /** Environment of both processes. */
  readonly env: Readonly<Record<string, string>>;
  /** Journals, database, workspace. */
  readonly folder: string;
}

export const kinds = ['chat', 'summary', 'completion', 'json', 'search'] as const;
export type Kind = (typeof kinds)[number];
export type Answer = string | Error;

const code = (name: string): string => `export function ${name}(attempts) {\n  return attempts + 1;\n}\n`;
export const question = 'Tell me a long story about retries, please.';
const schema = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 40 },
    list: { type: 'array', items: { type: 'integer' }, maxItems: 9 },
  },
  required: ['name', 'list'],
  additionalProperties: false,
};
const never = new CancellationTokenSource().token;
const quietly = { onDelta: () => {} };

export class Window {
  readonly engine: EngineClient;
  readonly index: RepositoryIndex;
  readonly store: ChatStore;
  readonly session: ChatSession;
  readonly lines: string[] = [];
  readonly #workspace: string;
  #works = 0;

  constructor({ engine, indexer, chatModel, completionModel, env, folder }: WindowPaths) {
    settings.set('hearth.chat.model', chatModel);
    settings.set('hearth.completion.model', completionModel);
    settings.set('hearth.backend', 'onnx');
    settings.set('hearth.threads', 1);
    settings.set('hearth.contextTokens', 1024);
    settings.set('hearth.chat.temperature', 0);
    settings.set('hearth.chat.maxTokens', 160);
    const write = (line: string): void => void this.lines.push(line);
    const log: Log = { error: write, warn: write, info: write, debug: () => {} };
    const workspace = join(folder, 'workspace');
    mkdirSync(workspace, { recursive: true });
    for (let i = 0; i < 20; i++) writeFileSync(join(workspace, `file${i}.js`), code(`retry${i}`));
    this.#workspace = workspace;
    const options = { database: join(folder, 'index.db'), folders: [{ name: '', directory: workspace }] };
    this.engine = new EngineClient(() => ({ entry: engine, env, shared: { graceMs: 0 } }), log);
    this.index = new RepositoryIndex(
      async (asked) => new IndexClient(() => ({ entry: indexer, env }), log, asked),
      () => options,
      log,
    );
    this.store = new ChatStore(join(folder, 'chats'), log);
    const host = new EngineHost(async () => this.engine);
    const memory = { keys: () => [], get: <T>(_: string, otherwise?: T) => otherwise as T, update: async () => {} };
    this.session = new ChatSession(host, this.store, new Thinking(memory, host), log, {
      reread: async () => undefined,
      find: async () => undefined,
    });
  }

  /** Resolves when both models are loaded and the index is up to date. */
  async ready(): Promise<void> {
    await Promise.all([this.engine.ready(), this.#indexed()]);
  }

  /**
   * A question with a summary queued behind it, a completion, a structured answer, and a search beside a file that has just
   * been written, all at once. Never rejects.
   */
  async work(): Promise<Record<Kind, Answer>> {
    this.#writeFile();
    await this.session.startNew();
    const asked = this.session.ask(question, []);
    const summed = this.session.summarise(summary);
    const [completion, json, search] = await Promise.all([this.#complete(), this.#structured(), this.#search()]);
    await Promise.all([asked, summed]);
    const [chat, sum] = this.store.conversation.turns;
    return { chat: answerOf(chat), summary: answerOf(sum), completion, json, search };
  }

  /** What is missing of the files that were written so far, some seconds after the index is back. */
  async missingFiles(): Promise<string[]> {
    await this.#indexed();
    const names = Array.from({ length: this.#works }, (_, i) => `fresh${i + 1}`);
    for (let left = 100; ; left--) {
      const missing = [];
      for (const name of names) if ((await this.index.symbols(name, 1))[0]?.path !== `${name}.js`) missing.push(name);
      if (missing.length === 0 || left === 0) return missing;
      await sleep(100);
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.engine.stop(), this.index.stop(), this.session.close()]);
  }

  async #indexed(): Promise<void> {
    const isIdle = (): boolean => {
      const { view } = this.index;
      return view.kind === 'open' && view.state.phase === 'idle' && view.state.files > 0;
    };
    this.index.start();
    while (!isIdle()) await sleep(10);
  }

  #writeFile(): void {
    const path = `fresh${++this.#works}.js`;
    writeFileSync(join(this.#workspace, path), code(`fresh${this.#works}`));
    this.index.update([path]);
  }

  #complete(): Promise<Answer> {
    const place = { prefix: 'export function retry(attempts) {\n  return ', suffix: '\n}\n', maxTokens: 48 };
    const params = { ...place, whole: true, sampling: { temperature: 0 } };
    return this.engine.complete(params, never).then(({ text }) => text, asError);
  }

  #structured(): Promise<Answer> {
    const messages = [{ role: 'user' as const, content: 'Answer in JSON.' }];
    const responseFormat = { kind: 'json-schema' as const, schema };
    const params = { messages, responseFormat, maxTokens: 80, sampling: { temperature: 0 } };
    return this.engine.chat(params, quietly, never).then(({ text }) => text, asError);
  }

  #search(): Promise<Answer> {
    return this.index.search('retry7 attempts', 3).then((found) => found[0]?.path ?? '', asError);
  }
}

const summary = {
  uri: 'file:///file.js',
  path: 'file.js',
  languageId: 'javascript',
  text: Array.from({ length: 10 }, (_, i) => code(`f${i}`)).join(''),
  symbols: [],
  files: [],
};

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

function answerOf(turn: StoredTurn | undefined): Answer {
  const { answer = '', outcome } = turn?.view ?? {};
  if (outcome?.kind === 'done') return answer;
  return new Error(outcome?.kind === 'failed' ? outcome.message : `The turn is ${outcome?.kind}.`);
}
