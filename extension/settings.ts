import * as vscode from 'vscode';
import type { LoadParams, Sampling } from '../engine/protocol/engineProtocol.ts';

/** The settings as typed values. They are read anew each time: VS Code caches them. */
const section = 'hearth';

export type Backend = NonNullable<LoadParams['backend']>;
export type Multiline = 'auto' | 'always' | 'never';
/** Minimum confidence of a shown suggestion. */
export type Confidence = 'eager' | 'balanced' | 'quiet';

export interface EngineSettings {
  /** Catalogue id, absolute path, or '' for the automatic choice. */
  model: string;
  /** The same for the model that completes; 'chat': the model that answers. */
  completionModel: string;
  backend: Backend;
  /** Undefined: as trained, limited by memory. */
  contextTokens: number | undefined;
  threads: number | undefined;
  cachePrecision: NonNullable<LoadParams['cachePrecision']>;
  /** KV cache snapshots on disk. */
  diskCacheBytes: number;
}

export interface CompletionSettings {
  enabled: boolean;
  debounceMs: number;
  languages: Readonly<Record<string, boolean>>;
  multiline: Multiline;
  confidence: Confidence;
  maxTokens: number;
}

export interface ChatSettings {
  instructions: string;
  includeActiveFile: boolean;
  searchWorkspace: boolean;
  /** Rules that the repository gives to assistants go along. */
  useRules: boolean;
  maxTokens: number | undefined;
  /** Undefined: as long as the mode and the model take. */
  thinkingTokens: number | undefined;
  sampling: Sampling;
}

const read = <T>(key: string, fallback: T): T => vscode.workspace.getConfiguration(section).get(key, fallback) as T;
/** In package.json 0 stands for "the model's own" or "automatic", because a settings editor has no empty number. */
const orAutomatic = (value: number): number | undefined => (value > 0 ? Math.floor(value) : undefined);

export function engineSettings(): EngineSettings {
  return {
    model: read('chat.model', '').trim(),
    completionModel: read('completion.model', '').trim(),
    backend: read<Backend>('backend', 'auto'),
    contextTokens: orAutomatic(read('contextTokens', 0)),
    threads: orAutomatic(read('threads', 0)),
    cachePrecision: read<EngineSettings['cachePrecision']>('cachePrecision', 'f16'),
    diskCacheBytes: Math.max(0, Math.floor(read('cache.diskMegabytes', 2048) * 2 ** 20)),
  };
}

export interface RemoteSettings {
  url: string;
  /** Undefined: the only one that the server has. */
  model: string | undefined;
}

/** Undefined: this computer's engine answers. */
export function remoteSettings(): RemoteSettings | undefined {
  const url = read('remote.url', '').trim();
  const model = read('remote.model', '').trim();
  return url === '' ? undefined : { url, model: model === '' ? undefined : model };
}

/** Of VS Code and ours, for the engine's environment (engine/catalogue/network.ts), which its process reads at its start. */
export function networkEnvironment(): Record<string, string> {
  const http = vscode.workspace.getConfiguration('http');
  const isUsed = http.get<string>('proxySupport', 'override') !== 'off';
  const proxy = isUsed ? http.get('proxy', '').trim() : '';
  const noProxy = http.get<string[]>('noProxy', []).join(',');
  const certificates = read('remote.certificates', '').trim();
  return {
    HEARTH_CLIENT: 'vscode',
    ...(proxy !== '' && { HEARTH_PROXY: proxy }),
    ...(noProxy !== '' && { HEARTH_NO_PROXY: noProxy }),
    ...(!http.get<boolean>('proxyStrictSSL', true) && { HEARTH_STRICT_TLS: 'off' }),
    ...(certificates !== '' && { HEARTH_CERTIFICATES: certificates }),
  };
}

export const networkSettings = [
  'http.proxy',
  'http.proxySupport',
  'http.noProxy',
  'http.proxyStrictSSL',
  'hearth.remote.certificates',
];

/** Undefined: this computer serves no other programs. */
export function serverSettings(): { port: number } | undefined {
  const port = Math.floor(read('server.port', 8642));
  return read('server.enabled', false) ? { port } : undefined;
}

export const modelsDirectory = (): string => read('modelsDirectory', '').trim();

export function completionSettings(): CompletionSettings {
  return {
    enabled: read('completion.enabled', true),
    debounceMs: Math.max(0, read('completion.debounce', 50)),
    languages: read<Record<string, boolean>>('completion.languages', { '*': true }),
    multiline: read<Multiline>('completion.multiline', 'auto'),
    confidence: read<Confidence>('completion.confidence', 'balanced'),
    maxTokens: Math.max(1, Math.floor(read('completion.maxTokens', 64))),
  };
}

export function chatSettings(): ChatSettings {
  const sampling: Sampling = {};
  const temperature = read<number | null>('chat.temperature', null);
  const topP = read<number | null>('chat.topP', null);
  if (temperature !== null) sampling.temperature = temperature;
  if (topP !== null) sampling.topP = topP;
  return {
    instructions: read('chat.instructions', '').trim(),
    includeActiveFile: read('chat.includeActiveFile', true),
    searchWorkspace: read('chat.searchWorkspace', true),
    useRules: read('chat.useRules', true),
    maxTokens: orAutomatic(read('chat.maxTokens', 0)),
    thinkingTokens: orAutomatic(read('chat.thinkingTokens', 0)),
    sampling,
  };
}

export const nextEditEnabled = (): boolean => read('nextEdit.enabled', true);
export const indexEnabled = (): boolean => read('index.enabled', true);
/** Catalogue id or absolute path; '': search by words alone. */
export const indexEmbeddings = (): string => read('index.embeddings', '').trim();

/** Whether suggestions are on for a language: its own entry, else that of '*'. */
export function languageEnabled(languages: Readonly<Record<string, boolean>>, languageId: string): boolean {
  return languages[languageId] ?? languages['*'] ?? true;
}

/** Writes a user setting: everything that Hearth's own menus change belongs to the user, not to a repository. */
export async function writeSetting(key: string, value: unknown): Promise<void> {
  await vscode.workspace.getConfiguration(section).update(key, value, vscode.ConfigurationTarget.Global);
}
