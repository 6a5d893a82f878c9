/** What kind of file a path is, by the repository's own layout where it tells, else by the conventions of languages. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { grammarOf } from '../syntax/grammars.ts';
import type { PathClass, Query } from './query.ts';

/** Factors on a score, measured on repositories that this was not written for; `lifted`: the question asks for the kind. */
const factors: Readonly<Record<PathClass, { readonly usual: number; readonly lifted: number }>> = {
  test: { usual: 0.6, lifted: 1.5 },
  example: { usual: 0.6, lifted: 1.2 },
  vendored: { usual: 0.6, lifted: 1 },
  data: { usual: 0.5, lifted: 1 },
  changelog: { usual: 0.5, lifted: 1.2 },
  document: { usual: 0.9, lifted: 1.2 },
};

const testPart = /^(?:tests?|specs?|__tests__|testdata|testing|e2e|fixtures?)$/;
const testName = /(?:^|[._-])(?:tests?|specs?)(?=[._-]|$)|^test_/;
/** `FooTest.java`, `FooTests.cs`, `FooSpec.kt`: with a capital, so that `latest` is none. */
const testCamelName = /[\p{Ll}\p{N}](?:Tests?|Spec|IT)$/u;
const examplePart = /^(?:examples?|samples?|demos?|benchmarks?|benches|bench)$/;
const vendoredPart = /^(?:vendor(?:ed)?|third[_-]?party|external|node_modules|bower_components)$/;
const changelogName = /^(?:change(?:s|log)|history|news|release[-_ ]?notes|releases)(?:[._-].*)?$/;
/** Terms of use rank with changelogs: hardly a question is about them. */
const licenceName = /^(?:licen[cs]e|copying|notice)(?:[._-].*)?$/;
const documentEnding = /\.(?:md|mdx|markdown|rst|adoc|asciidoc|txt|org|tex|pod|rdoc)$/;
const dataEnding =
  /\.(?:json[5c]?|ya?ml|toml|xml|csv|tsv|svg|lock|po|pot|properties|ini|cfg|conf|plist|snap|golden|map|ipynb|editorconfig|gitignore)$/;
const languageTag = /^[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[a-z]{2}))*$/;
/** A folder of so many files that are named after languages holds translations. */
const leastLocales = 8;

/** Folders with their own terms of use came from elsewhere; those with the root's are members of one project. */
interface Learned {
  readonly foreign: readonly string[];
  readonly locales: ReadonlySet<string>;
}

export class Layout {
  readonly #database: DatabaseSync;
  readonly #named: StatementSync;
  readonly #classes = new Map<string, PathClass | undefined>();
  #learned: Learned | undefined;
  #files = 0;

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#named = database.prepare(
      `SELECT count(*) AS n, sum(name GLOB 'test_*' OR name GLOB 'Test[A-Z]*' OR name GLOB 'test[A-Z]*') AS tests
       FROM symbols JOIN files ON files.id = symbols.file WHERE path = ? AND kind IN ('function', 'method')`,
    );
  }

  /** Looks at the repository anew when it grew or shrank by a tenth. */
  refresh(): void {
    const files = Number(this.#database.prepare('SELECT max(id) AS n FROM files').get()?.['n'] ?? 0);
    if (this.#learned !== undefined && Math.abs(files - this.#files) <= this.#files / 10) return;
    this.#files = files;
    this.#classes.clear();
    this.#learned = learn(this.#database);
  }

  classOf(path: string): PathClass | undefined {
    if (!this.#classes.has(path)) this.#classes.set(path, this.#computed(path));
    return this.#classes.get(path);
  }

  /** What a score of this file is multiplied with. */
  factor(path: string, query: Query): number {
    const own = this.classOf(path);
    if (own === undefined) return 1;
    const asked = query.wants.has(own) || (own === 'test' && query.relation === 'tests');
    const named = own !== 'changelog' && namesFolderOf(path, query);
    return factors[own][asked || named ? 'lifted' : 'usual'];
  }

  #computed(path: string): PathClass | undefined {
    const { foreign = [], locales = new Set<string>() } = this.#learned ?? {};
    const parts = path.split('/');
    const folders = parts.slice(0, -1);
    const name = parts.at(-1) ?? '';
    const stem = name.replace(/\.[^.]*$/, '');
    const lower = folders.map((part) => part.toLowerCase());
    if (licenceName.test(name.toLowerCase()) && grammarOf(path) === undefined) return 'changelog';
    if (lower.some((part) => vendoredPart.test(part)) || foreign.some((root) => path.startsWith(root)))
      return 'vendored';
    if (locales.has(folders.join('/')) && languageTag.test(stem)) return 'data';
    const test =
      lower.some((part) => testPart.test(part)) || testName.test(stem.toLowerCase()) || testCamelName.test(stem);
    if (test) return 'test';
    if (lower.some((part) => examplePart.test(part))) return 'example';
    if (changelogName.test(name.toLowerCase()) && grammarOf(path) === undefined) return 'changelog';
    if (documentEnding.test(name.toLowerCase())) return 'document';
    if (dataEnding.test(name.toLowerCase())) return 'data';
    const { n, tests } = this.#named.get(path) ?? {};
    return Number(n) >= 3 && Number(tests) > Number(n) / 2 ? 'test' : undefined;
  }
}

/** A question that names a folder or a file asks for what lies there. */
function namesFolderOf(path: string, { text }: Query): boolean {
  const words = new Set(text.toLowerCase().match(/[\p{L}\p{N}_.-]{4,}/gu) ?? []);
  const parts = path.toLowerCase().split('/');
  return parts.some((part, at) => !testPart.test(part) && words.has(part) && (at > 0 || parts.length > 1));
}

function learn(database: DatabaseSync): Learned {
  const licences = database
    .prepare(
      "SELECT path, digest FROM files WHERE path LIKE '%license%' OR path LIKE '%licence%' OR path LIKE '%copying%'",
    )
    .all()
    .map((row) => ({ path: String(row['path']), digest: String(row['digest']) }))
    .filter(({ path }) => licenceName.test(path.slice(path.lastIndexOf('/') + 1).toLowerCase()))
    .filter(({ path }) => grammarOf(path) === undefined);
  const own = new Set(licences.filter(({ path }) => !path.includes('/')).map(({ digest }) => digest));
  const foreign = licences
    .filter(({ path, digest }) => own.size > 0 && path.includes('/') && !own.has(digest))
    .map(({ path }) => path.slice(0, path.lastIndexOf('/') + 1));
  const counts = new Map<string, number>();
  for (const row of database.prepare('SELECT path FROM files').iterate()) {
    const path = String(row['path']);
    const slash = path.lastIndexOf('/');
    if (languageTag.test(path.slice(slash + 1).replace(/\..*$/, ''))) {
      const folder = path.slice(0, Math.max(0, slash));
      counts.set(folder, (counts.get(folder) ?? 0) + 1);
    }
  }
  const locales = [...counts].filter(([, count]) => count >= leastLocales).map(([folder]) => folder);
  return { foreign, locales: new Set(locales) };
}
