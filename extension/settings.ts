import * as vscode from 'vscode';
import type { CompleteParams, Sampling } from '../engine/protocol/engineProtocol.ts';
import { backendChoice, type LoadParams } from '../engine/protocol/models.ts';

/** The settings as typed values. They are read anew each time: VS Code caches them. */
const section = 'hearth';

type Backend = NonNullable<LoadParams['backend']>;
type Multiline = NonNullable<CompleteParams['multiline']>;
/** Minimum confidence of a shown suggestion. */
export type Confidence = NonNullable<CompleteParams['confidence']>;

export interface RemoteSettings {
  url: string;
  /** Undefined: the only one that the server has. */
  model: string | undefined;
}

export interface EngineSettings {
  /** Undefined: this computer's engine answers. */
  remote: RemoteSettings | undefined;
  /** Catalogue id, absolute path, or '' for the automatic choice. */
  model: string;
  /** The same for the completion model; 'chat': the chat model completes. */
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
  /** Send the repository's rules for assistants with a question. */
  useRules: boolean;
  maxTokens: number | undefined;
  /** Undefined: limited only by the mode and the model. */
  thinkingTokens: number | undefined;
  sampling: Sampling;
}

type Fits<T> = (value: unknown) => value is T;

const text: Fits<string> = (value) => typeof value === 'string';
const flag: Fits<boolean> = (value) => typeof value === 'boolean';
const number: Fits<number> = (value): value is number => Number.isFinite(value);
const numberOrNull: Fits<number | null> = (value): value is number | null => value === null || Number.isFinite(value);
const flags: Fits<Record<string, boolean>> = (value): value is Record<string, boolean> =>
  typeof value === 'object' && value !== null && Object.values(value).every(flag);
const oneOf =
  <T extends string>(...choices: readonly T[]): Fits<T> =>
  (value): value is T =>
    choices.some((choice) => choice === value);

/** These settings send code to a model. A workspace may turn them off, but not on if the user turned them off. */
const ofUser = new Set(['chat.includeActiveFile', 'chat.searchWorkspace', 'chat.useRules']);

/** settings.json may hold anything. An invalid value counts as not set, and package.json's default applies. */
function read<T>(key: string, fits: Fits<T>): T {
  const configuration = vscode.workspace.getConfiguration(section);
  const isOff = ofUser.has(key) && configuration.inspect(key)?.globalValue === false;
  const value: unknown = isOff ? false : configuration.get(key);
  if (fits(value)) return value;
  const declared: unknown = configuration.inspect(key)?.defaultValue;
  if (fits(declared)) return declared;
  throw new Error(`${section}.${key} has no default.`);
}

/** In package.json 0 stands for "the model's own" or "automatic", because a settings editor has no empty number. */
const orAutomatic = (value: number): number | undefined => (value > 0 ? Math.floor(value) : undefined);

export function engineSettings(): EngineSettings {
  const [url, remoteModel] = [read('remote.url', text).trim(), read('remote.model', text).trim()];
  return {
    remote: url === '' ? undefined : { url, model: remoteModel === '' ? undefined : remoteModel },
    model: read('chat.model', text).trim(),
    completionModel: read('completion.model', text).trim(),
    backend: read<Backend>('backend', oneOf(...backendChoice.options)),
    contextTokens: orAutomatic(read('contextTokens', number)),
    threads: orAutomatic(read('threads', number)),
    cachePrecision: read<EngineSettings['cachePrecision']>('cachePrecision', oneOf('f32', 'f16', 'q8')),
    diskCacheBytes: Math.max(0, Math.floor(read('cache.diskMegabytes', number) * 2 ** 20)),
  };
}

/** Whether a setting or an input is the address of a server. */
export const isAddress = (text: string): boolean => /^https?:\/\//.test(text) && URL.canParse(text);

/** The configured servers, the one for questions first. */
export function serverAddresses(): string[] {
  const { remote, completionModel } = engineSettings();
  return [...(remote ? [remote.url] : []), ...(isAddress(completionModel) ? [completionModel] : [])];
}

/** Network settings of VS Code and Hearth as environment variables, which the engine's process reads at its start (engine/catalogue/network.ts). */
export function networkEnvironment(): Record<string, string> {
  const http = vscode.workspace.getConfiguration('http');
  const isUsed = http.get<string>('proxySupport', 'override') !== 'off';
  const proxy = isUsed ? http.get('proxy', '').trim() : '';
  const noProxy = http.get<string[]>('noProxy', []).join(',');
  const certificates = read('remote.certificates', text).trim();
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

/** Undefined: the server for other programs is off. */
export function serverSettings(): { port: number } | undefined {
  const port = Math.floor(read('server.port', number));
  return read('server.enabled', flag) ? { port } : undefined;
}

export const modelsDirectory = (): string => read('modelsDirectory', text).trim();

/** Windows share one engine. */
export const sharesEngine = (): boolean => read('shareEngine', flag);

export function completionSettings(): CompletionSettings {
  return {
    enabled: read('completion.enabled', flag),
    debounceMs: Math.max(0, read('completion.debounce', number)),
    languages: read('completion.languages', flags),
    multiline: read<Multiline>('completion.multiline', oneOf('auto', 'always', 'never')),
    confidence: read<Confidence>('completion.confidence', oneOf('eager', 'balanced', 'quiet')),
    maxTokens: Math.max(1, Math.floor(read('completion.maxTokens', number))),
  };
}

export function chatSettings(): ChatSettings {
  const sampling: Sampling = {};
  const temperature = read('chat.temperature', numberOrNull);
  const topP = read('chat.topP', numberOrNull);
  if (temperature !== null) sampling.temperature = temperature;
  if (topP !== null) sampling.topP = topP;
  return {
    instructions: read('chat.instructions', text).trim(),
    includeActiveFile: read('chat.includeActiveFile', flag),
    searchWorkspace: read('chat.searchWorkspace', flag),
    useRules: read('chat.useRules', flag),
    maxTokens: orAutomatic(read('chat.maxTokens', number)),
    thinkingTokens: orAutomatic(read('chat.thinkingTokens', number)),
    sampling,
  };
}

export type NextEditModel = 'auto' | 'on' | 'off';
export const nextEditModel = (): NextEditModel => read('nextEdit.model', oneOf('auto', 'on', 'off'));
export const nextEditEnabled = (): boolean => read('nextEdit.enabled', flag);
export const indexEnabled = (): boolean => read('index.enabled', flag);
/** Catalogue id or absolute path; '': search by words alone. */
export const indexEmbeddings = (): string => read('index.embeddings', text).trim();

/** Whether suggestions are on for a language: its own entry, else that of '*'. */
export function languageEnabled(languages: Readonly<Record<string, boolean>>, languageId: string): boolean {
  return languages[languageId] ?? languages['*'] ?? true;
}

/** Writes a user setting: everything that Hearth's own menus change belongs to the user, not to a repository. */
export async function writeSetting(key: string, value: unknown): Promise<void> {
  await vscode.workspace.getConfiguration(section).update(key, value, vscode.ConfigurationTarget.Global);
}
