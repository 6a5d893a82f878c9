import { estimatedTokens } from '../../engine/index/question/budget.ts';
import type { EngineHost } from '../client/host.ts';

/** As the loaded model counts; estimated, on the safe side, where it cannot be asked. */
export async function countTokens(engine: EngineHost, texts: readonly string[]): Promise<number[]> {
  const client = engine.current;
  if (texts.length === 0) return [];
  if (client?.warmModel === undefined) return texts.map(estimatedTokens);
  // An engine that does not count still answers.
  return client.countTokens([...texts]).catch(() => texts.map(estimatedTokens));
}
