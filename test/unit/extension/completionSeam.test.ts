// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the strings are sources
/** The completion that the user sees, through the extension's provider and the engine's completion with a scripted model. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { greedy } from '../../../engine/backend/sampler.ts';
import { grammarOf } from '../../../engine/index/syntax/grammars.ts';
import { withTree } from '../../../engine/index/syntax/source.ts';
import { type CompleteParams, completeParams } from '../../../engine/protocol/engineProtocol.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { complete } from '../../../engine/tasks/complete.ts';
import { CompletionProvider } from '../../../extension/completion/provider.ts';
import { Acceptance } from '../../../extension/completion/suggestions.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { replying, schedulerOf } from '../scheduler/setUp.ts';
import { type BlockPlace, blockLanguages, blockPlace } from './blocks.ts';
import { log, MemoryMemento } from './support.ts';
import { CancellationTokenSource, InlineCompletionTriggerKind, Position, settings } from './vscode.ts';

const framing = ['<P>', '<S>', '<M>', '<end>'];
const names = new ByteTokenizer({ framing });
const markers = { prefix: names.require('<P>'), suffix: names.require('<S>'), middle: names.require('<M>') };
const tokenizer = new ByteTokenizer({
  framing,
  end: ['<end>'],
  fillInTheMiddle: { ...markers, order: 'prefix-suffix-middle' },
});

interface Place extends Pick<BlockPlace, 'path' | 'languageId' | 'prefix' | 'suffix'> {
  readonly written: string;
}

/** The text of the first suggestion. */
async function shownAt({ path, languageId, prefix, suffix, written }: Place): Promise<string> {
  const { decoder } = replying(tokenizer, () => [...Buffer.from(written), tokenizer.require('<end>')]);
  const scheduler = schedulerOf(decoder);
  const client = {
    completionModel: { id: 'scripted', fillInTheMiddle: true },
    complete: (params: CompleteParams) => {
      const request = { ...completeParams.parse(params), stopStrings: [], sampling: greedy, random: Math.random };
      return complete(scheduler, tokenizer, 4096, request);
    },
  };
  const context = { snippets: async () => [], refresh: async () => {} };
  const provider = new CompletionProvider(
    { current: client } as never,
    log,
    context,
    new Acceptance(new MemoryMemento()),
    async () => {},
  );
  const lines = (prefix + suffix).split('\n');
  const document = {
    languageId,
    lineCount: lines.length,
    lineAt: (line: number) => ({ text: lines[line] ?? '' }),
    uri: { scheme: 'file', path: `/${path}`, fsPath: `/${path}`, toString: () => `file:///${path}` },
  };
  const before = prefix.split('\n');
  const items = await provider.provideInlineCompletionItems(
    document as never,
    new Position(before.length - 1, before.at(-1)?.length ?? 0) as never,
    { triggerKind: InlineCompletionTriggerKind.Automatic, selectedCompletionInfo: undefined } as never,
    new CancellationTokenSource().token as never,
  );
  return String(items[0]?.insertText ?? '');
}

async function parses(path: string, text: string): Promise<boolean> {
  const grammar = grammarOf(path);
  if (!grammar) throw new Error(`No grammar reads ${path}.`);
  return withTree(grammar, text, (root) => !root.hasError);
}

beforeEach(() => {
  // A token of this vocabulary is one byte.
  settings.set('hearth.completion.maxTokens', 1024);
  settings.set('hearth.completion.debounce', 0);
});

const placesALanguage = 63;

