/** The HTTP side of a remote server: its address, its models, its failures in words for people. */
import OpenAI, { APIConnectionError, APIConnectionTimeoutError, APIError, APIUserAbortError } from 'openai';
import { z } from 'zod';
import { type ErrorCode, HearthError, invalidInput, notFound } from '../../errors.ts';
import { type RemoteModel, type RemoteServerParams, thinkingMode } from '../../protocol/engineProtocol.ts';

/** What servers say of a model beside OpenAI's fields. */
const listed = z.object({
  id: z.string(),
  /** vLLM and SGLang; Hearth. */
  max_model_len: z.number().int().positive().nullish(),
  /** llama-server: what one of its slots holds. */
  meta: z.object({ n_ctx: z.number().int().positive().nullish() }).nullish(),
  owned_by: z.string().nullish(),
  thinking_modes: z.array(thinkingMode).nullish(),
  fill_in_the_middle: z.boolean().nullish(),
});

const list = z.object({ data: z.array(listed) });

export interface ListedModel extends RemoteModel {
  readonly llamaServer: boolean;
  readonly thinkingModes?: z.infer<typeof thinkingMode>[] | undefined;
  /** Undefined: it does not say. */
  readonly fillInTheMiddle?: boolean | undefined;
}

export class RemoteServer {
  /** Where the API lies, with its `/v1`. */
  readonly url: string;
  readonly host: string;
  readonly client: OpenAI;

  /** @throws HearthError `invalid-input` when `url` is no address of a server. */
  constructor({ url, token }: RemoteServerParams) {
    const address = URL.canParse(url) ? new URL(url) : undefined;
    if (address === undefined || !/^https?:$/.test(address.protocol)) {
      throw invalidInput(`'${url}' is no address of a server: https://HOST/v1 is one.`);
    }
    if (address.pathname === '/') address.pathname = '/v1';
    this.url = address.href.replace(/\/$/, '');
    this.host = address.host;
    // The client tries again by itself after a broken connection, 408, 409, 429 and 5xx, with growing pauses.
    this.client = new OpenAI({ baseURL: this.url, apiKey: token ?? 'none', maxRetries: 2, logLevel: 'off' });
  }

  /** Of what lies beside the API. */
  beside(path: string): string {
    return this.url.replace(/\/v1$/, '') + path;
  }

  async models(signal?: AbortSignal): Promise<ListedModel[]> {
    return this.explained(async () => {
      const { data } = list.parse(await this.client.get('/models', { signal }));
      return data.map(modelOf);
    });
  }

  /** The model that was named, or the only one there is. */
  async choose(named: string | undefined, signal?: AbortSignal): Promise<ListedModel> {
    const models = await this.models(signal);
    const [only] = models;
    if (named === undefined && models.length === 1 && only !== undefined) return only;
    const found = models.find(({ id }) => id === named);
    if (found) return found;
    const has = models.map(({ id }) => id).join(', ') || '(none)';
    throw notFound(`${this.host} has ${named === undefined ? '' : `no '${named}' but `}the models ${has}; name one.`);
  }

  async explained<Result>(ask: () => Promise<Result>): Promise<Result> {
    try {
      return await ask();
    } catch (error) {
      throw explained(this.host, error);
    }
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
  contextTokens: max_model_len ?? meta?.n_ctx ?? undefined,
  thinkingModes: thinking_modes ?? undefined,
  fillInTheMiddle: fill_in_the_middle ?? undefined,
});

function explained(host: string, error: unknown): unknown {
  if (error instanceof APIUserAbortError) return new HearthError('cancelled', 'The request was cancelled.');
  if (error instanceof APIConnectionTimeoutError) {
    return new HearthError('timeout', `${host} did not answer in time; ask again.`, { cause: error });
  }
  if (error instanceof APIConnectionError) {
    const why = reasonOf(error);
    return new HearthError('unavailable', `${host} cannot be reached${why}; check the address.`, { cause: error });
  }
  if (error instanceof z.ZodError || error instanceof SyntaxError) {
    return new HearthError('unavailable', `${host} gave an answer that is not OpenAI's API.`, { cause: error });
  }
  if (error instanceof APIError) return refusal(host, error);
  // The connection broke in the middle of an answer.
  if (error instanceof TypeError) {
    return new HearthError('unavailable', `${host} broke the connection off; ask again.`, { cause: error });
  }
  return error;
}

/** The innermost cause says it: ECONNREFUSED, a name that does not resolve, a certificate. */
function reasonOf(error: Error): string {
  const { cause } = error;
  if (cause instanceof Error) return reasonOf(cause) || (cause.message === '' ? '' : ` (${cause.message})`);
  return '';
}

const codes: Readonly<Record<number, ErrorCode>> = {
  400: 'invalid-input',
  404: 'not-found',
  422: 'invalid-input',
  429: 'busy',
  501: 'unsupported',
};

function refusal(host: string, error: APIError): HearthError {
  const code = isOverflow(error) ? 'context-overflow' : (codes[error.status ?? 0] ?? 'unavailable');
  const advice = error.status === 401 || error.status === 403 ? ' Check the token.' : '';
  const said = error.message.replace(/[.\s]+$/, '');
  return new HearthError(code, `${host} answered: ${said}.${advice}`, { cause: error });
}

/** OpenAI and Hearth have a code for it, llama-server a type, vLLM and SGLang only the sentence. */
function isOverflow({ status, code, type, message }: APIError): boolean {
  if (code === 'context_length_exceeded' || type === 'exceed_context_size_error') return true;
  return status === 400 && /maximum context length|longer than the model's context/i.test(message);
}
