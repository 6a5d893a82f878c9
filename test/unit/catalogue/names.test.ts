import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultStoreDirectory, isSafeFileName, modelFolder } from '../../../engine/catalogue/files.ts';
import { fuzzNames } from '../../fuzz/store.ts';

describe('names from outside', () => {
  it('never leave the store: 5,000 names (npm run fuzz:store tries 100,000)', async () => {
    const figures = await fuzzNames(5000, 1);
    expect(figures.problems).toEqual([]);
    expect(figures.accepted).toBeGreaterThan(100);
    expect(figures.refused).toBeGreaterThan(3000);
  });

  it.each(['model-00001-of-00002.safetensors', 'SmolLM2-135M-Instruct.Q4_1.gguf', 'config.json', 'a'])(
    'may be %s',
    (name) => expect(isSafeFileName(name)).toBe(true),
  );

  it.each([
    '',
    '.',
    '..',
    '../a',
    'a/b',
    'a\\b',
    'C:a',
    'a:b',
    'NUL',
    'nul.gguf',
    'com1',
    'a.',
    '.a',
    'a b',
    'é',
    'a\0',
  ])('may not be %j', (name) => expect(isSafeFileName(name)).toBe(false));

  it('become folder names only if they are digests', () => {
    const digest = 'a'.repeat(64);
    expect(modelFolder('/store', digest)).toBe(join('/store', 'models', `sha256-${digest}`));
    for (const bad of [`${digest}a`, digest.toUpperCase(), `../${digest}`, `${digest}\n`, '']) {
      expect(() => modelFolder('/store', bad)).toThrow('is not a SHA-256 digest');
    }
  });
});

describe('the store is located', () => {
  const directory = (platform: NodeJS.Platform, variables: Record<string, string> = {}) =>
    defaultStoreDirectory({ platform, home: '/home/me', variables });

  it('in HEARTH_HOME', () => {
    expect(directory('linux', { HEARTH_HOME: '/big/disk', XDG_CACHE_HOME: '/cache' })).toBe('/big/disk');
  });

  it("in the platform's cache folder", () => {
    expect(directory('linux')).toBe(join('/home/me', '.cache', 'hearth'));
    expect(directory('linux', { XDG_CACHE_HOME: '/cache' })).toBe(join('/cache', 'hearth'));
    expect(directory('linux', { XDG_CACHE_HOME: 'relative' })).toBe(join('/home/me', '.cache', 'hearth'));
    expect(directory('darwin')).toBe(join('/home/me', 'Library', 'Caches', 'hearth'));
    expect(directory('win32', { LOCALAPPDATA: '/local' })).toBe(join('/local', 'hearth'));
  });
});
