/** A remote server: setup, display and token. */
import { describe, expect, it } from 'vitest';
import { CancellationTokenSource } from 'vscode-jsonrpc/node';
import { readsFast } from '../../../engine/index/question/planner.ts';
import { controlsOf, pageTexts } from '../../../extension/chat/pages.ts';
import type { EngineClient } from '../../../extension/client/client.ts';
import { InstalledModels } from '../../../extension/languageModel/provider.ts';
import { ModelManager } from '../../../extension/models/manager.ts';
import { Remote } from '../../../extension/servers.ts';
import { statusText } from '../../../extension/status.ts';
import { Thinking } from '../../../extension/thinking.ts';
import { clientOf, hostOf, log, MemoryMemento, MemorySecrets, untilState } from './support.ts';
import { settings, user } from './vscode.ts';

function setUp(): { client: EngineClient; remote: Remote; secrets: MemorySecrets } {
  const secrets = new MemorySecrets();
  const client: EngineClient = clientOf({}, (url) => remote.token(url));
  const remote = new Remote(secrets, hostOf(client));
  return { client, remote, secrets };
}
const never = new CancellationTokenSource().token;
const url = 'https://team.example/v1';

describe('a remote server', () => {
  it('answers once its address is set, without a local model', async () => {
    const { client } = setUp();
    settings.set('hearth.remote.url', url);
    settings.set('hearth.remote.model', 'two');
    settings.set('hearth.contextTokens', 1000);
    const seen: string[] = [];
    client.onView(({ state }) => state.kind !== seen.at(-1) && seen.push(state.kind));
    expect(await client.ready()).toMatchObject({ name: 'Model two', host: 'team.example', contextTokens: 1000 });
    expect(seen).toEqual(['starting', 'idle', 'connecting', 'ready']);
    expect((await client.complete({ prefix: 'x = ', suffix: '' }, never)).text).toBe('return 1;');
  });

  it('is named wherever its answers are shown', async () => {
    const { client } = setUp();
    expect(pageTexts().emptyText).toContain('Nothing you write is sent anywhere.');
    settings.set('hearth.remote.url', url);
    await client.ready();
    expect(statusText(client.view, 'on')).toMatchObject({ text: '$(cloud) Model one @ team.example' });
    expect(statusText(client.view, 'on').tooltip).toContain('are sent there');
    const controls = controlsOf(client.view, new Thinking(new MemoryMemento(), hostOf(client)));
    expect(controls.model).toBe('Model one @ team.example');
    expect(controls.modelDetail).not.toContain('parameters');
    expect(pageTexts().emptyText).toContain('team.example answers.');
    expect([client.warmModel, undefined].map(readsFast)).toEqual([true, false]);
  });

  it('is set up with address, token and model, and nothing is saved if that fails', async () => {
    const { client, remote, secrets } = setUp();
    user.types.push('https://locked.example/v1', 'wrong');
    await expect(remote.connect()).rejects.toThrow('Check the token.');
    expect(settings.get('hearth.remote.url')).toBeUndefined();
    user.types.push('https://locked.example/v1', 'secret');
    user.picks = { label: 'two' };
    await remote.connect();
    expect(settings.get('hearth.remote.url')).toBe('https://locked.example/v1');
    expect(settings.get('hearth.remote.model')).toBe('two');
    expect([...settings.values()]).not.toContain('secret');
    expect([...secrets.kept.values()]).toEqual(['secret']);
    expect(client.warmModel?.id).toBe('remote:https://locked.example/v1#two');
  });

  it('needs no choice if it has one model', async () => {
    const { client, remote } = setUp();
    user.types.push('http://single.example/v1', '');
    await remote.connect();
    expect(settings.get('hearth.remote.model')).toBeUndefined();
    expect(client.warmModel?.name).toBe('Model one');
    expect(user.boxes[1]).toContain('not encrypted');
  });

  it("gets its own token and no other server's", async () => {
    const { client, remote } = setUp();
    settings.set('hearth.remote.url', 'https://locked.example/v1');
    user.types.push('secret');
    await remote.setToken();
    expect(client.warmModel?.host).toBe('locked.example');
    expect(await remote.token('https://locked.example/v2')).toBe('secret');
    expect(await remote.token('http://locked.example/v1')).toBeUndefined();
    expect(await remote.token('https://other.locked.example/v1')).toBeUndefined();
    await expect(remote.clearToken()).rejects.toThrow('Check the token.');
    expect(await remote.token('https://locked.example/v1')).toBeUndefined();
  });

  it('that only completes has a token of its own too', async () => {
    const { client, remote, secrets } = setUp();
    settings.set('hearth.completion.model', 'https://locked.example/v1#two');
    await client.ready();
    expect(client.view.completion).toMatchObject({ problem: expect.stringContaining('Check the token.') });
    user.types.push('secret');
    await remote.setToken();
    expect([...secrets.kept.values()]).toEqual(['secret']);
    expect(client.completionModel?.host).toBe('locked.example');
    settings.set('hearth.remote.url', url);
    user.types.push('other');
    user.picks = { label: 'team.example' };
    await remote.setToken();
    expect(await remote.token(url)).toBe('other');
    expect(await remote.token('https://locked.example/v1')).toBe('secret');
  });

  it('is contacted again on the next request if it was down', async () => {
    const { client } = setUp();
    settings.set('hearth.remote.url', 'https://away.example/v1');
    await expect(client.ready()).rejects.toMatchObject({ code: 'unavailable' });
    expect(client.view.state).toMatchObject({ kind: 'failed', remedy: 'restart' });
    settings.set('hearth.remote.url', url);
    expect((await client.ready()).host).toBe('team.example');
  });

  it('is disconnected on request', async () => {
    const { client, remote } = setUp();
    settings.set('hearth.remote.url', url);
    await client.ready();
    user.picks = { label: 'Use models on this computer' };
    await remote.chooseModel();
    expect(settings.get('hearth.remote.url')).toBeUndefined();
    expect((await client.ready()).host).toBeUndefined();
  });

  it("replaces this computer's models in their list, whose last entry connects to it", async () => {
    const { client } = setUp();
    const manager = new ModelManager(hostOf(client), async () => {});
    user.picks = { label: 'A server…' };
    await manager.open();
    await expect.poll(() => user.commands).toContain('hearth.connectRemote');
    settings.set('hearth.remote.url', url);
    await manager.open();
    expect(user.commands).toContain('hearth.chooseRemoteModel');
  });

  it("appears in VS Code's own list beside this computer's models, and either can be chosen", async () => {
    const { client } = setUp();
    const host = hostOf(client);
    await host.client();
    const installed = new InstalledModels(new MemoryMemento(), host, log);
    settings.set('hearth.remote.url', url);
    const card = await client.ready();
    await untilState(client, 'ready');
    const named = async () => (await installed.list(false)).map(({ name }) => name);
    await expect.poll(named).toEqual(['Model one @ team.example', 'Model small']);
    expect((await client.use('small')).host).toBeUndefined();
    expect((await client.use(card.id)).host).toBe('team.example');
    settings.set('hearth.remote.url', 'https://other.example/v1');
    await expect(client.use(card.id)).rejects.toMatchObject({ code: 'not-found' });
    expect(await named()).not.toContain('Model one @ team.example');
  });
});
