/** Observes one request in a process: the stacks where it is handed over, and every function that runs. */
import { Session } from 'node:inspector/promises';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { projectRoot } from '../shared/paths.ts';

Error.stackTraceLimit = Number.POSITIVE_INFINITY;

export interface Observed {
  /** Functions on a stack at a hand-over, as `file function`; the file is relative to the project. */
  frames: string[];
  /** Functions that ran, as `file function`. */
  ran: string[];
  /** Requests that crossed a channel. */
  requests: string[];
}

const isOurs = (file: string): boolean => /^(engine|extension|media)\//.test(file);
const pathOf = (url: string): string => (url.startsWith('file:') ? relative(projectRoot, fileURLToPath(url)) : '');

export class Observer {
  readonly #frames = new Set<string>();
  readonly #requests: string[] = [];
  #session: Session | undefined;

  /** Calls to `name` of `prototype` are hand-overs. `before` sees the call's `this` and arguments. */
  watch<T extends object>(prototype: T, name: keyof T & string, before?: (self: T, args: unknown[]) => void): void {
    const original: unknown = Reflect.get(prototype, name);
    if (typeof original !== 'function') throw new Error(`${name} is not a method.`);
    const handOver = () => this.handOver();
    Reflect.set(prototype, name, function (this: T, ...args: unknown[]): unknown {
      before?.(this, args);
      handOver();
      return Reflect.apply(original, this, args);
    });
  }

  /** Adds the functions on the stack, asynchronous callers included. */
  handOver(): void {
    if (this.#session === undefined) return;
    const prepare = Error.prepareStackTrace;
    Error.prepareStackTrace = (_, sites) => sites;
    const sites = new Error().stack as unknown as NodeJS.CallSite[];
    Error.prepareStackTrace = prepare;
    for (const site of sites) {
      const file = pathOf(site.getFileName() ?? '');
      const name = site.getFunctionName() ?? `(line ${site.getLineNumber()})`;
      if (isOurs(file)) this.#frames.add(`${file} ${name}`);
    }
  }

  request(method: string): void {
    if (this.#session !== undefined) this.#requests.push(method);
  }

  async start(): Promise<void> {
    this.#frames.clear();
    this.#requests.length = 0;
    const session = new Session();
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    this.#session = session;
  }

  async stop(): Promise<Observed> {
    if (this.#session === undefined) throw new Error('Nothing is observed.');
    const { result } = await this.#session.post('Profiler.takePreciseCoverage');
    this.#session.disconnect();
    this.#session = undefined;
    const ran = result.flatMap(({ url, functions }) => {
      const file = pathOf(url);
      if (!isOurs(file)) return [];
      return functions.flatMap(({ functionName, ranges: [range] }) =>
        range !== undefined && range.count > 0 ? [`${file} ${functionName || `(at ${range.startOffset})`}`] : [],
      );
    });
    return { frames: [...this.#frames], ran, requests: [...this.#requests] };
  }
}
