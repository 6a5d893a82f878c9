import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { CancellationTokenSource } from 'vscode-jsonrpc/node';
import { clientNotices, engineRequests } from '../../../engine/protocol/engineProtocol.ts';
import { EngineFailure } from '../../../extension/client/failure.ts';
import { Backoff, EngineProcess, type ProcessState } from '../../../extension/client/process.ts';
import { limits } from '../../../extension/limits.ts';

const entry = fileURLToPath(new URL('fakeEngine.mjs', import.meta.url));
const lines: string[] = [];
const log = {
  error: (message: string) => void lines.push(`error ${message}`),
  warn: (message: string) => void lines.push(`warn ${message}`),
  info: (message: string) => void lines.push(`info ${message}`),
  debug: (message: string) => void lines.push(`debug ${message}`),
};
const running: EngineProcess[] = [];

function engine(env: Record<string, string> = {}): EngineProcess {
  const process = new EngineProcess(() => ({ entry, env }), log);
  running.push(process);
  return process;
}

const state = (process: EngineProcess, kind: ProcessState['kind']): Promise<ProcessState> =>
  new Promise((resolve) => {
    if (process.state.kind === kind) resolve(process.state);
    process.onState((next) => next.kind === kind && resolve(next));
  });

const failureOf = async (promise: Promise<unknown>): Promise<EngineFailure> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof EngineFailure)) throw new Error(`expected an EngineFailure, got ${String(error)}`);
  return error;
};

