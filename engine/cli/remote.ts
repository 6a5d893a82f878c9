/** Who answers a question: the engine of this process, or the server that `--remote` names. */
import type { ModelCard } from '../server/protocol.ts';
import { RemoteEngine } from '../server/remote/remoteEngine.ts';
import type { Engine } from '../server/service.ts';
import type { Values } from './command.ts';
import { type Show, withEngine } from './session.ts';
import type { Terminal } from './terminal.ts';

export interface Answerer {
  readonly engine: Pick<Engine, 'chat'>;
  readonly card: Pick<ModelCard, 'id' | 'name' | 'backend' | 'contextTokens' | 'thinkingModes'>;
}

/** OpenAI's API does not say how long a model's context is; this is what current ones have at least. */
const assumedContextTokens = 8192;

export async function withAnswerer(
  values: Values,
  terminal: Terminal,
  show: Show | undefined,
  run: (answerer: Answerer) => Promise<void>,
): Promise<void> {
  const url = values.text('remote');
  if (url === undefined) return withEngine(values, terminal, show, run);
  const token = process.env['HEARTH_REMOTE_TOKEN'];
  const remote = new RemoteEngine({ url, token, onDelta: (delta) => show?.(delta) });
  const model = await remote.choose(values.text('model'), terminal.signal);
  // Whether it thinks is the server's to say: it refuses what it does not know.
  const thinkingModes: ModelCard['thinkingModes'] = ['off', 'on', 'low', 'medium', 'high'];
  const card = { id: model, name: model, backend: 'remote', contextTokens: assumedContextTokens, thinkingModes };
  await run({ engine: { chat: (params, signal) => remote.chat(model, params, signal) }, card });
}
