/** Real files of many languages from package registries, downloaded once. */
import { globSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { type Source, sourceFolder } from '../context/sources.ts';
import { run } from '../shared/process.ts';

export interface CorpusFile {
  readonly path: string;
  readonly languageId: string;
  readonly text: string;
}

const unpacked =
  (command: string, ...options: string[]) =>
  async (folder: string) => {
    await run(command, options, { cwd: folder, output: 'quiet' });
    for (const archive of readdirSync(folder)) {
      if (/\.(tgz|tar\.gz)$/.test(archive)) await run('tar', ['xzf', archive], { cwd: folder, output: 'quiet' });
      if (archive.endsWith('.deb'))
        await run('dpkg-deb', ['--extract', archive, '.'], { cwd: folder, output: 'quiet' });
    }
  };
const npm = (specifier: string) => unpacked('npm', 'pack', '--silent', specifier);
const pypi = (specifier: string) =>
  unpacked('python3', '-m', 'pip', 'download', '--quiet', '--no-deps', '--no-binary', ':all:', specifier);
const debian = (name: string) => unpacked('apt-get', 'download', '--quiet', name);

const crate = (specifier: string) => async (folder: string) => {
  const [name = '', version = ''] = specifier.split('@');
  mkdirSync(join(folder, 'src'));
  writeFileSync(join(folder, 'src', 'lib.rs'), '');
  const manifest = '[package]\nname = "corpus"\nversion = "0.0.0"\nedition = "2021"\n\n[dependencies]\n';
  writeFileSync(join(folder, 'Cargo.toml'), `${manifest}${name} = "=${version}"\n`);
  await run('cargo', ['vendor', '--quiet'], { cwd: folder, output: 'quiet' });
};

const goModule = (specifier: string) => async (folder: string) => {
  writeFileSync(join(folder, 'go.mod'), 'module corpus\n');
  const env = { ...process.env, GOMODCACHE: join(folder, 'modules'), GOFLAGS: '-modcacherw', GONOSUMDB: '*' };
  await run('go', ['mod', 'download', specifier], { cwd: folder, env, output: 'quiet' });
};

const maven = (artefact: string) => async (folder: string) => {
  const repository = join(folder, 'repository');
  const options = [
    '-q',
    `-Dmaven.repo.local=${repository}`,
    '-Dtransitive=false',
    `-Dartifact=${artefact}:jar:sources`,
  ];
  await run('mvn', [...options, 'dependency:get'], { cwd: folder, output: 'quiet' });
  for (const jar of globSync('**/*-sources.jar', { cwd: repository }))
    await run('unzip', ['-q', '-o', join(repository, jar)], { cwd: folder, output: 'quiet' });
  rmSync(repository, { recursive: true });
};

export const fetched: readonly Source[] = [
  { name: 'corpus zod 4.1.12', language: 'TypeScript', fetch: npm('zod@4.1.12') },
  { name: 'corpus express 5.1.0', language: 'JavaScript', fetch: npm('express@5.1.0') },
  { name: 'corpus highlight.js 11.11.1', language: 'CSS, JavaScript', fetch: npm('highlight.js@11.11.1') },
  { name: 'corpus bootstrap 5.3.8', language: 'SCSS, JavaScript', fetch: npm('bootstrap@5.3.8') },
  { name: 'corpus re2 1.24.0', language: 'C++', fetch: npm('re2@1.24.0') },
  { name: 'corpus requests 2.32.5', language: 'Python', fetch: pypi('requests==2.32.5') },
  { name: 'corpus psutil 6.1.0', language: 'C', fetch: pypi('psutil==6.1.0') },
  { name: 'corpus pythonnet 3.0.5', language: 'C#', fetch: pypi('pythonnet==3.0.5') },
  { name: 'corpus ansible-core 2.17.0', language: 'YAML, shell', fetch: pypi('ansible-core==2.17.0') },
  { name: 'corpus django 5.2.8', language: 'HTML', fetch: pypi('django==5.2.8') },
  { name: 'corpus regex-automata 0.4.8', language: 'Rust', fetch: crate('regex-automata@0.4.8') },
  { name: 'corpus cobra 1.8.1', language: 'Go', fetch: goModule('github.com/spf13/cobra@v1.8.1') },
  { name: 'corpus gson 2.11.0', language: 'Java', fetch: maven('com.google.code.gson:gson:2.11.0') },
  { name: 'corpus okio 3.9.0', language: 'Kotlin', fetch: maven('com.squareup.okio:okio-jvm:3.9.0') },
  { name: 'corpus flask 3.1.2', language: 'Python', fetch: pypi('flask==3.1.2') },
  { name: 'corpus cffi 1.17.1', language: 'C', fetch: pypi('cffi==1.17.1') },
  { name: 'corpus serde_json 1.0.140', language: 'Rust', fetch: crate('serde_json@1.0.140') },
  { name: 'corpus gin 1.10.0', language: 'Go', fetch: goModule('github.com/gin-gonic/gin@v1.10.0') },
  { name: 'corpus commons-text 1.12.0', language: 'Java', fetch: maven('org.apache.commons:commons-text:1.12.0') },
  {
    name: 'corpus coroutines 1.8.1',
    language: 'Kotlin',
    fetch: maven('org.jetbrains.kotlinx:kotlinx-coroutines-core-jvm:1.8.1'),
  },
  { name: 'corpus hono 4.6.0', language: 'TypeScript', fetch: npm('hono@4.6.0') },
  { name: 'corpus ruby-sinatra', language: 'Ruby', fetch: debian('ruby-sinatra') },
  { name: 'corpus ruby-activesupport', language: 'Ruby', fetch: debian('ruby-activesupport') },
  { name: 'corpus php-monolog', language: 'PHP', fetch: debian('php-monolog') },
  { name: 'corpus libmojolicious-perl', language: 'Perl', fetch: debian('libmojolicious-perl') },
  { name: 'corpus ruby-rack', language: 'Ruby', fetch: debian('ruby-rack') },
  { name: 'corpus roundcube-core', language: 'PHP, SQL', fetch: debian('roundcube-core') },
  { name: 'corpus lua-penlight', language: 'Lua', fetch: debian('lua-penlight') },
];

const languages: Readonly<Record<string, string>> = {
  c: 'c',
  cc: 'cpp',
  cpp: 'cpp',
  cs: 'csharp',
  css: 'css',
  go: 'go',
  html: 'html',
  java: 'java',
  js: 'javascript',
  json: 'json',
  kt: 'kotlin',
  lua: 'lua',
  md: 'markdown',
  php: 'php',
  pl: 'perl',
  pm: 'perl',
  py: 'python',
  rb: 'ruby',
  rs: 'rust',
  scss: 'scss',
  sh: 'shellscript',
  sql: 'sql',
  toml: 'toml',
  ts: 'typescript',
  yaml: 'yaml',
  yml: 'yaml',
};

/** Larger files are tables and slow to parse thousands of times. */
const fileChars = { least: 400, most: 24_000 };

/** Hand-written files of a folder in known languages. */
export function filesUnder(folder: string, pattern = '**/*.*'): CorpusFile[] {
  const paths = globSync(pattern, { cwd: folder, exclude: (path) => /(^|\/)(\.git|dist|out)$|\.min\./.test(path) });
  return paths.toSorted().flatMap((path) => {
    const languageId = languages[path.split('.').at(-1) ?? ''];
    if (languageId === undefined || path.endsWith('.d.ts')) return [];
    const text = readText(join(folder, path));
    const isFitting = text.length >= fileChars.least && text.length <= fileChars.most && !/.{400}/.test(text);
    return isFitting ? [{ path, languageId, text: text.replaceAll('\r\n', '\n') }] : [];
  });
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Skips folders and broken links.
    return '';
  }
}

/** Downloads missing packages. Warns about unavailable packages and skips them. */
export async function corpus(): Promise<CorpusFile[]> {
  const files: CorpusFile[] = [];
  for (const source of fetched) {
    try {
      const folder = await sourceFolder(source);
      files.push(...filesUnder(folder).map((file) => ({ ...file, path: join(relative('.', folder), file.path) })));
    } catch (error) {
      console.warn(`Skipping ${source.name}: ${error instanceof Error ? error.message : error}`);
    }
  }
  return [...files, ...filesUnder('node_modules', '*/*.{json,md}')];
}
