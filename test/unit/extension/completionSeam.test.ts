/** What the user sees of a completion, from the extension's provider and the engine's completion with a scripted model. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { grammarOf } from '../../../engine/index/syntax/grammars.ts';
import { withTree } from '../../../engine/index/syntax/source.ts';
import { type CompleteParams, completeParams } from '../../../engine/protocol/engineProtocol.ts';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { greedy } from '../../../engine/sampling/sampler.ts';
import { complete } from '../../../engine/tasks/complete.ts';
import { CompletionProvider } from '../../../extension/completion/provider.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { replying, schedulerOf } from '../scheduler/setUp.ts';
import { type BlockPlace, blockLanguages, blockPlace } from './blocks.ts';
import { log } from './support.ts';
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
  const provider = new CompletionProvider({ current: client } as never, log, context, () => {});
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
  it.each(blockLanguages)('leaves a file that parses parsing: generated blocks in %s', async (languageId) => {
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

beforeAll(async () => {
  // Loads the grammars once.
  for (const languageId of blockLanguages) await parses(blockPlace(languageId, seededRandom(1)).path, '');
});
