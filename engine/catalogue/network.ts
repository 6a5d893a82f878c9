/**
 * Node's own fetch ignores HTTP_PROXY, HTTPS_PROXY and NO_PROXY before Node 24, so this uses undici. It is imported on
 * demand, because most commands don't download.
 */
import { EnvHttpProxyAgent, fetch } from 'undici';

export { fetch };

export const dispatcher = new EnvHttpProxyAgent();
