/**
 * Network access of this process: proxies and certificates from its environment. VS Code's settings arrive as HEARTH_*
 * variables. Node's own fetch ignores HTTP_PROXY, HTTPS_PROXY and NO_PROXY before Node 24, so this uses undici. It is
 * imported on demand, because most commands don't use the network.
 */
import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import { Agent, type Dispatcher, EnvHttpProxyAgent, fetch } from 'undici';
import { type Environment, HearthError, invalidInput, places } from '../errors.ts';
import { isLoopback, limits } from '../limits.ts';

export { fetch };

interface Tls {
  readonly rejectUnauthorized: boolean;
  readonly ca?: string[];
}

/**
 * The dispatcher for an address. As in VS Code, loopback is never reached through a proxy.
 * @throws HearthError `invalid-input` for an invalid proxy, `not-found` for a certificate file that can't be read.
 */
export function dispatchers(env: Environment = process.env): (url: URL) => Dispatcher {
  const tls = tlsOf(env);
  const options = { connect: tls, requestTls: tls, proxyTls: tls, headersTimeout: limits.remote.headersMs };
  const direct = new Agent(options);
  const httpProxy = proxyOf(env, 'http_proxy');
  const httpsProxy = proxyOf(env, 'https_proxy');
  if (httpProxy === '' && httpsProxy === '') return () => direct;
  const noProxy = env['HEARTH_NO_PROXY'] || env['no_proxy'] || env['NO_PROXY'] || '';
  // Plain HTTP requests are sent to the proxy without a tunnel, because many proxies refuse a tunnel to port 80.
  const proxied = new EnvHttpProxyAgent({ ...options, proxyTunnel: false, httpProxy, httpsProxy, noProxy });
  return (url) => (isLoopback(url) ? direct : proxied);
}

let ofProcess: ((url: URL) => Dispatcher) | undefined;

/** The same for this process's environment, cached for all downloads. */
export function dispatcherFor(url: URL): Dispatcher {
  ofProcess ??= dispatchers();
  return ofProcess(url);
}

/** The proxy's address; '' if there is none. As in curl: lower case first, and no scheme means http. */
function proxyOf(env: Environment, name: 'http_proxy' | 'https_proxy'): string {
  const text = (env['HEARTH_PROXY'] || env[name] || env[name.toUpperCase()] || '').trim();
  if (text === '') return '';
  const address = /^[a-z][a-z\d+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const protocol = URL.canParse(address) ? new URL(address).protocol : undefined;
  if (protocol === 'http:' || protocol === 'https:') return address;
  // The address may contain a password, so don't quote it.
  const what = protocol === undefined ? 'is not an address' : `uses the scheme ${protocol.replace(':', '')}`;
  throw invalidInput(`The configured proxy ${what}. An example is http://HOST:PORT. ${places(env).proxy}`);
}

function tlsOf(env: Environment): Tls {
  const rejectUnauthorized = env['HEARTH_STRICT_TLS'] !== 'off';
  const file = env['HEARTH_CERTIFICATES'] || undefined;
  if (file === undefined) return { rejectUnauthorized };
  // A custom list of authorities replaces Node's list, including NODE_EXTRA_CA_CERTS, so add those again.
  const extra = env['NODE_EXTRA_CA_CERTS'] || undefined;
  const ca = [...rootCertificates, readCertificates(file, env)];
  return { rejectUnauthorized, ca: extra === undefined ? ca : [...ca, readCertificates(extra, env)] };
}

function readCertificates(file: string, env: Environment): string {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const message = `The certificate file ${file} cannot be read. ${places(env).certificates}`;
    throw new HearthError('not-found', message, { cause: error });
  }
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw invalidInput(`${file} has no certificate in PEM form (-----BEGIN CERTIFICATE-----).`);
}
