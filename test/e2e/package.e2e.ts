/** The VSIX as a user gets it: its size, its content, and that it is self-contained. */
import { execFile } from 'node:child_process';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { openPromise } from 'yauzl';
import { startEngine } from '../../engine/runtime/engineProcess.ts';
import { maxPackageBytes } from '../../scripts/package.ts';

const { vsix } = inject('prepared');

async function unpack(archive: string, folder: string): Promise<string[]> {
  const zip = await openPromise(archive);
  const names: string[] = [];
  for await (const entry of zip.eachEntry()) {
    names.push(entry.fileName);
    const path = join(folder, entry.fileName);
    mkdirSync(dirname(path), { recursive: true });
    await pipeline(await zip.openReadStreamPromise(entry), createWriteStream(path));
  }
  return names.sort();
}

describe('the packaged extension', () => {
  // Outside the project, so that no import can find the project's node_modules.
  const folder = mkdtempSync(join(tmpdir(), 'hearth-vsix-'));
  let names: string[];
  beforeAll(async () => {
    names = await unpack(vsix, folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('weighs less than 60 MB', () => {
    expect(statSync(vsix).size).toBeLessThan(maxPackageBytes);
  });

  test('contains bundles, documents and pictures only', () => {
    const own = names.filter((name) => !name.startsWith('extension/dist/node_modules/'));
    const expected =
      /^(\[Content_Types\]\.xml|extension\.vsixmanifest|extension\/(package(\.nls)?\.json|readme\.md|changelog\.md|LICENSE\.txt|ThirdPartyNotices\.txt|dist\/[\w-]+\.(cjs|mjs|js|css|wasm)|dist\/grammars\/[\w-]+\.wasm|media\/[\w/.-]+\.(svg|png|md|css)|l10n\/[\w.-]+\.json))$/;
    expect(own.filter((name) => !expected.test(name))).toEqual([]);
    expect(own).toContain('extension/dist/engine.mjs');
    expect(own).toContain('extension/dist/extension.cjs');
  });

  test('contains native modules of this platform only', () => {
    const binaries = names.filter((name) => name.endsWith('.node'));
    const onnxruntime = `onnxruntime-node/bin/napi-v6/${process.platform}/${process.arch}/onnxruntime_binding.node`;
    const dawn = `webgpu/dist/${process.platform}-${process.platform === 'darwin' ? 'universal' : process.arch}/dawn.node`;
    expect(binaries).toEqual([onnxruntime, dawn].map((path) => `extension/dist/node_modules/${path}`));
  });

  test('contains no source, typings or source maps, and refers to none', () => {
    expect(names.filter((name) => /\.(ts|map)$/.test(name))).toEqual([]);
    const scripts = names.filter((name) => /\.(js|cjs|mjs|css)$/.test(name));
    const naming = scripts.filter((name) =>
      /^\/[/*]# sourceMappingURL=/m.test(readFileSync(join(folder, name), 'utf8')),
    );
    expect(naming).toEqual([]);
  });

  test('holds of the native packages what their import needs, file by file', () => {
    const shipped = names
      .filter((name) => name.startsWith('extension/dist/node_modules/'))
      .map((name) => name.slice('extension/dist/node_modules/'.length));
    const listed =
      /^(webgpu\/(package\.json|index\.js|dist\/[\w-]+\/(dawn\.node|d3dcompiler_47\.dll|dxcompiler\.dll|dxcompiler-(LICENSE\.TXT|ThirdPartyNotices\.txt)))|onnxruntime-node\/(package\.json|dist\/(backend|binding|index|version)\.js|bin\/napi-v6\/\w+\/\w+\/(onnxruntime_binding\.node|libonnxruntime\.(so\.1|1\.dylib)|(onnxruntime|DirectML|dxcompiler|dxil)\.dll))|onnxruntime-common\/(package\.json|dist\/(cjs|esm)\/([\w-]+\.js|package\.json)))$/;
    expect(shipped.filter((name) => !listed.test(name))).toEqual([]);
  });

  test('carries the licence of every part, also of what is linked into native libraries and grammars', () => {
    const notices = readFileSync(join(folder, 'extension', 'ThirdPartyNotices.txt'), 'utf8');
    for (const part of [
      'tree-sitter-rust',
      'Abseil',
      'SPIRV-Tools',
      'node-addon-api',
      'ONNX Runtime',
      'google/XNNPACK',
      'marked',
    ]) {
      expect(notices, part).toContain(part);
    }
  });

  test('runs its engine from the unpacked files alone', async () => {
    const engine = startEngine(join(folder, 'extension', 'dist', 'engine.mjs'));
    try {
      const card = await engine.requests.load({ model: 'smollm2-135m-instruct', backend: 'onnx' });
      expect(card.backend).toBe('onnx');
      const prompt = { stream: 's', prompt: 'Once upon a time', raw: true, maxTokens: 8, sampling: { temperature: 0 } };
      const { text } = await engine.requests.generate(prompt);
      expect(text.trim().split(' ').length).toBeGreaterThan(3);
    } finally {
      await engine.stop();
    }
  });

  test('runs its command line from the unpacked files alone', async () => {
    const cli = join(folder, 'extension', 'dist', 'cli.mjs');
    const { stdout } = await promisify(execFile)(process.execPath, [cli, 'models', 'list', '--json'], { cwd: folder });
    expect(JSON.parse(stdout)).toContainEqual(
      expect.objectContaining({ id: 'smollm2-135m-instruct', state: 'present' }),
    );
  });
});
