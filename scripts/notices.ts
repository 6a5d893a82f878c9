/** Writes ThirdPartyNotices.txt with the licence of every bundled or shipped package. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { projectRoot } from './shared/paths.ts';

const manifest = z.object({
  name: z.string(),
  version: z.string(),
  license: z.string().default('not stated'),
  homepage: z.string().optional(),
  repository: z.union([z.string(), z.object({ url: z.string() })]).optional(),
});

const rule = '-'.repeat(80);

/** `inputs`: files bundled by esbuild, `shipped`: folders of packages copied as a whole; both relative to the project. */
export function notices(inputs: readonly string[], shipped: readonly string[]): string {
  const bundled = inputs.map(packageFolder).filter((folder) => folder !== undefined);
  const folders = new Set([...bundled, ...shipped]);
  const entries = [...folders].map((folder) => notice(join(projectRoot, folder))).sort();
  const head = 'Hearth contains the following third-party software, each under its own licence.';
  return `${[head, ...entries, ...linkedNotices(shipped.map((folder) => basename(folder)))].join(`\n\n${rule}\n\n`)}\n`;
}

/**
 * Licences of code that is compiled into the grammars and native libraries, whose packages lack these texts: from the grammars'
 * own packages, the sources that dawn.node is linked from, and ONNX Runtime's release.
 */
export function linkedNotices(shipped: readonly string[]): string[] {
  const read = (name: string): string => readFileSync(join(projectRoot, 'scripts', 'notices', name), 'utf8').trim();
  const compilers = ['LICENSE.TXT', 'ThirdPartyNotices.txt'].map((name) =>
    readFileSync(join(projectRoot, 'node_modules/webgpu/dist/win32-x64', `dxcompiler-${name}`), 'utf8').trim(),
  );
  return [
    read('linked.txt'),
    read('ggml.txt'),
    ['DirectXShaderCompiler (dxcompiler.dll, in packages for Windows)', ...compilers].join('\n\n'),
    ...(shipped.includes('onnxruntime-node') ? [read('onnxruntime.txt')] : []),
  ];
}

/** Returns `node_modules/@scope/name` for a file in a package, including nested installs. */
function packageFolder(input: string): string | undefined {
  return /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0];
}

function notice(folder: string): string {
  const about = manifest.parse(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')));
  const repository = typeof about.repository === 'string' ? about.repository : about.repository?.url;
  const source = about.homepage ?? repository ?? `https://www.npmjs.com/package/${about.name}`;
  const texts = readdirSync(folder)
    .filter((file) => /^(licen[cs]e|copying|notice)/i.test(file))
    .map((file) => readFileSync(join(folder, file), 'utf8').trim());
  if (texts.length === 0) texts.push('(The package comes without the text of its licence; the address above has it.)');
  return [`${about.name} ${about.version}\nLicence: ${about.license}\n${source}`, ...texts].join('\n\n');
}
