/** OpenAI-compatible servers: a remote one that answers instead of this computer, and this computer's own for other programs. */

import { randomBytes } from 'node:crypto';
import * as vscode from 'vscode';
import { isLoopback } from '../engine/limits.ts';
import type { RemoteModel } from '../engine/protocol/models.ts';
import { sentence } from './client/failure.ts';
import type { EngineHost } from './client/host.ts';
import { limits } from './limits.ts';
import type { Log } from './parts.ts';
import { engineSettings, isAddress, serverAddresses, serverSettings, writeSetting } from './settings.ts';

/** The hub's address, whose token downloads use. Mirrors in HF_ENDPOINT get it too, as with huggingface_hub. */
export const hubAddress = 'https://huggingface.co';

/** The server that answers instead of this computer's engine: its address, its token, its model. */
export class Remote {
  readonly #secrets: vscode.SecretStorage;
  readonly #engine: EngineHost;

  constructor(secrets: vscode.SecretStorage, engine: EngineHost) {
    this.#secrets = secrets;
    this.#engine = engine;
  }

  /** Stored for one origin. No other server gets it. */
  async token(url: string): Promise<string | undefined> {
    return URL.canParse(url) ? this.#secrets.get(secretKey(url)) : undefined;
  }

  /** Asks for the address, the token and, if there are several, the model. Saves nothing until the server answers. */
  async connect(): Promise<void> {
    const url = await askAddress(engineSettings().remote?.url ?? '');
    if (url === undefined) return;
    const before = await this.token(url);
    const token = await askToken(url, before === undefined);
    if (token === undefined) return;
    if (token !== '') await this.#secrets.store(secretKey(url), token);
    const model = await this.#pickModel(url);
    if (model === undefined) return;
    await writeSetting('remote.model', model === '' ? undefined : model);
    await writeSetting('remote.url', url);
    await (await this.#engine.client()).reconnect();
  }

  async disconnect(): Promise<void> {
    await writeSetting('remote.url', undefined);
    await writeSetting('remote.model', undefined);
  }

  async setToken(): Promise<void> {
    const addresses = serverAddresses();
    if (addresses.length === 0) return this.connect();
    const url = await oneOf(addresses);
    const token = url && (await askToken(url, true));
    if (!url || !token) return;
    await this.#secrets.store(secretKey(url), token);
    await (await this.#engine.client()).reconnect();
  }

  /** For gated and private repositories of Hugging Face. An empty token removes the stored one. */
  async setHubToken(): Promise<void> {
    const token = await vscode.window.showInputBox({
      title: vscode.l10n.t('Hugging Face access token'),
      prompt: vscode.l10n.t(
        "From https://huggingface.co/settings/tokens, with permission to read. Stored in VS Code's secret storage. Leave empty to remove it.",
      ),
      password: true,
      ignoreFocusOut: true,
    });
    if (token === undefined) return;
    if (token.trim() === '') await this.#secrets.delete(secretKey(hubAddress));
    else await this.#secrets.store(secretKey(hubAddress), token.trim());
  }

  async clearToken(): Promise<void> {
    const addresses = serverAddresses();
    if (addresses.length === 0) {
      void vscode.window.showInformationMessage(vscode.l10n.t('No server is set. Models on this computer answer.'));
      return;
    }
    const url = await oneOf(addresses);
    if (url === undefined) return;
    await this.#secrets.delete(secretKey(url));
    void vscode.window.showInformationMessage(vscode.l10n.t('The token for {0} was removed.', hostOf(url)));
    await this.#engine.current?.reconnect();
  }

  async chooseModel(): Promise<void> {
    const { remote } = engineSettings();
    if (remote === undefined) return this.connect();
    const here = { label: `$(vm) ${vscode.l10n.t('Use models on this computer')}`, here: true };
    const models = await this.#models(remote.url);
    const title = vscode.l10n.t('Models of {0}', hostOf(remote.url));
    const chosen = await vscode.window.showQuickPick([...models.map((model) => item(model, remote.model)), here], {
      title,
    });
    if (chosen === undefined) return;
    if ('here' in chosen) return this.disconnect();
    await writeSetting('remote.model', chosen.id);
  }

  /** '' is the only one that the server has. */
  async #pickModel(url: string): Promise<string | undefined> {
    const models = await this.#models(url);
    if (models.length === 1) return '';
    const title = vscode.l10n.t('Models of {0}', hostOf(url));
    const items = models.map((model) => item(model, engineSettings().remote?.model));
    return (await vscode.window.showQuickPick(items, { title }))?.id;
  }

  async #models(url: string): Promise<RemoteModel[]> {
    const [client, token] = await Promise.all([this.#engine.client(), this.token(url)]);
    return client.remoteModels({ url, ...(token !== undefined && { token }) });
  }
}

const secretKey = (url: string): string => `hearth.remote.token ${new URL(url).origin}`;
/** The prefix of its models' ids: without user, password and query. */
export function bareAddress(url: string): string {
  if (!URL.canParse(url)) return url;
  const { origin, pathname } = new URL(url);
  return origin + pathname.replace(/\/$/, '');
}

/** Without user and password, even if `url` is invalid. */
export const hostOf = (url: string): string => (URL.canParse(url) ? new URL(url).host : url.replace(/^.*@/s, ''));

function item({ id, contextTokens }: RemoteModel, chosen: string | undefined) {
  const description = contextTokens === undefined ? '' : vscode.l10n.t('{0} tokens of context', contextTokens);
  return { label: `${id === chosen ? '$(check) ' : ''}${id}`, description, id };
}

async function askAddress(value: string): Promise<string | undefined> {
  const url = await vscode.window.showInputBox({
    title: vscode.l10n.t('Address of an OpenAI-compatible server'),
    prompt: vscode.l10n.t('Questions and attached code will be sent there.'),
    placeHolder: 'https://HOST/v1',
    value,
    ignoreFocusOut: true,
    validateInput: (text) =>
      isAddress(text.trim()) ? undefined : vscode.l10n.t('The address must begin with https:// or http://'),
  });
  return url?.trim();
}

/** Asks if they have different origins: each origin has its own token. */
async function oneOf(addresses: readonly string[]): Promise<string | undefined> {
  const origins = new Map(addresses.map((url) => [new URL(url).origin, url]));
  if (origins.size === 1) return addresses[0];
  const items = [...origins.values()].map((url) => ({ label: hostOf(url), url }));
  return (await vscode.window.showQuickPick(items, { title: vscode.l10n.t('Servers') }))?.url;
}

/** '' leaves the stored token unchanged. */
async function askToken(url: string, isNew: boolean): Promise<string | undefined> {
  const address = new URL(url);
  // Nobody else can read traffic to this computer itself.
  const open = address.protocol === 'http:' && !isLoopback(address);
  const kept = vscode.l10n.t('Leave empty to use the stored token.');
  const none = vscode.l10n.t("Stored in VS Code's secret storage. Leave empty if the server needs no token.");
  const risk = vscode.l10n.t(
    'The connection is not encrypted. Others on the network can read the token and your code.',
  );
  const token = await vscode.window.showInputBox({
    title: vscode.l10n.t('Token for {0}', hostOf(url)),
    prompt: [isNew ? none : kept, ...(open ? [risk] : [])].join(' '),
    password: true,
    ignoreFocusOut: true,
  });
  return token?.trim();
}

const tokenKey = 'hearth.server.token';

/** The OpenAI-compatible server of this computer's engine, for other programs: off unless the user's settings turn it on. */
export class Server {
  readonly #secrets: vscode.SecretStorage;
  readonly #engine: EngineHost;
  readonly #log: Log;
  readonly #subscription: vscode.Disposable;
  #address: string | undefined;
  /** Id of the engine process in which it runs or is starting. */
  #startedIn: number | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(secrets: vscode.SecretStorage, engine: EngineHost, log: Log) {
    this.#secrets = secrets;
    this.#engine = engine;
    this.#log = log;
    // A restarted process serves again once its model is loaded.
    this.#subscription = engine.onView(({ state }) => {
      if (state.kind === 'ready' && serverSettings() !== undefined) this.#startHere();
    });
  }

  /** Applies the current settings. Loads the model, so that there is something to serve. */
  async apply(): Promise<void> {
    clearTimeout(this.#retry);
    this.#address = undefined;
    this.#startedIn = undefined;
    if (serverSettings() === undefined) return this.#engine.current?.stopServer();
    const client = await this.#engine.client();
    await client.ready();
    this.#startHere();
  }

  async copyAddress(): Promise<void> {
    if (this.#address === undefined) return this.#sayOff();
    await vscode.env.clipboard.writeText(this.#address);
    void vscode.window.showInformationMessage(vscode.l10n.t('Copied {0}', this.#address));
  }

  async copyToken(): Promise<void> {
    await vscode.env.clipboard.writeText(await this.#token());
    void vscode.window.showInformationMessage(
      vscode.l10n.t('Token copied. Anyone who has it can use the model on this computer.'),
    );
  }

  /** Clients with the old token lose access. */
  async renewToken(): Promise<void> {
    await this.#secrets.store(tokenKey, newToken());
    if (serverSettings() !== undefined) await this.apply();
    await this.copyToken();
  }

  dispose(): void {
    clearTimeout(this.#retry);
    this.#subscription.dispose();
  }

  #startHere(): void {
    const client = this.#engine.current;
    if (client?.pid === undefined || client.pid === this.#startedIn) return;
    // If a remote server answers, this computer has nothing to serve.
    if (client.warmModel?.host !== undefined) return;
    this.#startedIn = client.pid;
    this.#start().catch((error: unknown) => {
      this.#log.warn(`The server was not started: ${sentence(error)}`);
      // Another window may hold the port until it is closed.
      this.#retry = setTimeout(() => {
        this.#startedIn = undefined;
        this.#startHere();
      }, limits.server.retryMs);
      this.#retry.unref();
    });
  }

  async #start(): Promise<void> {
    const settings = serverSettings();
    const client = this.#engine.current;
    if (settings === undefined || client === undefined) return;
    const { address } = await client.startServer({ port: settings.port, token: await this.#token() });
    this.#address = address;
    this.#log.info(`Other programs on this computer reach the model at ${address} with the token.`);
  }

  async #token(): Promise<string> {
    const kept = await this.#secrets.get(tokenKey);
    if (kept !== undefined) return kept;
    const token = newToken();
    await this.#secrets.store(tokenKey, token);
    return token;
  }

  async #sayOff(): Promise<void> {
    const settings = vscode.l10n.t('Settings');
    const text =
      serverSettings() === undefined
        ? vscode.l10n.t('The server is off. Turn on the setting "hearth.server.enabled" to start it.')
        : vscode.l10n.t('No server runs in this window. Another window has the port, or a remote server answers.');
    if ((await vscode.window.showInformationMessage(text, settings)) !== settings) return;
    await vscode.commands.executeCommand('workbench.action.openSettings', 'hearth.server');
  }
}

/** 256 bits, like the command line's tokens. */
const newToken = (): string => randomBytes(32).toString('base64url');
