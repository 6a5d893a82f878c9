/** The VSIX as a user gets it: its size, its content, and that it is self-contained. */
import { execFile } from 'node:child_process';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { openPromise } from 'yauzl';
import { isPreRelease, maxPackageBytes } from '../../scripts/package.ts';
import { startEngine } from '../../scripts/shared/engineProcess.ts';
import { projectRoot } from '../../scripts/shared/paths.ts';

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
      /^(\[Content_Types\]\.xml|extension\.vsixmanifest|extension\/(package(\.nls(\.[\w-]+)?)?\.json|readme\.md|changelog\.md|LICENSE\.txt|ThirdPartyNotices\.txt|dist\/[\w-]+\.(cjs|mjs|js|css|wasm)|dist\/grammars\/[\w-]+\.wasm|dist\/fonts\/KaTeX_[\w-]+\.woff2|media\/[\w/.-]+\.(svg|png|md|css)|l10n\/[\w.-]+\.json))$/;
    expect(own.filter((name) => !expected.test(name))).toEqual([]);
    expect(own).toContain('extension/dist/engine.mjs');
    expect(own).toContain('extension/dist/extension.cjs');
  });

  test('is marked for the pre-release channel by its odd minor version', () => {
    const manifest = readFileSync(join(folder, 'extension.vsixmanifest'), 'utf8');
    const [, minor] = /<Identity [^>]*Version="\d+\.(\d+)\./.exec(manifest) ?? [];
    expect(manifest.includes('Id="Microsoft.VisualStudio.Code.PreRelease" Value="true"')).toBe(Number(minor) % 2 === 1);
    expect(['0.1.0', '0.2.9', '1.13.2', '2.0.1'].map(isPreRelease)).toEqual([true, false, true, false]);
  });

  test('speaks six languages', () => {
    const languages = ['de', 'es', 'fr', 'ja', 'zh-cn'];
    const bundles = languages.map((language) => `extension/l10n/bundle.l10n.${language}.json`);
    const manifests = ['', ...languages.map((language) => `.${language}`)].map(
      (part) => `extension/package.nls${part}.json`,
    );
    expect(names.filter((name) => /^extension\/l10n\//.test(name))).toEqual(bundles);
    expect(names.filter((name) => /package\.nls/.test(name))).toEqual(expect.arrayContaining(manifests));
    const manifest: unknown = JSON.parse(readFileSync(join(folder, 'extension', 'package.json'), 'utf8'));
    expect(manifest).toMatchObject({ l10n: './l10n' });
    for (const name of [...bundles, ...manifests]) {
      const shipped = readFileSync(join(folder, name), 'utf8');
      expect(shipped).toBe(readFileSync(join(projectRoot, name.replace(/^extension\//, '')), 'utf8'));
    }
  });

  test('contains native modules of this platform only', () => {
    const binaries = names.filter((name) => name.endsWith('.node') && !name.includes('/@koromix/koffi-'));
    const onnxruntime = `onnxruntime-node/bin/napi-v6/${process.platform}/${process.arch}/onnxruntime_binding.node`;
    const dawn = `webgpu/dist/${process.platform}-${process.platform === 'darwin' ? 'universal' : process.arch}/dawn.node`;
    expect(binaries).toEqual([onnxruntime, dawn].map((path) => `extension/dist/node_modules/${path}`));
    const { platform, arch } = process;
    const ggml = { darwin: `mac-${arch}`, win32: `win-${arch}` }[platform as string] ?? `${platform}-${arch}`;
    const parts = new Set(names.flatMap((name) => /@(node-llama-cpp|koromix)\/[\w-]+/.exec(name)?.[0] ?? []));
    expect([...parts].sort()).toEqual([
      `@koromix/koffi-${platform}-${arch}`,
      expect.stringMatching(`^@node-llama-cpp/${ggml}(-metal)?$`),
    ]);
  });

  test('contains no source, typings or source maps, and refers to none', () => {
    expect(names.filter((name) => /\.(ts|map)$/.test(name))).toEqual([]);
    const scripts = names.filter((name) => /\.(js|cjs|mjs|css)$/.test(name));
    const naming = scripts.filter((name) =>
      /^\/[/*]# sourceMappingURL=/m.test(readFileSync(join(folder, name), 'utf8')),
    );
    expect(naming).toEqual([]);
  });

  test('contains exactly the files of native packages that their import needs', () => {
    const shipped = names
      .filter((name) => name.startsWith('extension/dist/node_modules/'))
      .map((name) => name.slice('extension/dist/node_modules/'.length));
    const listed =
      /^(webgpu\/(package\.json|index\.js|dist\/[\w-]+\/(dawn\.node|d3dcompiler_47\.dll|dxcompiler\.dll|dxcompiler-(LICENSE\.TXT|ThirdPartyNotices\.txt)))|onnxruntime-node\/(package\.json|dist\/(backend|binding|index|version)\.js|bin\/napi-v6\/\w+\/\w+\/(onnxruntime_binding\.node|libonnxruntime\.(so\.1|1\.dylib)|(onnxruntime|DirectML|dxcompiler|dxil)\.dll))|onnxruntime-common\/(package\.json|dist\/(cjs|esm)\/([\w-]+\.js|package\.json))|koffi\/(package\.json|index\.c?js|src\/koffi\/[\w/]+\.c?js)|@koromix\/koffi-[\w-]+\/(package\.json|README\.md|index\.js|\w+\/koffi\.node)|@node-llama-cpp\/[\w-]+\/(package\.json|README\.md|LICENSE|dist\/index\.js|bins\/[\w-]+\/(lib)?ggml-(base|cpu)[\w.-]*\.(so|dylib|dll)))$/;
    expect(shipped.filter((name) => !listed.test(name))).toEqual([]);
  });

  test('has the licence of every part, including code linked into native libraries and grammars', () => {
    const notices = readFileSync(join(folder, 'extension', 'ThirdPartyNotices.txt'), 'utf8');
    for (const part of [
      'tree-sitter-rust',
      'Abseil',
      'SPIRV-Tools',
      'node-addon-api',
      'ONNX Runtime',
      'The ggml authors',
      'koffi',
      'google/XNNPACK',
      'marked',
    ]) {
      expect(notices, part).toContain(part);
    }
  });

  test.each(['onnx', 'ggml'] as const)('runs its engine from the unpacked files alone, with %s', async (backend) => {
    const engine = startEngine(join(folder, 'extension', 'dist', 'engine.mjs'));
    try {
      const card = await engine.requests.load({ model: 'smollm2-135m-instruct', backend });
      expect(card.backend).toBe(backend);
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
