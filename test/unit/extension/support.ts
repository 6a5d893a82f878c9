/** Shared by the extension's tests: the scripted engine, a log in memory, waiting for a state. */
import { fileURLToPath } from 'node:url';
import { afterEach } from 'vitest';
import { EngineClient } from '../../../extension/client/client.ts';
import type { EngineState } from '../../../extension/client/host.ts';
import { EngineHost } from '../../../extension/client/host.ts';
import type { TokenFor } from '../../../extension/client/modelLoader.ts';
import type { Log } from '../../../extension/parts.ts';
import { EventEmitter, settings, user } from './vscode.ts';

export const fakeEngine = fileURLToPath(new URL('fakeEngine.mjs', import.meta.url));
export const logged: string[] = [];
const write = (level: string) => (message: string) => void logged.push(`${level} ${message}`);
export const log: Log = { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') };

const clients: EngineClient[] = [];

/** A client of the scripted engine, stopped after the test. `env` is read at each start of the process. */
export function clientOf(env: Record<string, string> = {}, tokenFor?: TokenFor): EngineClient {
  const client = new EngineClient(() => ({ entry: fakeEngine, env }), log, tokenFor);
  clients.push(client);
  return client;
}

export const hostOf = (client: EngineClient): EngineHost => new EngineHost(() => Promise.resolve(client));

/** Resolves when the engine's view is in that state. */
export const untilState = (client: EngineClient, kind: EngineState['kind']): Promise<void> =>
  new Promise((resolve) => {
    if (client.view.state.kind === kind) resolve();
    client.onView(({ state }) => state.kind === kind && resolve());
  });

/** A vscode.Memento in memory. */
export class MemoryMemento {
  readonly #values = new Map<string, unknown>();
  keys(): readonly string[] {
    return [...this.#values.keys()];
  }
  get<T>(key: string, fallback?: T): T {
    return (this.#values.get(key) ?? fallback) as T;
  }
  update(key: string, value: unknown): Promise<void> {
    this.#values.set(key, value);
    return Promise.resolve();
  }
}

/** A vscode.SecretStorage in memory. */
export class MemorySecrets {
  readonly kept = new Map<string, string>();
  readonly onDidChange = new EventEmitter<{ key: string }>().event;
  keys = async (): Promise<string[]> => [...this.kept.keys()];
  get = async (key: string): Promise<string | undefined> => this.kept.get(key);
  store = async (key: string, value: string): Promise<void> => void this.kept.set(key, value);
  delete = async (key: string): Promise<void> => void this.kept.delete(key);
}

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.stop()));
  settings.clear();
  user.reset();
  logged.length = 0;
});
