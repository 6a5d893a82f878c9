/** The server for other programs: off by default, with a token in the secret storage. */
import { describe, expect, it, vi } from 'vitest';
import { Server } from '../../../extension/servers.ts';
import { clientOf, hostOf, log, logged, MemorySecrets, untilState } from './support.ts';
import { settings, user } from './vscode.ts';

function setUp() {
  const client = clientOf();
  const secrets = new MemorySecrets();
  const server = new Server(secrets, hostOf(client), log);
  const token = () => secrets.kept.get('hearth.server.token');
  const copied = async (): Promise<string | undefined> => {
    user.copied.length = 0;
    await server.copyAddress();
    return user.copied[0];
  };
  return { client, server, token, copied };
}

describe('the server for other programs', () => {
  it('is off and starts no engine unless it is enabled', async () => {
    const { client, server, copied } = setUp();
    await server.apply();
    expect(client.pid).toBeUndefined();
    expect(await copied()).toBeUndefined();
    expect(user.asked[0]?.message).toContain('hearth.server.enabled');
  });

  it('starts with a random token that is in no setting', async () => {
    const { client, server, token, copied } = setUp();
    settings.set('hearth.server.enabled', true);
    settings.set('hearth.server.port', 8000);
    await server.apply();
    await vi.waitFor(async () => expect(await copied()).toBe(`http://127.0.0.1:8000/v1#${token()}`));
    expect(client.warmModel?.id).toBe('small');
    expect(token()).toMatch(/^[\w-]{43}$/);
    expect([...settings.values()]).not.toContain(token());
    await server.copyToken();
    expect(user.copied.at(-1)).toBe(token());
  });

  it('restarts with a new token when it is renewed', async () => {
    const { server, token, copied } = setUp();
    settings.set('hearth.server.enabled', true);
    await server.apply();
    await vi.waitFor(async () => expect(await copied()).toContain('8642'));
    const before = token();
    await server.renewToken();
    expect(token()).not.toBe(before);
    await vi.waitFor(async () => expect(await copied()).toBe(`http://127.0.0.1:8642/v1#${token()}`));
  });

  it('starts again after the engine crashed', async () => {
    const { client, server, copied } = setUp();
    settings.set('hearth.server.enabled', true);
    await server.apply();
    await vi.waitFor(async () => expect(await copied()).toContain('8642'));
    const startServer = vi.spyOn(client, 'startServer');
    process.kill(client.pid ?? 0, 'SIGKILL');
    await untilState(client, 'restarting');
    await untilState(client, 'ready');
    await vi.waitFor(() => expect(startServer).toHaveBeenCalledTimes(1));
  });

  it('logs that another window has the port', async () => {
    const { server, copied } = setUp();
    settings.set('hearth.server.enabled', true);
    settings.set('hearth.server.port', 1);
    await server.apply();
    await vi.waitFor(() => expect(logged.join('\n')).toContain('another window'));
    expect(await copied()).toBeUndefined();
    server.dispose();
  });

  it("does not forward a remote server's answers", async () => {
    const { client, server, copied } = setUp();
    const startServer = vi.spyOn(client, 'startServer');
    settings.set('hearth.server.enabled', true);
    settings.set('hearth.remote.url', 'https://team.example/v1');
    await server.apply();
    expect(await copied()).toBeUndefined();
    expect(startServer).not.toHaveBeenCalled();
  });
});
