/** What this machine has to offer a model. */

import { availableParallelism } from 'node:os';
import { hostMemory } from '../backend/hostMemory.ts';
import { graphicsCards } from '../backend/webgpu/device/graphicsCards.ts';

export interface Gpu {
  readonly name: string;
  /** Memory that weights can be put into; absent: unknown. */
  readonly memoryBytes?: number;
  /** Shares the processor's memory (laptops, Apple silicon). */
  readonly unified: boolean;
}

export interface Hardware {
  /** Memory this process may use at most: the machine's, or its container's. */
  readonly totalMemoryBytes: number;
  readonly freeMemoryBytes: number;
  readonly cores: number;
  /** Absent: none is known of. */
  readonly gpu?: Gpu;
}

export function detectHardware(gpu?: Gpu): Hardware {
  const { totalBytes, availableBytes } = hostMemory();
  return {
    totalMemoryBytes: totalBytes,
    freeMemoryBytes: Math.min(totalBytes, availableBytes),
    cores: availableParallelism(),
    ...(gpu && { gpu }),
  };
}

/** The same with the largest graphics card that the system tells of. */
export async function detectMachine(): Promise<Hardware> {
  const [card] = await graphicsCards();
  return detectHardware(card && { name: card.name, memoryBytes: card.totalBytes, unified: card.unified });
}
