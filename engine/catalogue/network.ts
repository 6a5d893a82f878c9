/**
 * undici rather than Node's own fetch, which ignores HTTP_PROXY, HTTPS_PROXY and NO_PROXY before Node 24. Imported on
 * demand: most commands never download.
 */
import { EnvHttpProxyAgent, fetch } from 'undici';

export { fetch };

export const dispatcher = new EnvHttpProxyAgent();
