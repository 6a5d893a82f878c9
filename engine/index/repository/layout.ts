/**
 * Classifies a path: by the contents of its folders if they are conclusive, else by the languages' naming conventions.
 */
import type { DatabaseSync } from 'node:sqlite';
import { grammarOf } from '../syntax/grammars.ts';
import type { PathClass, Query } from './query.ts';

/**
 * Factors on a score, measured on repositories that were not used for development. `lifted`: applies if the question
 * asks for this class.
 */
const factors: Readonly<Record<PathClass, { readonly usual: number; readonly lifted: number }>> = {
  test: { usual: 0.6, lifted: 1.5 },
  example: { usual: 0.6, lifted: 1.2 },
  vendored: { usual: 0.6, lifted: 1 },
  built: { usual: 0.4, lifted: 1 },
  data: { usual: 0.5, lifted: 1 },
  changelog: { usual: 0.3, lifted: 1.2 },
  document: { usual: 0.9, lifted: 1.2 },
};

/** Factor for a translation that the question names, such as `the German README`: higher than its original's. */
const ofNamedLanguage = 1.8;
/**
 * Classes that a question can name by folder. Test folders are named after what they test, build folders after their
 * purpose.
 */
const nameable: ReadonlySet<PathClass> = new Set<PathClass>(['example', 'vendored', 'data', 'document']);

// Classifies a file by its text; the result is stored with the file.

/** '': no special kind. */
export type ContentKind = 'test' | 'generated' | 'table' | 'changes' | '';

