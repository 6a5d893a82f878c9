/**
 * Decides which models a machine should have, and which one is used if the user names none. Nothing else decides this.
 */

import { type Speed, speedOf } from '../backend/speed.ts';
import type { CatalogueEntry } from './catalogue.ts';
import {
  completesInTime,
  type Fit,
  type Hardware,
  hostShare,
  memoryNeededBytes,
  placeOf,
  runsWellInChat,
} from './fit.ts';
import type { ForeignModel } from './foreign.ts';

export interface RecommendOptions {
  /** Families that the engine can run; default: all. */
  readonly families?: readonly CatalogueEntry['family'][];
  readonly fallbackId: string;
}

/**
 * The models that a machine should have: one for chat and perhaps another for completion, or one small and fast model.
 */
export interface Choice {
  readonly chat: CatalogueEntry | undefined;
  /** Undefined: the chat model also completes, or no model that is fast enough at completion fits beside it. */
  readonly completion: CatalogueEntry | undefined;
}

/** The highest-ranked models with open licences that run well together. */
export function choosePair(entries: readonly CatalogueEntry[], hardware: Hardware, options: RecommendOptions): Choice {
  const open = entries.filter(({ licence, family }) => licence.open && (options.families?.includes(family) ?? true));
  const well = (entry: CatalogueEntry, machine: Hardware, isGood: (speed: Speed) => boolean): boolean => {
    const place = placeOf(entry, machine);
    return place !== undefined && isGood(speedOf(entry, place));
  };
  const chats = open.filter((entry) => entry.roles.includes('chat') && well(entry, hardware, runsWellInChat));
  // A graphics card must not idle while the CPU computes.
  const onCard = chats.filter((entry) => placeOf(entry, hardware)?.kind === 'card');
  const pairs = (onCard.length > 0 ? onCard : chats).map((chat): Choice => {
    if (chat.fillInTheMiddle && well(chat, hardware, completesInTime)) return { chat, completion: undefined };
    const left = without(hardware, chat);
    const small = open.filter((entry) => entry.fillInTheMiddle && entry.parameters <= promptParameters);
    const able = small.filter((entry) => entry.id !== chat.id && well(entry, left, completesInTime));
    return { chat, completion: highestRanked(able) };
  });
  const complete = pairs.filter(({ chat, completion }) => completion !== undefined || chat?.fillInTheMiddle === true);
  const candidates = complete.length > 0 ? complete : pairs;
  const chat = highestRanked(candidates.flatMap((pair) => pair.chat ?? []));
  return (
    candidates.find((pair) => pair.chat === chat) ?? {
      chat: entries.find(({ id }) => id === options.fallbackId),
      completion: undefined,
    }
  );
}

/** Larger models complete slowly on most graphics cards, and their memory gains little. */
const promptParameters = 8e9;

/** The machine with a loaded model. */
function without(hardware: Hardware, entry: CatalogueEntry): Hardware {
  const { gpu } = hardware;
  const place = placeOf(entry, hardware);
  const bytes = memoryNeededBytes(entry, place?.kind ?? 'processor');
  if (place?.kind === 'card' && gpu?.memoryBytes !== undefined)
    return { ...hardware, gpu: { ...gpu, memoryBytes: gpu.memoryBytes - bytes } };
  const share = place ? hostShare(entry, place) : 1;
  const onHost = { ...hardware, totalMemoryBytes: hardware.totalMemoryBytes - bytes * share };
  return gpu && place?.kind === 'split' ? { ...onHost, gpu: { ...gpu, memoryBytes: 0 } } : onHost;
}

const highestRanked = (entries: readonly CatalogueEntry[]): CatalogueEntry | undefined =>
  entries.reduce<CatalogueEntry | undefined>(
    (best, entry) => (best && best.rank >= entry.rank ? best : entry),
    undefined,
  );

/** The highest-ranked chat model that fits in `bytes` of memory on any device. */
export function bestWithin(entries: readonly CatalogueEntry[], bytes: number): CatalogueEntry | undefined {
  const fitting = entries.filter(
    (entry) => entry.roles.includes('chat') && memoryNeededBytes(entry, 'processor') <= bytes,
  );
  return highestRanked(fitting);
}

// Orders the models that are on a machine.

export type Role = 'chat' | 'completion';

/** The highest is chosen for a role. Absent: not chosen unless it is named. */
export type Suitability = Readonly<Partial<Record<Role, number>>>;

interface Candidate {
  readonly id: string;
  readonly parameters: number;
  readonly roles: readonly string[];
  readonly fillInTheMiddle: boolean;
}

export const rolesIn = (pair: Choice, { id }: Pick<Candidate, 'id'>): Role[] => [
  ...(pair.chat?.id === id ? (['chat'] as const) : []),
  ...(pair.completion?.id === id || (pair.completion === undefined && pair.chat?.id === id && pair.chat.fillInTheMiddle)
    ? (['completion'] as const)
    : []),
];

/** Hearth's own models come before other programs', fast ones before slow ones, then recommended ones. */
const steps = { own: 4_000, good: 2_000, recommended: 1_000 };

/** Among equals, chat uses the larger model; completion uses the largest that is fast enough, else the smallest. */
export function suitabilityOf(
  { parameters, roles, fillInTheMiddle }: Candidate,
  { verdict }: Fit,
  { owner, recommendedFor }: { readonly owner?: ForeignModel['owner']; readonly recommendedFor: readonly Role[] },
): Suitability {
  if (verdict === 'no' || roles.includes('embedding')) return {};
  const common = (owner === undefined ? steps.own : 0) + (verdict === 'good' ? steps.good : 0);
  const advice = (role: Role): number => common + (recommendedFor.includes(role) ? steps.recommended : 0);
  const size = Math.log2(Math.max(parameters, 1));
  const promptness = parameters <= promptParameters ? size : -size;
  return {
    chat: advice('chat') + size,
    ...(fillInTheMiddle && { completion: advice('completion') + promptness }),
  };
}
