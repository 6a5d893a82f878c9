/** The HTTP side of a remote server: its address, its models, and its failures as messages for the user. */
import OpenAI, { APIConnectionError, APIConnectionTimeoutError, APIError, APIUserAbortError } from 'openai';
import { z } from 'zod';
import { certificateProblem, type ErrorCode, HearthError, invalidInput, notFound } from '../../errors.ts';
import { limits } from '../../limits.ts';
import { type RemoteModel, type RemoteServerParams, thinkingMode } from '../../protocol/models.ts';
import { eventsOf, notTheApi, openTransport, withoutCredentials } from './events.ts';

/** Fields that servers add to OpenAI's model object. */
const listed = z.object({
  id: z.string().max(limits.remote.nameChars),
  /** vLLM and SGLang; Hearth. */
  max_model_len: z.number().int().positive().nullish(),
  /** llama-server: context of one slot. */
  meta: z.object({ n_ctx: z.number().int().positive().nullish() }).nullish(),
  owned_by: z.string().nullish(),
  thinking_modes: z.array(thinkingMode).nullish(),
  fill_in_the_middle: z.boolean().nullish(),
});

const list = z.object({ data: z.array(listed).max(limits.remote.models) });

export interface ListedModel extends RemoteModel {
  readonly llamaServer: boolean;
  readonly thinkingModes?: z.infer<typeof thinkingMode>[] | undefined;
  /** Undefined if the server does not say. */
  readonly fillInTheMiddle?: boolean | undefined;
}

export class RemoteServer {
  /** Base URL of the API, with its `/v1`, without user, password or query. */
  readonly url: string;
  readonly host: string;
  readonly client: OpenAI;
  readonly #open: () => ReturnType<typeof openTransport>;
  #transport: ReturnType<typeof openTransport> | undefined;