/** Test cases as test frameworks write them. Rust's unit tests are in source files, under `cfg(test)`. */
const testCase =
  /^[ \t]*(?:(?:(?:describe|it|test|context|suite|specify|scenario|feature)(?:\.\w+)*\s*[( ]\s*['"`])|(?:async )?def test_|func Test\w*\(t \*testing|(?:public |protected )?function test\w+\(|@(?:Test|ParameterizedTest)\b|\[(?:Fact|Theory|Test|TestMethod|TestCase)\b|(?:TYPED_|BOOST_(?:AUTO_)?)?TEST(?:_F|_P|_CASE)?\(|SECTION\("|#\[(?:\w+::)*test\b|static (?:void|int) test_\w+\()/gm;
const ownTests = /^[ \t]*#\[cfg\(test\)\]/m;
const functionStart = /^(?:[\w*&<>:,[\]\t ]*[\t ])?(?:function|def|func|fn|fun|sub|void|int)\b/gm;
/** Marks of generated code: Go's convention (go.dev/s/generatedcode), `@generated`, and other common phrases. */
const generatedMark =
  /@generated|\b(?:code|file|source|module|document) (?:is |was |has been )?(?:automatically |auto-?)?generated\b|\bauto-?generated (?:by|from|file)\b|generated (?:by|from) .*do not edit|do not edit.*generated|\b(?:parser|scanner|lexer|bindings?|stubs?)\b[^\n]{0,40}\b(?:generated|made) by\b/i;
const headChars = 1500;
const versionHeading = /^(?:#{1,4}\s*|={2,}\s*)?\[?(?:version |release |v|\w+ )?\d+\.\d+(?:\.\d+)?[^\n]{0,60}$/gim;
const leastVersions = 5;
const leastTableLines = 60;
const tableShare = 0.85;

export function contentKindOf(path: string, text: string): ContentKind {
  if (grammarOf(path) === undefined || documentEnding.test(path.toLowerCase())) {
    return (text.slice(0, 40_000).match(versionHeading) ?? []).length >= leastVersions && hasDates(text)
      ? 'changes'
      : '';
  }
  if (generatedMark.test(text.slice(0, headChars))) return 'generated';
  const cases = (text.match(testCase) ?? []).length;
  if (cases > 0 && !ownTests.test(text) && 2 * cases >= (text.match(functionStart) ?? []).length) return 'test';
  return isTable(text) ? 'table' : '';
}

/** Headings with numbers only are chapters, not releases. */
const hasDates = (text: string): boolean =>
  (
    text
      .slice(0, 40_000)
      .match(/\b(?:19|20)\d\d[-/.]\d\d?[-/.]\d\d?\b|\b(?:fix(?:ed|es)?|added|removed|changed)\b/gi) ?? []
  ).length >= leastVersions;

function isTable(text: string): boolean {
  const lines = text.split('\n').filter((line) => /[\p{L}\p{N}]/u.test(line) && !/^\s*(?:\/\/|#|\*|\/\*)/.test(line));
  if (lines.length < leastTableLines) return false;
  return lines.filter(isOfLiterals).length >= tableShare * lines.length;
}

/** Whether the line is a table row of literals, with or without a key. */
function isOfLiterals(line: string): boolean {
  const plain = line.replaceAll(/'[^']*'|"[^"]*"|\b\d\w*/g, '');
  return plain !== line && !/\p{L}/u.test(plain.replace(/^[^\S\n]*[\w$.-]+\s*(?:=>|[:=])/, ''));
}

// Classifies a file by its names.

const testPart = /^(?:tests?|specs?|__tests__|testdata|testing|e2e|fixtures?)$/;
const testName = /(?:^|[._-])(?:tests?|specs?)(?=[._-]|$)|^test_/;
/** `FooTest.java`, `FooTests.cs`, `FooSpec.kt`: with a capital, so that `latest` doesn't match. */
const testCamelName = /[\p{Ll}\p{N}](?:Tests?|Spec|IT)$/u;
const examplePart = /^(?:examples?|samples?|demos?|benchmarks?|benches|bench)$/;
const vendoredPart = /^(?:vendor(?:ed)?|third[_-]?party|external|node_modules|bower_components)$/;
const changelogName = /^(?:change(?:s|log)|history|news|release[-_ ]?notes|releases)(?:[._-].*)?$/;
/** Licences rank like changelogs, because few questions are about them. */
const licenceName = /^(?:licen[cs]e|copying|notice)(?:[._-].*)?$/;
const documentEnding = /\.(?:md|mdx|markdown|rst|adoc|asciidoc|txt|org|tex|pod|rdoc|[1-9])$/;
/** Committed build output, which repeats the sources. */
const builtPart = /^dist$/;
const builtName = /\.(?:min|bundle|umd)\.\w+$/;
/** Configuration of tools. */
const hiddenPart = /^\.[^.]/;
const dataEnding =
  /\.(?:sln|\w{2,3}proj|props|targets|resx|dotsettings|json[5c]?|ya?ml|toml|xml|csv|tsv|svg|lock|po|pot|properties|ini|cfg|conf|plist|snap|golden|map|ipynb|editorconfig|gitignore)$/;
const languageTag = /^[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[a-z]{2}))*$/;
const versionName = /^v?\d+(?:\.\d+)+(?:[-.]?\w+)?$/;

/**
 * A folder with at least this many files, most of them named after languages, contains translations; the same applies
 * to versions.
 */
const leastAlike = 8;
const alikeShare = 0.6;
/** Folders with fewer sources are not conclusive. */
const leastSources = 4;
/**
 * If most sources of a folder are tests, the others are their helpers. If hardly any are, the folder's name means
 * something else.
 */
const testShare = 0.8;
const hardlyShare = 0.1;
/** Sources among documents illustrate them. */
const documentShare = 0.7;

/** If at least this many folders have a licence, they are members of the project. */
const leastMembers = 3;
/** A folder with a larger share of the project's files is not third-party code, even with its own licence file. */
const foreignShare = 0.3;

/** Counts of all files in a folder and below. */
interface Folder {
  sources: number;
  tests: number;
  documents: number;
  /** Counts of the files directly in the folder: all, those named after languages, those named after versions. */
  files: number;
  languages: number;
  versions: number;
}

export class Layout {
  readonly #database: DatabaseSync;
  readonly #classes = new Map<string, PathClass | undefined>();
  readonly #kinds = new Map<string, ContentKind>();
  #folders = new Map<string, Folder>();
  /** Folders with their own licence, which count as third-party code. */
  #foreign: readonly string[] = [];
  /** Files that have translations with the same name beside them. */
  #originals = new Set<string>();
  #files = -1;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** Classifies the repository again if it grew or shrank by a tenth. */
  refresh(): void {
    const files = Number(this.#database.prepare('SELECT max(id) AS n FROM files').get()?.['n'] ?? 0);
    if (this.#files >= 0 && Math.abs(files - this.#files) <= this.#files / 10) return;
    this.#files = files;
    this.#classes.clear();
    this.#learn();
  }

  classOf(path: string): PathClass | undefined {
    if (!this.#classes.has(path)) this.#classes.set(path, this.#computed(path));
    return this.#classes.get(path);
  }

  /** Factor on the score of this file's chunks. */
  factor(path: string, query: Query): number {
    const own = this.classOf(path);
    if (own === undefined) return 1;
    const asked = query.wants.has(own) || (own === 'test' && query.relation === 'tests');
    const named = nameable.has(own) && namesFolderOf(path, query);
    if (own === 'data' && namesLanguageOf(path, query)) return ofNamedLanguage;
    return factors[own][asked || named ? 'lifted' : 'usual'];
  }

  #computed(path: string): PathClass | undefined {
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1);
    const stem = name.replace(/\.[^.]*$/, '');
    const lower = name.toLowerCase();
    const folders = path.slice(0, Math.max(0, slash)).toLowerCase().split('/');
    const isSource = grammarOf(path) !== undefined;
    const kind = this.#kinds.get(path) ?? '';
    if (licenceName.test(lower) && !isSource) return 'changelog';
    if (folders.some((part) => vendoredPart.test(part)) || this.#foreign.some((root) => path.startsWith(root))) {
      return 'vendored';
    }
    if (kind === 'generated' || folders.some((part) => builtPart.test(part)) || builtName.test(lower)) return 'built';
    if (kind === 'table' || this.#isTranslation(path, stem)) return 'data';
    if (kind === 'test' || this.#isAmongTests(path, folders) || hasTestName(stem)) return 'test';
    if (folders.some((part) => examplePart.test(part))) return 'example';
    if (!isSource && (kind === 'changes' || changelogName.test(lower) || this.#isOfVersion(path, stem))) {
      return 'changelog';
    }
    if (documentEnding.test(lower)) return 'document';
    if (dataEnding.test(lower) || [...folders, lower].some((part) => hiddenPart.test(part))) return 'data';
    return isSource && this.#isAmongDocuments(path) ? 'example' : undefined;
  }

  #isTranslation(path: string, stem: string): boolean {
    if (isLanguage(stem)) return this.#areAlike(path, 'languages');
    const original = originalOf(path);
    return original !== undefined && this.#originals.has(original);
  }

  #isOfVersion(path: string, stem: string): boolean {
    return versionName.test(stem) && this.#areAlike(path, 'versions');
  }

  #areAlike(path: string, by: 'languages' | 'versions'): boolean {
    const folder = this.#folders.get(path.slice(0, Math.max(0, path.lastIndexOf('/'))));
    return folder !== undefined && folder[by] >= Math.max(leastAlike, alikeShare * folder.files);
  }

  /**
   * Decided by the outermost conclusive folder: one with a test name, unless it has hardly any tests, or one with
   * little else.
   */
  #isAmongTests(path: string, folders: readonly string[]): boolean {
    return outermost(path).some((folder, at) => {
      const { sources = 0, tests = 0 } = this.#folders.get(folder) ?? {};
      if (sources < leastSources) return testPart.test(folders[at] ?? '');
      return testPart.test(folders[at] ?? '') ? tests >= hardlyShare * sources : tests >= testShare * sources;
    });
  }

  #isAmongDocuments(path: string): boolean {
    return outermost(path).some((folder) => {
      const { sources = 0, documents = 0 } = this.#folders.get(folder) ?? {};
      return documents >= leastSources && documents >= documentShare * (documents + sources);
    });
  }

  #learn(): void {
    this.#folders = new Map();
    this.#kinds.clear();
    const licences: { path: string; digest: string }[] = [];
    const translated = new Set<string>();
    const documents = new Set<string>();
    let sources = 0;
    for (const row of this.#database.prepare('SELECT path, digest, content FROM files').iterate()) {
      const path = String(row['path']);
      const kind = contentKinds.find((own) => own === row['content']) ?? '';
      if (kind !== '') this.#kinds.set(path, kind);
      if (documentEnding.test(path)) documents.add(path);
      const original = originalOf(path);
      if (original !== undefined) translated.add(original);
      sources += Number(this.#count(path, kind));
      const name = path.slice(path.lastIndexOf('/') + 1).toLowerCase();
      if (licenceName.test(name) && grammarOf(path) === undefined)
        licences.push({ path, digest: String(row['digest']) });
    }
    this.#originals = new Set([...translated].filter((path) => documents.has(path)));
    this.#foreign = this.#foreignIn(licences, sources);
  }

  #foreignIn(licences: readonly { readonly path: string; readonly digest: string }[], sources: number): string[] {
    const copies = new Map<string, number>();
    for (const { digest } of licences) copies.set(digest, (copies.get(digest) ?? 0) + 1);
    const own = new Set(licences.filter(({ path }) => !path.includes('/')).map(({ digest }) => digest));
    const folders = licences
      .filter(({ path, digest }) => own.size > 0 && path.includes('/') && !own.has(digest))
      .filter(({ digest }) => (copies.get(digest) ?? 0) < leastMembers)
      .map(({ path }) => path.slice(0, path.lastIndexOf('/')));
    const isSmall = (folder: string): boolean => (this.#folders.get(folder)?.sources ?? 0) <= foreignShare * sources;
    return folders.filter(isSmall).map((folder) => `${folder}/`);
  }

  /** Returns whether it is a source. */
  #count(path: string, kind: ContentKind): boolean {
    const name = path.slice(path.lastIndexOf('/') + 1);
    const stem = name.replace(/\.[^.]*$/, '');
    const isDocument = documentEnding.test(name.toLowerCase());
    const isSource = grammarOf(path) !== undefined && !isDocument && !dataEnding.test(name.toLowerCase());
    const isTest = isSource && (kind === 'test' || hasTestName(stem));
    const folders = outermost(path);
    for (const [at, folder] of folders.entries()) {
      const counts = this.#folders.get(folder) ?? emptyFolder();
      this.#folders.set(folder, counts);
      counts.sources += Number(isSource);
      counts.tests += Number(isTest);
      counts.documents += Number(isDocument);
      if (at < folders.length - 1) continue;
      counts.files++;
      counts.languages += Number(isLanguage(stem));
      counts.versions += Number(versionName.test(stem));
    }
    return isSource;
  }
}

const contentKinds: readonly ContentKind[] = ['test', 'generated', 'table', 'changes'];
const emptyFolder = (): Folder => ({ sources: 0, tests: 0, documents: 0, files: 0, languages: 0, versions: 0 });
const languageNames = new Intl.DisplayNames(['en'], { type: 'language', fallback: 'none' });

/** The language's name in English; undefined if there is no such language. */
function languageOf(tag: string): string | undefined {
  try {
    return languageNames.of(tag.replaceAll('_', '-'));
  } catch (error) {
    // `a-b-c` with two regions is no tag at all.
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
const isLanguage = (stem: string): boolean => languageTag.test(stem) && languageOf(stem) !== undefined;

/** `README.md` for `README.pt-br.md`. The caller checks whether that file exists. */
function originalOf(path: string): string | undefined {
  const [, original = '', ending = ''] = /^(.*?)[._-][A-Za-z]{2}(?:[-_][A-Za-z]{2,4})?(\.\w+)$/.exec(path) ?? [];
  return documentEnding.test(ending) ? original + ending : undefined;
}
const hasTestName = (stem: string): boolean => testName.test(stem.toLowerCase()) || testCamelName.test(stem);

/** The folders of a path, outermost first: `a` and `a/b` for `a/b/c.ts`. */
function outermost(path: string): string[] {
  const folders: string[] = [];
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) folders.push(path.slice(0, at));
  return folders;
}

/** `the German README` asks for `README.de.md`. */
function namesLanguageOf(path: string, { text }: Query): boolean {
  const tag = /[._-]([A-Za-z]{2})(?:[-_][A-Za-z]{2,4})?\.\w+$/.exec(path)?.[1];
  const language = tag === undefined ? undefined : languageOf(tag)?.toLowerCase();
  return language !== undefined && text.toLowerCase().includes(language);
}

/** Whether the question names the path's folder or file. */
function namesFolderOf(path: string, { text }: Query): boolean {
  const words = new Set(text.toLowerCase().match(/[\p{L}\p{N}_.-]{4,}/gu) ?? []);
  const parts = path.toLowerCase().split('/');
  return parts.some((part, at) => !testPart.test(part) && words.has(part) && (at > 0 || parts.length > 1));
}
