import { isAbsolute } from 'node:path';
import type { ModelEntry } from '../../engine/protocol/engineProtocol.ts';

export type ModelChoice =
  /** A catalogue id or path that can be loaded now. */
  | { kind: 'use'; model: string; name: string }
  /** Nothing that can be loaded; these are worth downloading, best first. Empty: the catalogue has nothing that fits. */
  | { kind: 'download'; offers: ModelEntry[] }
  /** The setting names something that the catalogue does not know. */
  | { kind: 'unknown'; model: string };

/** Which model the engine should hold. `setting` is hearth.model; '' leaves it to what is on disk and what fits. */
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

/** At most two: the smallest download, which is quick to try, and the one that suits this machine best. */
function offers(usable: readonly ModelEntry[]): ModelEntry[] {
  const best = [...usable].sort(byPreference)[0];
  const smallest = [...usable].sort((a, b) => a.downloadBytes - b.downloadBytes)[0];
  if (best === undefined || smallest === undefined) return [];
  return best === smallest ? [best] : [smallest, best];
}

export function fileName(path: string): string {
  return path.split(/[\\/]/).filter(Boolean).at(-1) ?? path;
}
