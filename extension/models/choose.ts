import { isAbsolute } from 'node:path';
import type { ModelEntry } from '../../engine/protocol/engineProtocol.ts';

export type ModelChoice =
  /** A catalogue id or path that can be loaded now. */
  | { kind: 'use'; model: string; name: string }
  /** Nothing that can be loaded; these are worth downloading, best first. Empty: the catalogue has nothing that fits. */
  | { kind: 'download'; offers: ModelEntry[] }
  /** The setting names something that the catalogue does not know. */
  | { kind: 'unknown'; model: string };

/** Which model the engine should hold. `setting` is hearth.chat.model; '' leaves it to what is on disk and what fits. */
export function chooseModel(setting: string, entries: readonly ModelEntry[]): ModelChoice {
  if (setting === '') return automatic(entries);
  const entry = entries.find((candidate) => candidate.id === setting);
  if (entry !== undefined) {
    return entry.state === 'present'
      ? { kind: 'use', model: entry.id, name: entry.name }
      : { kind: 'download', offers: [entry] };
  }
  if (isAbsolute(setting)) return { kind: 'use', model: setting, name: fileName(setting) };
  return { kind: 'unknown', model: setting };
}

/** The chat model, as far as its choice of a completion model is concerned. */
type ChatModel = Pick<ModelEntry, 'id' | 'fillInTheMiddle'>;

/** The setting with which the chat model completes, whatever else there is. */
export const chatModelCompletes = 'chat';

/**
 * The model that completes beside the chat model. Undefined: the chat model completes. `setting` is
 * hearth.completion.model; '' takes the chat model if it was trained to fill in, otherwise the best model on disk that was.
 * `chat` is undefined if what it was trained for is not known.
 */
export function chooseCompletionModel(
  setting: string,
  chat: ChatModel | undefined,
  entries: readonly ModelEntry[],
): ModelChoice | undefined {
  if (setting === chatModelCompletes || (setting !== '' && setting === chat?.id)) return undefined;
  if (setting !== '') return chooseModel(setting, entries);
  if (chat === undefined || chat.fillInTheMiddle) return undefined;
  const able = entries.filter(
    ({ fillInTheMiddle, state, fit }) => fillInTheMiddle && state === 'present' && fit.verdict !== 'no',
  );
  const best = able.sort(byPromptness)[0];
  return best && { kind: 'use', model: best.id, name: best.name };
}

/** A suggestion is worth something while one types, so a small model that runs well goes before a larger one. */
function byPromptness(a: ModelEntry, b: ModelEntry): number {
  const slow = (entry: ModelEntry) => (entry.fit.verdict === 'slow' ? 1 : 0);
  const large = (entry: ModelEntry) => (entry.parameters > promptParameters ? 1 : 0);
  const size = large(a) === 1 ? a.parameters - b.parameters : b.parameters - a.parameters;
  return slow(a) - slow(b) || large(a) - large(b) || size;
}

/** Larger models take longer than a pause between two keys on most graphics cards. */
const promptParameters = 8e9;

function automatic(entries: readonly ModelEntry[]): ModelChoice {
  const usable = entries.filter((entry) => entry.fit.verdict !== 'no' && !entry.embedding);
  const best = usable.filter((entry) => entry.state === 'present').sort(byPreference)[0];
  if (best !== undefined) return { kind: 'use', model: best.id, name: best.name };
  return { kind: 'download', offers: offers(usable) };
}

/** Sorts Hearth's own before other programs', good fit before slow, recommended first, then larger. */
function byPreference(a: ModelEntry, b: ModelEntry): number {
  const foreign = (entry: ModelEntry) => (entry.owner === undefined ? 0 : 1);
  const slow = (entry: ModelEntry) => (entry.fit.verdict === 'slow' ? 1 : 0);
  return (
    foreign(a) - foreign(b) ||
    slow(a) - slow(b) ||
    Number(b.recommended) - Number(a.recommended) ||
    b.parameters - a.parameters
  );
}

/** At most two: the one that suits this machine best, and the smallest download, which is quick to try. */
function offers(usable: readonly ModelEntry[]): ModelEntry[] {
  const best = [...usable].sort(byPreference)[0];
  const smallest = [...usable].sort((a, b) => a.downloadBytes - b.downloadBytes)[0];
  if (best === undefined || smallest === undefined) return [];
  return best === smallest ? [best] : [best, smallest];
}

export function fileName(path: string): string {
  return path.split(/[\\/]/).filter(Boolean).at(-1) ?? path;
}