const alive = (pid: number | undefined): boolean => {
  if (pid === undefined) return false;
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

afterEach(async () => {
  await Promise.all(running.splice(0).map((process) => process.stop()));
  lines.length = 0;
});

describe('the restart back-off', () => {
  it('waits 0, 1, 4 and 15 seconds and then gives up', () => {
    const backoff = new Backoff();
    expect([1, 2, 3, 4, 5, 6].map(() => backoff.next(10))).toEqual([0, 1000, 4000, 15000, undefined, undefined]);
  });

  it('starts from the first delay after a healthy run and after a reset', () => {
    const backoff = new Backoff();
    backoff.next(10);
    backoff.next(10);
    expect(backoff.next(limits.engine.healthyAfterMs)).toBe(0);
    expect(backoff.next(10)).toBe(1000);
    backoff.reset();
    expect(backoff.next(10)).toBe(0);
  });
});

describe('the engine process', () => {
  it('starts once, when it is first needed', async () => {
    const process = engine();
    expect(process.pid).toBeUndefined();
    const [a, b] = await Promise.all([process.start(), process.start()]);
    expect(a).toBe(b);
    expect(alive(process.pid)).toBe(true);
  });

  it('answers typed requests', async () => {
    const card = await engine().client(engineRequests).load({ model: 'small' });
    expect(card.name).toBe('Model small');
  });

  it('passes the environment and logs stderr', async () => {
    const process = engine({ FAKE_STDERR: 'a native warning' });
    await process.start();
    await process.stop();
    expect(lines).toContain('warn a native warning');
  });

  it('delivers valid notifications, and logs and drops invalid ones', async () => {
    const process = engine();
    const texts: string[] = [];
    process.listen(clientNotices, { delta: (piece) => texts.push(piece.text) });
    const params = { stream: 's', messages: [{ role: 'user' as const, content: 'hello' }] };
    await process.client(engineRequests).chat(params);
    expect(texts).toEqual(['One ', 'two ', 'three.']);
    expect(lines.filter((line) => line.startsWith("warn Dropped an invalid 'delta'"))).toHaveLength(1);
  });

  it('refuses an answer that violates the protocol', async () => {
    const failure = await failureOf(engine().client(engineRequests).complete({ prefix: 'INVALID', suffix: '' }));
    expect(failure.code).toBe('protocol');
  });

  it('turns error data into typed failures and keeps the message', async () => {
    const process = engine();
    const load = await failureOf(process.client(engineRequests).load({ model: 'broken' }));
    expect([load.code, load.message]).toEqual(['out-of-memory', 'The model does not fit.']);
    const params = { stream: 's', messages: [{ role: 'user' as const, content: 'BUG' }] };
    expect((await failureOf(process.client(engineRequests).chat(params))).code).toBe('internal');
  });

  it('cancels the request in the engine', async () => {
    const process = engine();
    const source = new CancellationTokenSource();
    const answer = failureOf(process.client(engineRequests).complete({ prefix: 'SLOW', suffix: '' }, source.token));
    setTimeout(() => source.cancel(), 20);
    expect((await answer).code).toBe('cancelled');
  });

  it('fails running requests when the engine is killed, after delivering its messages, and restarts it', async () => {
    const process = engine();
    const texts: string[] = [];
    process.listen(clientNotices, { delta: (piece) => texts.push(piece.text) });
    await process.start();
    const first = process.pid;
    const params = { stream: 's', messages: [{ role: 'user' as const, content: 'CRASH' }] };
    const failure = await failureOf(process.client(engineRequests).chat(params));
    expect(failure.code).toBe('engine-ended');
    expect(texts).toEqual(['One ']);
    await state(process, 'running');
    expect(process.pid).not.toBe(first);
    const card = await process.client(engineRequests).load({ model: 'small' });
    expect(card.id).toBe('small');
  });

  it('answers requests made before a restart once it is done', async () => {
    const process = engine();
    await process.start();
    globalThis.process.kill(process.pid ?? 0, 'SIGKILL');
    await state(process, 'waiting');
    const card = await process.client(engineRequests).load({ model: 'small' });
    expect(card.id).toBe('small');
  });

  it('gives up after the last delay, and starts again on request', async () => {
    const delays: number[] = [];
    let broken = true;
    const process = new EngineProcess(() => ({ entry, env: broken ? { FAKE_EXIT_AT_START: '1' } : {} }), log);
    running.push(process);
    process.onState((next) => next.kind === 'waiting' && delays.push(next.delayMs));
    const original = globalThis.setTimeout;
    // The real delays add up to 20 seconds, so timers run faster here.
    globalThis.setTimeout = ((run: () => void, ms?: number) =>
      original(run, ms !== undefined && ms >= 1000 && ms <= 15_000 ? 5 : ms)) as typeof setTimeout;
    try {
      await process.start().catch(() => undefined);
      const failed = await state(process, 'failed');
      expect(failed).toMatchObject({ kind: 'failed' });
    } finally {
      globalThis.setTimeout = original;
    }
    expect(delays).toEqual([0, 1000, 4000, 15000]);
    expect((await failureOf(process.start())).code).toBe('engine-given-up');
    broken = false;
    await process.restart();
    expect(process.state.kind).toBe('running');
  });

  it('reports an engine of another version and does not retry', async () => {
    const process = engine({ FAKE_PROTOCOL: '999' });
    expect((await failureOf(process.start())).code).toBe('protocol');
    expect(process.state.kind).toBe('failed');
  });

  it('fails cleanly when there is nothing to run', async () => {
    const process = new EngineProcess(() => ({ entry: '/nonexistent/engine.mjs', env: {} }), log);
    running.push(process);
    expect((await failureOf(process.start())).code).toBe('engine-ended');
  });

  it('is gone after a stop and not restarted', async () => {
    const process = engine();
    await process.start();
    const pid = process.pid;
    await process.stop();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(alive(pid)).toBe(false);
    expect(process.state.kind).toBe('stopped');
  });

  it('cancels running requests when it is stopped', async () => {
    const process = engine();
    const answer = failureOf(process.client(engineRequests).complete({ prefix: 'SLOW', suffix: '' }));
    await process.start();
    await process.stop();
    expect((await answer).code).toBe('cancelled');
  });

  it('kills an engine that does not end by itself', async () => {
    const process = engine({ FAKE_STUBBORN: '1' });
    await process.start();
    const pid = process.pid;
    await process.stop();
    // The kernel may take a moment to end it.
    await vi.waitFor(() => expect(alive(pid)).toBe(false), { timeout: 10_000 });
  });
});
