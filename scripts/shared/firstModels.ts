/** Which models `npm start` downloads on a machine without models: the small one, or the best pair if the user agrees. */
import type { CatalogueEntry } from '../../engine/catalogue/catalogue.ts';
import type { Choice } from '../../engine/catalogue/choice.ts';
import { showBytes } from '../../engine/errors.ts';

export interface Asking {
  readonly small: CatalogueEntry;
  readonly pair: Choice;
  /** Asks on the terminal. Resolves to undefined if no answer came in time. Absent without a terminal. */
  readonly ask?: (question: string) => Promise<string | undefined>;
  readonly say: (line: string) => void;
}

/** Ids to download. */
export async function firstModels({ small, pair, ask, say }: Asking): Promise<string[]> {
  const best = [pair.chat, pair.completion].flatMap((entry) => entry ?? []).filter(({ id }) => id !== small.id);
  if (best.length === 0) return [small.id];
  const later = `Better models for this machine, at any time: npx hearth models pull ${best.map(({ id }) => id).join(' && npx hearth models pull ')}`;
  if (!ask) {
    say(later);
    return [small.id];
  }
  say('Which model do you want to start with?');
  say(`  1  Small and quick: ${described([small])}. It shows that everything works.`);
  say(`  2  The best for this machine: ${described(best)}.`);
  const answer = await ask('1 or 2 (1 in ten seconds): ');
  if (answer?.trim() === '2') return best.map(({ id }) => id);
  say(later);
  return [small.id];
}

const described = (entries: readonly CatalogueEntry[]): string => {
  const bytes = entries.reduce((sum, { downloadBytes }) => sum + downloadBytes, 0);
  return `${entries.map(({ name }) => name).join(', and for completions ')} (${showBytes(bytes)})`;
};
