import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { getL10nJson } from '@vscode/l10n-dev';
import type { Node, SourceFile } from 'typescript/unstable/ast';
import {
  isArrowFunction,
  isBinaryExpression,
  isCallExpression,
  isClassDeclaration,
  isElementAccessExpression,
  isFunctionDeclaration,
  isImportDeclaration,
  isMethodDeclaration,
  isNewExpression,
  isNoSubstitutionTemplateLiteral,
  isPropertyAssignment,
  isStringLiteral,
  isTemplateExpression,
  isTypeNode,
  isVariableDeclaration,
} from 'typescript/unstable/ast/is';
import { API } from 'typescript/unstable/sync';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { temporaryFolder } from '../temporaryFolder.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const languages = ['de', 'es', 'fr', 'ja', 'zh-cn'];
const bundle = z.record(z.string(), z.string());
const read = (name: string): Record<string, string> => bundle.parse(JSON.parse(readFileSync(join(root, name), 'utf8')));

/** The extension's texts in English, as VS Code's own tool finds them. */
async function sourceTexts(): Promise<Record<string, string>> {
  const sources = readdirSync(join(root, 'extension'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .sort()
    .map((name) => ({ extension: '.ts', contents: readFileSync(join(root, 'extension', name), 'utf8') }));
  return Object.fromEntries(Object.keys(await getL10nJson(sources)).map((text) => [text, text]));
}

/** Parts that a translation must repeat: placeholders, quoted names, addresses, settings, commands and code. */
const fixedParts = /\{\d+\}|`[^`]+`|"[\w.]+"|\]\([^)]+\)|\*\*|\n|https?:\/\/[\w./-]+[\w/]|hearth\.\w+|@\w+:/g;
const fixed = (text: string): string[] => [...(text.match(fixedParts) ?? [])].sort();

/** Entries whose fixed parts differ from those of the English text, or that are empty. */
const wrong = (english: Record<string, string>, translated: Record<string, string>): string[] =>
  Object.entries(translated)
    .filter(([key, text]) => {
      const source = english[key] ?? '';
      return text.trim() === '' || JSON.stringify(fixed(source)) !== JSON.stringify(fixed(text));
    })
    .map(([key, text]) => `${key} → ${text}`);

/** More than a few words that equal the English text were forgotten, not translated. */
const forgotten = (english: Record<string, string>, translated: Record<string, string>): string[] =>
  Object.keys(translated).filter(
    (key) => translated[key] === english[key] && /\p{L}{2,} \p{L}+ \p{L}/u.test(english[key] ?? ''),
  );

const texts = sourceTexts();

describe.each(languages)('the texts in %s', (language) => {
  it('are complete, with the same placeholders', async () => {
    const english = await texts;
    const translated = read(`l10n/bundle.l10n.${language}.json`);
    expect(
      Object.keys(english).filter((text) => !(text in translated)),
      'missing',
    ).toEqual([]);
    expect(
      Object.keys(translated).filter((text) => !(text in english)),
      'superfluous',
    ).toEqual([]);
    expect(wrong(english, translated)).toEqual([]);
    expect(forgotten(english, translated)).toEqual([]);
  });

  it('cover package.json, with the same commands and code', () => {
    const english = read('package.nls.json');
    const translated = read(`package.nls.${language}.json`);
    expect(Object.keys(translated)).toEqual(Object.keys(english));
    expect(wrong(english, translated)).toEqual([]);
    expect(forgotten(english, translated)).toEqual([]);
  });

  it('name commands like the menus do', () => {
    const english = read('package.nls.json');
    const translated = read(`package.nls.${language}.json`);
    const named = Object.entries(english).flatMap(([key, text]) =>
      [...text.matchAll(/\*Hearth: ([^*]+)\*/g)].map(([, title]) => ({ key, title })),
    );
    expect(named.length).toBeGreaterThan(2);
    for (const { key, title } of named) {
      const command = Object.keys(english).find((each) => each.startsWith('command.') && english[each] === title);
      expect(translated[key]).toContain(translated[command ?? ''] ?? 'no such command');
    }
  });
});

it('package.nls.json has not changed since it was translated', () => {
  // A key stays when its text changes. Translate the new text, then copy package.nls.json over the fixture.
  expect(read('package.nls.json')).toEqual(read('test/fixtures/translated.nls.json'));
});

it('package.json uses exactly the texts of package.nls.json', () => {
  const named = readFileSync(join(root, 'package.json'), 'utf8').matchAll(/"%([\w.]+)%"/g);
  expect([...new Set([...named].map(([, key]) => key))].sort()).toEqual(Object.keys(read('package.nls.json')).sort());
});

// ---- Words in the source that no translation reaches ----

/** Declarations whose English no user reads, by file. */
const notShown: Readonly<Record<string, readonly string[]>> = {
  // Prompts, and descriptions of tools for the model.
  'extension/chat/conversation.ts': ['system', 'pathsRule', 'ruleTitle', 'question'],
  'extension/agent/agent.ts': ['#run', 'instructions'],
  'extension/agent/tools.ts': [
    'agentTools',
    'path',
    'propose',
    'inside',
    'source',
    'replaced',
    'readLines',
    'findText',
  ],
  'extension/terminal.ts': ['failureText', 'flawOf', 'runInTerminal'],
  'extension/rename.ts': ['messagesFor'],
  'extension/review/reviews.ts': ['system', 'reviewMessages'],
  'extension/describe.ts': ['commitQuestion', 'pullRequestSystem', 'pullRequestMessages'],
  'extension/edits/inPlace.ts': ['system', 'messagesOf'],
  'extension/languageModel/participant.ts': ['summarise'],
  'extension/languageModel/toolLoop.ts': ['dataText', 'resultOf', 'checkedCall', 'misfitOf'],
  // Syntax of programs.
  'extension/chat/citations.ts': ['bareNames', 'endings'],
  'extension/nextEdit/pattern.ts': ['keywords'],
  'media/decorations.ts': ['shells'],
  // The page's and the diagrams' frames, and an error as Mermaid's own, which are English.
  'extension/chat/html.ts': ['chatPage'],
  'media/diagram.ts': ['frameStart'],
  'media/diagrams.ts': ['sized'],
  // Names of processes in the log, how one ended, why windows have an engine each, and an invariant.
  'extension/client/process.ts': ['engineRole'],
  'extension/client/connection.ts': ['endOf'],
  'extension/client/sharedEngine.ts': ['sharedFolder', 'makePrivate', 'joinEngine', 'start', '#whenEnded'],
  'extension/repository/indexClient.ts': ['IndexClient'],
  'extension/settings.ts': ['read'],
};

/** Calls whose texts stay English: the log, errors that stand for a cancellation, selectors and keys of the page. */
const unseen = /(^|[.#])log(\.\w+)?$|\.(querySelector|querySelectorAll|closest|matches)$|\.classList\.\w+$|#report$/;
/** Properties whose value a user reads or hears; elsewhere a single lower-case word may be a key. */
const shown =
  /^(title|label|detail|description|placeHolder|placeholder|prompt|tooltip|text|textContent|alt|aria-label|message|note)$/;
const showing = /\.(show(Information|Warning|Error)Message|setStatusBarMessage|progress)$|^textButton$/;

interface Place {
  readonly declaration: string;
  /** Within a call or property that shows its text. */
  readonly isShown: boolean;
}

class SourceReader {
  readonly #file: SourceFile;
  readonly #exempt: readonly string[];
  readonly found: string[] = [];

  constructor(file: SourceFile, exempt: readonly string[]) {
    this.#file = file;
    this.#exempt = exempt;
    this.#visit(file, { declaration: '', isShown: false });
  }

  #visit(node: Node, place: Place): void {
    const declaration = this.#declared(node) ?? place.declaration;
    if (this.#isUnseen(node) || this.#exempt.includes(declaration)) return;
    if (isStringLiteral(node) || isNoSubstitutionTemplateLiteral(node) || isTemplateExpression(node)) {
      const text = this.#words(node);
      if (readsAsWords(text) || (place.isShown && /\p{L}{2}/u.test(text))) this.found.push(text);
    }
    // Arguments of other calls are words of those.
    const isShown = this.#shows(node) || (place.isShown && !isArrowFunction(node) && !isCallExpression(node));
    const inner = { declaration, isShown };
    if (isPropertyAssignment(node)) this.#visit(node.initializer, inner);
    else if (isElementAccessExpression(node)) this.#visit(node.expression, inner);
    else node.forEachChild((child) => this.#visit(child, inner));
  }

  #text(node: Node): string {
    return node.getText(this.#file);
  }

  #declared(node: Node): string | undefined {
    const isNamed =
      isFunctionDeclaration(node) ||
      isMethodDeclaration(node) ||
      isVariableDeclaration(node) ||
      isClassDeclaration(node);
    return isNamed && node.name !== undefined ? this.#text(node.name) : undefined;
  }

  #isUnseen(node: Node): boolean {
    if (isTypeNode(node) || isImportDeclaration(node)) return true;
    if (isCallExpression(node))
      return /\bl10n\.t$/.test(this.#text(node.expression)) || unseen.test(this.#text(node.expression));
    if (isNewExpression(node)) return /^EngineFailure\(\s*'cancelled'/.test(this.#text(node).replace(/^new\s+/, ''));
    // Keys of the keyboard, of events and of records are compared.
    if (isBinaryExpression(node)) {
      return /^[!=]==$/.test(this.#text(node.operatorToken)) || /\.className$/.test(this.#text(node.left));
    }
    return isPropertyAssignment(node) && this.#text(node.name) === 'class';
  }

  #shows(node: Node): boolean {
    if (isCallExpression(node)) return showing.test(this.#text(node.expression));
    if (isPropertyAssignment(node)) return shown.test(this.#text(node.name).replaceAll("'", ''));
    if (!isBinaryExpression(node) || this.#text(node.operatorToken) !== '=') return false;
    return shown.test(/\w+$/.exec(this.#text(node.left))?.[0] ?? '');
  }

  /** The literal's own words, without icons, tags, expressions, addresses and names that stay. */
  #words(node: Node): string {
    return this.#text(node)
      .slice(1, -1)
      .replace(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, ' ')
      .replace(/\$\([\w~-]+\)|<[^>]*>|\S+\/\S+|\b(Hearth|GGUF)\b/g, ' ')
      .trim();
  }
}

const readsAsWords = (text: string): boolean => /\p{L}{2,}[,.:;!?]? +\p{L}|^\P{L}*\p{Lu}\p{Ll}+(?!\w)/u.test(text);

/** Literals of the files of a project that a user may see and that do not go through `l10n`. */
function untranslated(folder: string, exempt: Readonly<Record<string, readonly string[]>>): string[] {
  const api = new API({ cwd: folder });
  try {
    return ['extension', 'media'].flatMap((name) => {
      const config = join(folder, name, 'tsconfig.json');
      const project = api.updateSnapshot({ openProjects: [config] }).getProject(config);
      if (project === undefined) throw new Error(`${config} is no project.`);
      return project.rootFiles
        .filter((path) => path.startsWith(join(folder, name)))
        .flatMap((path) => {
          const file = project.program.getSourceFile(path);
          if (file === undefined) throw new Error(`${path} was not read.`);
          const own = relative(folder, path);
          return new SourceReader(file, exempt[own] ?? []).found.map((text) => `${own}: ${text}`);
        });
    });
  } finally {
    api.close();
  }
}

describe('the source of extension and page', () => {
  it('shows no text without l10n', () => {
    expect(untranslated(root.replace(/\/$/, ''), notShown)).toEqual([]);
  });

  it('would fail this test if it did', () => {
    const folder = temporaryFolder();
    const project = (name: string, source: string) => {
      mkdirSync(join(folder, name));
      writeFileSync(join(folder, name, 'tsconfig.json'), JSON.stringify({ include: ['*.ts'] }));
      writeFileSync(join(folder, name, 'planted.ts'), source);
    };
    project(
      'extension',
      `import * as vscode from 'vscode';
      const log = { info(line: string) { return line; } };
      log.info('A line of the log.');
      vscode.window.showInformationMessage('Planted message');
      vscode.window.showErrorMessage(vscode.l10n.t('Translated message'), 'again');
      const item = { title: vscode.l10n.t('Title'), description: 'lower', command: 'hearth.do' };
      item.title = \`$(check) Chosen \${vscode.l10n.t('Title')}\`;
      const prompt = () => 'Answer as a poet.';
      if (item.command === 'Enter') throw new Error('Planted failure');
      const name = (key: string) => key + ' of the planted';`,
    );
    project(
      'media',
      `const made = document.createElement('p');
      made.textContent = 'planted';
      made.className = 'some classes of it';
      made.setAttribute('aria-label', 'Planted label');
      document.querySelector('button, a[href]');`,
    );
    expect(untranslated(folder, { 'extension/planted.ts': ['prompt'] })).toEqual([
      'extension/planted.ts: Planted message',
      'extension/planted.ts: again',
      'extension/planted.ts: lower',
      'extension/planted.ts: Chosen',
      'extension/planted.ts: Planted failure',
      'extension/planted.ts: of the planted',
      'media/planted.ts: planted',
      'media/planted.ts: Planted label',
    ]);
  });
});
