/** Machines that people have, for docs/models.md and the test of the recommended pairs. */
import type { Hardware } from '../../engine/catalogue/fit.ts';

const GiB = 2 ** 30;

export const machine = (gibibytes: number, cores: number, changes: Partial<Hardware> = {}): Hardware => ({
  totalMemoryBytes: gibibytes * GiB,
  freeMemoryBytes: gibibytes * GiB * 0.8,
  cores,
  ...changes,
});

const card = (name: string, gibibytes: number) => ({ gpu: { name, memoryBytes: gibibytes * GiB, unified: false } });
const shared = (name: string) => ({ gpu: { name, unified: true } });

export const machines: Readonly<Record<string, Hardware>> = {
  'laptop, 2 cores, 4 GB': machine(4, 2),
  'laptop, 4 cores, 8 GB': machine(8, 4),
  'laptop, 8 cores, 16 GB': machine(16, 8),
  'workstation, 16 cores, 64 GB': machine(64, 16),
  'RTX 3050, 4 GB, 16 GB': machine(16, 8, card('NVIDIA GeForce RTX 3050 Laptop GPU', 4)),
  'RTX 4060, 8 GB, 32 GB': machine(32, 8, card('NVIDIA GeForce RTX 4060', 8)),
  'RTX 3060, 12 GB, 32 GB': machine(32, 8, card('NVIDIA GeForce RTX 3060', 12)),
  'Arc B580, 12 GB, 32 GB': machine(32, 8, card('Intel(R) Arc(TM) B580 Graphics', 12)),
  'RX 7800 XT, 16 GB, 32 GB': machine(32, 8, card('AMD Radeon RX 7800 XT', 16)),
  'RTX 4090, 24 GB, 64 GB': machine(64, 16, card('NVIDIA GeForce RTX 4090', 24)),
  'H200, 141 GB': machine(256, 32, card('NVIDIA H200', 131)),
  'Apple M1, 8 GB': machine(8, 8, shared('Apple M1')),
  'Apple M2, 16 GB': machine(16, 8, shared('Apple M2')),
  'Apple M2 Max, 32 GB': machine(32, 12, shared('Apple M2 Max')),
  'Apple M3 Ultra, 256 GB': machine(256, 28, shared('Apple M3 Ultra')),
  'Strix Halo, 128 GB': machine(128, 16, shared('AMD RYZEN AI MAX+ 395 w/ Radeon 8060S')),
};
