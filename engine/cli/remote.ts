/** Who answers a command: the engine of this process, or the server that `--remote` names. */
import type { ModelCard } from '../protocol/engineProtocol.ts';
import { RemoteEngine } from '../runtime/remote/remoteEngine.ts';
import type { Engine } from '../runtime/service.ts';
import type { Values } from './command.ts';
import { report, type Show, withEngine } from './session.ts';
import { ProgressLine, type Terminal } from './terminal.ts';

export interface Answerer {
  readonly engine: Pick<Engine, 'chat' | 'complete' | 'countTokens' | 'summarise'>;
  readonly card: ModelCard;
}

export const remoteOption = {
  name: 'remote',
  value: 'URL',
  help: 'ask an OpenAI-compatible server (https://HOST/v1) instead; its token is in $HEARTH_REMOTE_TOKEN',
} as const;

export async function withAnswerer(
  values: Values,
  terminal: Terminal,
  show: Show | undefined,
  run: (answerer: Answerer) => Promise<void>,
): Promise<void> {
  const url = values.text('remote');
  if (url === undefined) return withEngine(values, terminal, show, run);
  const progress = new ProgressLine(terminal);
  const options = {
    onDelta: (delta: Parameters<Show>[0]) => {
      progress.end();
      show?.(delta);
    },
    onProgress: (step: Parameters<typeof report>[1]) => report(progress, step),
  };
  const token = process.env['HEARTH_REMOTE_TOKEN'];
  const contextTokens = values.number('context', { least: 16, integer: true });
  const params = { url, token, model: values.text('model'), contextTokens };
  const engine = await RemoteEngine.connect(params, options, terminal.signal);
  try {
    await run({ engine, card: engine.card });
  } finally {
    progress.end();
  }
}
