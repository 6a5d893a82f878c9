/** VS Code's network settings in the engine's environment, and the shown host of an address. */
import { beforeEach, describe, expect, it } from 'vitest';
import { bareAddress, hostOf } from '../../../extension/servers.ts';
import { networkEnvironment } from '../../../extension/settings.ts';
import { settings } from './vscode.ts';

beforeEach(() => settings.clear());

describe("VS Code's network settings", () => {
  it('set no variables by default', () => {
    expect(networkEnvironment()).toEqual({ HEARTH_CLIENT: 'vscode' });
  });

  it('reach the engine', () => {
    settings.set('http.proxy', ' http://proxy:3128 ');
    settings.set('http.noProxy', ['*.corp', 'build.local']);
    settings.set('http.proxyStrictSSL', false);
    settings.set('hearth.remote.certificates', '/etc/corp.pem');
    expect(networkEnvironment()).toEqual({
      HEARTH_CLIENT: 'vscode',
      HEARTH_PROXY: 'http://proxy:3128',
      HEARTH_NO_PROXY: '*.corp,build.local',
      HEARTH_STRICT_TLS: 'off',
      HEARTH_CERTIFICATES: '/etc/corp.pem',
    });
    settings.set('http.proxySupport', 'off');
    expect(networkEnvironment()).not.toHaveProperty('HEARTH_PROXY');
  });
});

it("the ids of a server's models begin with its address, without secrets", () => {
  expect(bareAddress('https://me:secret@host/v1/?key=secret#x')).toBe('https://host/v1');
});

describe('the host that is shown', () => {
  it.each([
    ['https://me:secret@host:8443/v1?key=secret', 'host:8443'],
    ['https://me:secret@bad host/v1', 'bad host/v1'],
    ['nothing of the kind', 'nothing of the kind'],
  ])('of %s is %s', (url, host) => expect(hostOf(url)).toBe(host));
});