describe('a shown suggestion', () => {
  it.each(blockLanguages)('never breaks a file that parses: generated blocks in %s', async (languageId) => {
    const random = seededRandom(11);
    const wrong: object[] = [];
    for (let i = 0; i < placesALanguage; i++) {
      const place = blockPlace(languageId, random);
      const shown = await shownAt(place);
      const file = place.prefix + shown + place.suffix;
      // Twenty-four lines are shown at most.
      const isRight = shown === place.truth.trimEnd() && (await parses(place.path, file));
      if (!isRight) wrong.push({ ...place, shown });
    }
    expect(wrong).toEqual([]);
  });

  it('contains the bracket that the file lacks', async () => {
    const place = { path: 'a.ts', languageId: 'typescript', prefix: 'function f(a) {\n  if (a) {', suffix: '\n}\n' };
    expect(await shownAt({ ...place, written: '\n    return 1;\n  }' })).toBe('\n    return 1;\n  }');
  });
});

interface StringSyntax {
  readonly languageId: string;
  readonly path: string;
  readonly start: string;
  readonly code: readonly [string, string];
  readonly end: string;
  /** Another complete string of this kind. */
  readonly other: string;
  readonly frame: readonly [string, string];
  /** Text must begin on a line of its own. */
  readonly isHeredoc?: true;
}

const dollar = ['${', '}'] as const;
const stringSyntaxes: readonly StringSyntax[] = [
  {
    ...{ languageId: 'typescript', path: 'a.ts', start: 'const t = `', code: dollar, end: '`;' },
    ...{ other: 'const u = `${b}`;', frame: ['function f() {', '}'] },
  },
  {
    ...{ languageId: 'python', path: 'a.py', start: 't = f"""', code: ['{', '}'], end: '"""' },
    ...{ other: 'u = f"""{b}"""', frame: ['d = {1: 2}', 'e = {3: 4}'] },
  },
  {
    ...{ languageId: 'kotlin', path: 'a.kt', start: 'val t = """', code: dollar, end: '"""' },
    ...{ other: 'val u = """${b}"""', frame: ['fun f() {', '}'] },
  },
  {
    ...{ languageId: 'dart', path: 'a.dart', start: "var t = '''", code: dollar, end: "''';" },
    ...{ other: "var u = '''${b}''';", frame: ['void f() {', '}'] },
  },
  {
    ...{ languageId: 'ruby', path: 'a.rb', start: 't = "', code: ['#{', '}'], end: '"' },
    ...{ other: 'u = "#{b}"', frame: ['f {', '}'] },
  },
  {
    ...{ languageId: 'ruby', path: 'a.rb', start: 't = %Q(', code: ['#{', '}'], end: ')' },
    ...{ other: 'u = %Q(#{b})', frame: ['f {', '}'] },
  },
  {
    ...{ languageId: 'ruby', path: 'a.rb', start: 't = <<~TEXT', code: ['#{', '}'], end: 'TEXT', isHeredoc: true },
    ...{ other: 'u = "#{b}"', frame: ['f {', '}'] },
  },
  {
    ...{ languageId: 'swift', path: 'a.swift', start: 'let t = """', code: ['\\(', ')'], end: '"""' },
    ...{ other: 'let u = """\n\\(b)\n"""', frame: ['f(1, {', '})'] },
  },
  {
    ...{ languageId: 'csharp', path: 'a.cs', start: 'var t = $@"', code: ['{', '}'], end: '";' },
    ...{ other: 'var u = $@"{b}";', frame: ['class A { void F() {', '} }'] },
  },
  {
    ...{ languageId: 'csharp', path: 'a.cs', start: 'var t = $"""', code: ['{', '}'], end: '""";', isHeredoc: true },
    ...{ other: 'var u = $@"{b}";', frame: ['class A { void F() {', '} }'] },
  },
  {
    ...{ languageId: 'php', path: 'a.php', start: '$t = <<<TEXT', code: ['{$', '}'], end: 'TEXT;', isHeredoc: true },
    ...{ other: '$u = "{$b}";', frame: ['<?php function f() {', '}'] },
  },
  {
    ...{ languageId: 'php', path: 'a.php', start: '$t = "', code: ['{$', '}'], end: '";' },
    ...{ other: '$u = "{$b}";', frame: ['<?php function f() {', '}'] },
  },
  {
    ...{ languageId: 'shellscript', path: 'a.sh', start: 't="', code: ['$(', ')'], end: '"' },
    ...{ other: 'u="$(b)"', frame: ['(f', ')'] },
  },
  {
    ...{
      languageId: 'shellscript',
      path: 'a.sh',
      start: 'cat <<TEXT',
      code: ['$(', ')'],
      end: 'TEXT',
      isHeredoc: true,
    },
    ...{ other: 'u="$(b)"', frame: ['(f', ')'] },
  },
  {
    ...{ languageId: 'elixir', path: 'a.ex', start: 't = """', code: ['#{', '}'], end: '"""', isHeredoc: true },
    ...{ other: 'u = "#{b}"', frame: ['x = %{a: 1}', 'y = %{a: 1}'] },
  },
  {
    ...{ languageId: 'scala', path: 'a.scala', start: 'val t = s"""', code: dollar, end: '"""' },
    ...{ other: 'val u = s"""${b}"""', frame: ['def f() = {', '}'] },
  },
  {
    ...{ languageId: 'groovy', path: 'a.groovy', start: 'def t = """', code: dollar, end: '"""' },
    ...{ other: 'def u = """${b}"""', frame: ['def f() {', '}'] },
  },
  {
    ...{ languageId: 'powershell', path: 'a.ps1', start: '$t = "', code: ['$(', ')'], end: '"' },
    ...{ other: '$u = "$(b)"', frame: ['(f', ')'] },
  },
  {
    ...{ languageId: 'julia', path: 'a.jl', start: 't = """', code: ['$(', ')'], end: '"""' },
    ...{ other: 'u = """$(b)"""', frame: ['(f', ')'] },
  },
];

