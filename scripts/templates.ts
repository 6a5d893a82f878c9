/**
 * Downloads llama.cpp's collection of published chat templates, and its vocabularies with expected token ids, into
 * `node_modules/.cache` (from the source of `llama-cpp-python` on PyPI). Records how Python's jinja2 renders them and our own
 * templates in `test/fixtures/text/jinja`. Needs `python3` with pip and jinja2 3.1, and tar.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  conversations,
  digest,
  type RecordedTemplate,
  templateCache,
  templatesHere,
  vocabularyCache,
} from '../test/unit/prompt/publishedTemplates.ts';

const source = 'llama-cpp-python==0.3.36';
const fixtures = fileURLToPath(new URL('../test/fixtures/text/jinja', import.meta.url));
type Renders = Record<string, Record<string, { text?: string; error?: string }>>;

function fetchTemplates(): void {
  const folder = join(templateCache, 'source');
  mkdirSync(folder, { recursive: true });
  const options = ['--no-deps', '--no-binary', ':all:', '--quiet', '--dest', folder];
  execFileSync('python3', ['-m', 'pip', 'download', source, ...options], { stdio: 'inherit' });
  const [archive = ''] = readdirSync(folder);
  const unpack = (wanted: string, into: string, folders: number) => {
    mkdirSync(into, { recursive: true });
    const options = ['--wildcards', wanted, `--strip-components=${folders}`];
    execFileSync('tar', ['xzf', join(folder, archive), '-C', into, ...options]);
  };
  unpack('*/llama.cpp/models/templates/*.jinja', templateCache, 5);
  unpack('*/llama.cpp/models/ggml-vocab-*', vocabularyCache, 4);
  rmSync(folder, { recursive: true });
}

function rendered(templates: Record<string, string>, given: Record<string, unknown>): Renders {
  const input = JSON.stringify({ templates, conversations: given });
  const options = { input, encoding: 'utf8', maxBuffer: 1 << 30 } as const;
  return JSON.parse(execFileSync('python3', [join(fixtures, 'render.py')], options));
}

function recordPublished(): number {
  const templates = Object.fromEntries(templatesHere());
  const renders = rendered(templates, conversations);
  const recorded = Object.entries(templates).map(([name, text]): [string, RecordedTemplate] => {
    const own = Object.entries(renders[name] ?? {}).map(([conversation, { text }]) => [
      conversation,
      text === undefined ? null : digest(text),
    ]);
    return [name, { source: digest(text), renders: Object.fromEntries(own) }];
  });
  writeFileSync(join(fixtures, 'renders.json'), `${JSON.stringify(Object.fromEntries(recorded), null, 1)}\n`);
  return recorded.length;
}

function recordOwn(): number {
  const path = join(fixtures, 'expressions.json');
  const { variables, cases } = JSON.parse(readFileSync(path, 'utf8')) as {
    variables: Record<string, unknown>;
    cases: { template: string }[];
  };
  const renders = rendered(Object.fromEntries(cases.map(({ template }) => [template, template])), { all: variables });
  const again = cases.map(({ template }) => ({ template, ...renders[template]?.['all'] }));
  writeFileSync(path, `${JSON.stringify({ variables, cases: again }, null, 1)}\n`);
  return cases.length;
}

if (![...templatesHere().keys()].some((name) => name.startsWith('llama.cpp/'))) fetchTemplates();
console.log(`Recorded ${recordPublished()} published templates and ${recordOwn()} of our own.`);
