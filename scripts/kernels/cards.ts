/** Emulated GPUs: Mesa's real drivers, which start without hardware because a DRM shim replaces the kernel driver. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mesa } from '../shared/mesa.ts';

export type Compiler = 'aco' | 'nak' | 'agx';

export interface Card {
  readonly name: 'navi31' | 'polaris10' | 'Ada' | 'M1';
  /** Product names. */
  readonly products: string;
  readonly compiler: Compiler;
  readonly driver: string;
  readonly shim: string;
  readonly env: Readonly<Record<string, string>>;
}

const radv = (id: string) => ({
  compiler: 'aco' as const,
  driver: 'libvulkan_radeon.so',
  shim: 'libamdgpu_noop_drm_shim.so',
  env: { AMDGPU_GPU_ID: id, RADV_DEBUG: 'shaderstats,asm,nocache' },
});

export const cards: readonly Card[] = [
  {
    name: 'Ada',
    products: 'RTX 4060 to 4090',
    compiler: 'nak',
    driver: 'libvulkan_nouveau.so',
    shim: 'libnouveau_noop_drm_shim.so',
    env: { NOUVEAU_CHIPSET: '0x192', NAK_DEBUG: 'print' },
  },
  { name: 'navi31', products: 'RX 7900', ...radv('navi31') },
  { name: 'polaris10', products: 'RX 480, 580', ...radv('polaris10') },
  {
    name: 'M1',
    products: 'Apple M1',
    compiler: 'agx',
    driver: 'libvulkan_asahi.so',
    shim: 'libasahi_noop_drm_shim.so',
    env: { AGX_MESA_DEBUG: 'shaderdb,shaders' },
  },
];

/** Command and environment to run Node with a card's driver. @throws Unavailable */
export function cardLaunch(card: Card, work: string): { command: readonly string[]; env: Record<string, string> } {
  const { libraries, launch } = mesa();
  mkdirSync(work, { recursive: true });
  const icd = join(work, `${card.name}.icd.json`);
  const ICD = { library_path: join(libraries, card.driver), api_version: '1.4.0' };
  writeFileSync(icd, JSON.stringify({ file_format_version: '1.0.1', ICD }));
  return {
    command: launch(card.shim),
    env: { ...card.env, VK_DRIVER_FILES: icd, MESA_SHADER_CACHE_DISABLE: 'true' },
  };
}