describe('code within a string of several lines', () => {
  /** With the cursor on the string's first line, and on a later one. */
  const places = stringSyntaxes.flatMap((syntax) => {
    const inFirst = { ...syntax, at: 'its first line', before: syntax.start };
    const inLater = { ...syntax, at: 'a later line', before: `${syntax.start}\nfirst ` };
    return syntax.isHeredoc ? [inLater] : [inFirst, inLater];
  });

  it.each(places)('is shown with the rest of a string that the file lacks: $languageId $start, $at', async (syntax) => {
    const { path, languageId, before, code, end, other, frame } = syntax;
    const truth = `name${code[1]}\nsecond ${code[0]}more${code[1]} text\n${end}`;
    const [prefix, suffix] = [`${frame[0]}\n${before}${code[0]}`, `\n${other}\n${frame[1]}\n`];
    expect(await shownAt({ path, languageId, prefix, suffix, written: truth + suffix })).toBe(truth);
  });

  it.each(places)('ends with its line where the file ends the string: $languageId $start, $at', async (syntax) => {
    const { path, languageId, before, code, end, other, frame } = syntax;
    const truth = `name${code[1]}`;
    const prefix = `${frame[0]}\n${before}${code[0]}`;
    const suffix = `\nsecond ${code[0]}more${code[1]} text\n${end}\n${other}\n${frame[1]}\n`;
    for (const after of [suffix, `\nanother line${suffix}`]) {
      expect(await shownAt({ path, languageId, prefix, suffix, written: truth + after })).toBe(truth);
    }
  });

  it.each(places)('leaves the rest of the line to the file: $languageId $start, $at', async (syntax) => {
    const { path, languageId, before, code, end, other, frame } = syntax;
    const prefix = `${frame[0]}\n${before}${code[0]}`;
    const suffix = `${code[1]} and\nsecond ${code[0]}more${code[1]} text\n${end}\n${other}\n${frame[1]}\n`;
    expect(await shownAt({ path, languageId, prefix, suffix, written: `name${suffix}` })).toBe('name');
  });
});

beforeAll(async () => {
  // Loads the grammars once.
  for (const languageId of blockLanguages) await parses(blockPlace(languageId, seededRandom(1)).path, '');
});
