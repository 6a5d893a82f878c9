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

/** package.json declares every setting, with its default. */
const read = <T>(key: string): T => vscode.workspace.getConfiguration(section).get(key) as T;
/** In package.json 0 stands for "the model's own" or "automatic", because a settings editor has no empty number. */
const orAutomatic = (value: number): number | undefined => (value > 0 ? Math.floor(value) : undefined);

export function engineSettings(): EngineSettings {
  return {
    model: read<string>('chat.model').trim(),
    completionModel: read<string>('completion.model').trim(),
    backend: read<Backend>('backend'),
    contextTokens: orAutomatic(read<number>('contextTokens')),
    threads: orAutomatic(read<number>('threads')),
    cachePrecision: read<EngineSettings['cachePrecision']>('cachePrecision'),
    diskCacheBytes: Math.max(0, Math.floor(read<number>('cache.diskMegabytes') * 2 ** 20)),
  };
}

export interface RemoteSettings {
  url: string;
  /** Undefined: the only one that the server has. */
  model: string | undefined;
}

/** Undefined: this computer's engine answers. */
export function remoteSettings(): RemoteSettings | undefined {
  const url = read<string>('remote.url').trim();
  const model = read<string>('remote.model').trim();
  return url === '' ? undefined : { url, model: model === '' ? undefined : model };
}

/** Of VS Code and ours, for the engine's environment (engine/catalogue/network.ts), which its process reads at its start. */
export function networkEnvironment(): Record<string, string> {
  const http = vscode.workspace.getConfiguration('http');
  const isUsed = http.get<string>('proxySupport', 'override') !== 'off';
  const proxy = isUsed ? http.get('proxy', '').trim() : '';
  const noProxy = http.get<string[]>('noProxy', []).join(',');
  const certificates = read<string>('remote.certificates').trim();
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
  const port = Math.floor(read<number>('server.port'));
  return read<boolean>('server.enabled') ? { port } : undefined;
}

export const modelsDirectory = (): string => read<string>('modelsDirectory').trim();

export function completionSettings(): CompletionSettings {
  return {
    enabled: read<boolean>('completion.enabled'),
    debounceMs: Math.max(0, read<number>('completion.debounce')),
    languages: read<Record<string, boolean>>('completion.languages'),
    multiline: read<Multiline>('completion.multiline'),
    confidence: read<Confidence>('completion.confidence'),
    maxTokens: Math.max(1, Math.floor(read<number>('completion.maxTokens'))),
  };
}

export function chatSettings(): ChatSettings {
  const sampling: Sampling = {};
  const temperature = read<number | null>('chat.temperature');
  const topP = read<number | null>('chat.topP');
  if (temperature !== null) sampling.temperature = temperature;
  if (topP !== null) sampling.topP = topP;
  return {
    instructions: read<string>('chat.instructions').trim(),
    includeActiveFile: read<boolean>('chat.includeActiveFile'),
    searchWorkspace: read<boolean>('chat.searchWorkspace'),
    useRules: read<boolean>('chat.useRules'),
    maxTokens: orAutomatic(read<number>('chat.maxTokens')),
    thinkingTokens: orAutomatic(read<number>('chat.thinkingTokens')),
    sampling,
  };
}

export const nextEditEnabled = (): boolean => read<boolean>('nextEdit.enabled');
export const indexEnabled = (): boolean => read<boolean>('index.enabled');
/** Catalogue id or absolute path; '': search by words alone. */
export const indexEmbeddings = (): string => read<string>('index.embeddings').trim();

/** Whether suggestions are on for a language: its own entry, else that of '*'. */
export function languageEnabled(languages: Readonly<Record<string, boolean>>, languageId: string): boolean {
  return languages[languageId] ?? languages['*'] ?? true;
}

/** Writes a user setting: everything that Hearth's own menus change belongs to the user, not to a repository. */
export async function writeSetting(key: string, value: unknown): Promise<void> {
  await vscode.workspace.getConfiguration(section).update(key, value, vscode.ConfigurationTarget.Global);
}
