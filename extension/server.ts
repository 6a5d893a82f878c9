import { randomBytes } from 'node:crypto';
import * as vscode from 'vscode';
import { sentence } from './client/failure.ts';
import type { EngineHost } from './client/host.ts';
import { limits } from './limits.ts';
import type { Log } from './parts.ts';
import { serverSettings } from './settings.ts';

const tokenKey = 'hearth.server.token';

/** The OpenAI-compatible server of this computer's engine, for other programs: off unless the user's settings want it. */
export class Server {
  readonly #secrets: vscode.SecretStorage;
  readonly #engine: EngineHost;
  readonly #log: Log;
  readonly #subscription: vscode.Disposable;
  #address: string | undefined;
  /** The engine's process in which it runs or is being started; another one has none. */
  #startedIn: number | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(secrets: vscode.SecretStorage, engine: EngineHost, log: Log) {
    this.#secrets = secrets;
    this.#engine = engine;
    this.#log = log;
    // A process that was started again serves again, once its model is loaded.
    this.#subscription = engine.onView(({ state }) => {
      if (state.kind === 'ready' && serverSettings() !== undefined) this.#startHere();
    });
  }

  /** As the settings want it now. Loads the model, so that there is something to serve. */
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
    // A remote server answers: this computer has nothing to serve.
    if (client.warmModel?.host !== undefined) return;
    this.#startedIn = client.pid;
    this.#start().catch((error: unknown) => {
      this.#log.warn(`The server was not started: ${sentence(error)}`);
      // Another window has the port, until it is closed.
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

/** 256 bits, as the command line's own. */
const newToken = (): string => randomBytes(32).toString('base64url');
