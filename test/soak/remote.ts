/** Our own `hearth serve` in a process of its own, which is killed and started again at the same address. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connectParams } from '../../engine/protocol/models.ts';
import { RemoteEngine, type RemoteOptions } from '../../engine/runtime/remote/remoteEngine.ts';
import { bundle } from '../unit/runtime/bundle.ts';

export class KilledServer {
  readonly #cli: Awaited<ReturnType<typeof bundle>>;
  readonly #folder: string;
  readonly #model: string;
  #child: ChildProcess | undefined;
  #address = '';
  #up: Promise<void> = Promise.resolve();
  kills = 0;

  private constructor(cli: Awaited<ReturnType<typeof bundle>>, folder: string, model: string) {
    this.#cli = cli;
    this.#folder = folder;
    this.#model = model;
  }

  static async start(folder: string, model: string): Promise<KilledServer> {
    const server = new KilledServer(await bundle('engine/cli.ts'), folder, model);
    server.#up = server.#start(0);
    await server.#up;
    return server;
  }

  async connect(options: RemoteOptions): Promise<RemoteEngine> {
    const token = (await readFile(this.#tokenFile, 'utf8')).trim();
    return RemoteEngine.connect(connectParams.parse({ url: this.#address, token, contextTokens: 512 }), options);
  }

  /** Resolves once it answers. */
  up(): Promise<void> {
    return this.#up;
  }

  kill(): void {
    const old = this.#child;
    this.kills++;
    const port = Number(new URL(this.#address).port);
    this.#up = (async () => {
      if (old && old.exitCode === null && old.signalCode === null) {
        old.kill('SIGKILL');
        await once(old, 'exit');
      }
      await this.#start(port);
    })();
  }

  async stop(): Promise<void> {
    await this.#up;
    const child = this.#child;
    child?.kill('SIGKILL');
    if (child && child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await this.#cli.remove();
  }

  get #tokenFile(): string {
    return join(this.#folder, 'token');
  }

  async #start(port: number): Promise<void> {
    const args = ['serve', '--json', '--port', String(port), '--token-file', this.#tokenFile];
    args.push('--model', this.#model, '--backend', 'onnx', '--threads', '1', '--context', '512');
    const env = { ...process.env, HEARTH_HOME: join(this.#folder, 'served') };
    const child = spawn(process.execPath, [this.#cli.path, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    let [said, complained] = ['', ''];
    child.stderr.on('data', (chunk) => {
      complained += chunk;
    });
    for await (const chunk of child.stdout) {
      said += chunk;
      const address = /"address":\s*"([^"]+)"/.exec(said)?.[1];
      if (address === undefined) continue;
      this.#address = address;
      return;
    }
    throw new Error(`The server did not start: ${said}${complained}`);
  }
}