  /** @throws HearthError `invalid-input` if `url` is not an HTTP address. */
  constructor({ url, token }: RemoteServerParams) {
    const address = URL.canParse(url) ? new URL(url) : undefined;
    if (address === undefined || !/^https?:$/.test(address.protocol)) {
      throw invalidInput(`'${shownAddress(url)}' is not a server address. An example is https://HOST/v1.`);
    }
    if (address.pathname === '/') address.pathname = '/v1';
    const { username, password, search: query, host } = address;
    const bare = withoutCredentials(address);
    bare.search = '';
    bare.hash = '';
    this.url = bare.href.replace(/\/$/, '');
    this.host = host;
    const pair = `${decoded(username)}:${decoded(password)}`;
    const authorization = pair === ':' ? undefined : `Basic ${Buffer.from(pair).toString('base64')}`;
    const hasToken = token !== undefined || authorization === undefined;
    this.#open = () => openTransport({ url: this.url, host, query, authorization, hasToken });
    // The client retries after a broken connection, 408, 409, 429 and 5xx, with growing pauses.
    this.client = new OpenAI({
      ...{ baseURL: this.url, apiKey: token ?? 'none', maxRetries: 2, logLevel: 'off' },
      fetch: async (asked, init) => (await this.#connection())(asked, init),
    });
  }

  /** URL of an endpoint beside the API. */
  beside(path: string): string {
    return this.url.replace(/\/v1$/, '') + path;
  }

  async models(signal?: AbortSignal): Promise<ListedModel[]> {
    return this.explained(async () => {
      const said: unknown = await this.client.get('/models', { signal });
      if (typeof said === 'string') throw notTheApi(this.host, said);
      return list.parse(said).data.map(modelOf);
    });
  }

  /** The named model, or the server's only one. */
  async choose(named: string | undefined, signal?: AbortSignal): Promise<ListedModel> {
    const models = await this.models(signal);
    const [only] = models;
    if (named === undefined && models.length === 1 && only !== undefined) return only;
    const found = models.find(({ id }) => id === named);
    if (found) return found;
    const has = models.map(({ id }) => id).join(', ') || '(none)';
    throw notFound(`${this.host} has ${named === undefined ? '' : `no '${named}' but `}the models ${has}; name one.`);
  }

  /** The chunks of a streamed answer. Leaving the loop ends the request. @throws HearthError */
  async *stream(ask: () => Promise<Response>): AsyncGenerator<unknown> {
    const response = await this.explained(ask);
    const events = eventsOf(this.host, response);
    try {
      for (;;) {
        const next = await this.explained(() => events.next());
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await events.return(undefined);
    }
  }

  async explained<Result>(ask: () => Promise<Result>): Promise<Result> {
    try {
      // Wrong settings fail here, before the client would retry.
      await this.#connection();
      return await ask();
    } catch (error) {
      throw explained(this.host, error);
    }
  }

  #connection(): ReturnType<typeof openTransport> {
    this.#transport ??= this.#open();
    return this.#transport;
  }
}

/** Removes user and password, even if the text is not a valid address. */
const shownAddress = (url: string): string => url.replace(/^(\w+:\/*)?.*@/s, '$1');

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const modelOf = ({
  id,
  max_model_len,
  meta,
  owned_by,
  thinking_modes,
  fill_in_the_middle,
}: z.output<typeof listed>) => ({
  id,
  llamaServer: owned_by === 'llamacpp',
  contextTokens: bounded(max_model_len ?? meta?.n_ctx ?? undefined),
  thinkingModes: thinking_modes ?? undefined,
  fillInTheMiddle: fill_in_the_middle ?? undefined,
});

const bounded = (tokens: number | undefined): number | undefined =>
  tokens === undefined ? undefined : Math.min(tokens, limits.model.contextTokens);

function explained(host: string, error: unknown): unknown {
  if (error instanceof APIUserAbortError) return new HearthError('cancelled', 'The request was cancelled.');
  if (error instanceof Error && error.name === 'AbortError') {
    return new HearthError('cancelled', 'The request was cancelled.', { cause: error });
  }
  if (error instanceof APIConnectionTimeoutError) {
    return new HearthError('timeout', `${host} did not answer in time; ask again.`, { cause: error });
  }
  if (error instanceof APIConnectionError) return unreachable(host, error);
  if (error instanceof z.ZodError || error instanceof SyntaxError) {
    return new HearthError('unavailable', `${host} sent a response that does not follow OpenAI's API.`, {
      cause: error,
    });
  }
  if (error instanceof APIError) return refusal(host, error);
  if (error instanceof TypeError) return cutOff(host, error);
  return error;
}

/** The connection broke in the middle of an answer, or the answer has no end. */
export const cutOff = (host: string, cause?: unknown): HearthError =>
  new HearthError(
    'unavailable',
    `${host} closed the connection before the answer was complete. The text received so far is kept; ask again.`,
    {
      cause,
    },
  );

function unreachable(host: string, error: Error): Error {
  const cause = innermost(error);
  if (cause instanceof HearthError) return cause;
  const certificate = certificateProblem(Reflect.get(cause, 'code'));
  if (certificate !== undefined) {
    return new HearthError('unavailable', `${host} cannot be reached: ${certificate}`, { cause: error });
  }
  const why = cause === error || cause.message === '' ? '' : ` (${cause.message})`;
  return new HearthError('unavailable', `${host} cannot be reached${why}; check the address.`, { cause: error });
}

/** The innermost cause says why: ECONNREFUSED, a name that does not resolve, a certificate. */
function innermost(error: Error): Error {
  return error.cause instanceof Error ? innermost(error.cause) : error;
}

const codes: Readonly<Record<number, ErrorCode>> = {
  400: 'invalid-input',
  404: 'not-found',
  422: 'invalid-input',
  429: 'busy',
  501: 'unsupported',
};

function refusal(host: string, error: APIError): HearthError {
  const status = error.status ?? 0;
  if (status >= 300 && status < 400) return redirected(host, error);
  const code = isOverflow(error) ? 'context-overflow' : (codes[status] ?? 'unavailable');
  const advice = status === 401 || status === 403 ? ' Check the token.' : '';
  return new HearthError(code, `${host} answered: ${sentenceOf(error)}.${advice}`, { cause: error });
}

/** A server's own message: one line, bounded, without control characters. For a web page, only its status. */
function sentenceOf({ message, status }: APIError): string {
  if (/<(!doctype|html|body)/i.test(message)) return `${status ?? ''} (a web page)`.trim();
  const said = message.replaceAll(/[\p{Cc}\p{Cf}\s]+/gu, ' ').trim();
  const short = said.length > limits.remote.messageChars ? `${said.slice(0, limits.remote.messageChars)} …` : said;
  return short.replace(/[.\s]+$/, '');
}

function redirected(host: string, error: APIError): HearthError {
  const location = error.headers?.get('location') ?? '';
  const other = URL.canParse(location) ? withoutCredentials(new URL(location)) : undefined;
  const where = other === undefined ? 'to no address' : `to ${other.origin}`;
  const next =
    other === undefined ? 'Check the address.' : 'If you trust that server, connect to it by its own address.';
  const message = `${host} redirects ${where}. Hearth asks only the server that you named: nothing was sent there. ${next}`;
  return new HearthError('unavailable', message, { cause: error });
}

/** OpenAI and Hearth have a code for it, llama-server has a type, vLLM and SGLang have only the message. */
function isOverflow({ status, code, type, message }: APIError): boolean {
  if (code === 'context_length_exceeded' || type === 'exceed_context_size_error') return true;
  return (
    (status === 400 || status === undefined) && /maximum context length|longer than the model's context/i.test(message)
  );
}
