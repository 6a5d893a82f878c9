import { afterEach, describe, expect, it } from 'vitest';
import { CompletionContext } from '../../../extension/completion/context.ts';
import type { RepositoryIndex } from '../../../extension/repository/repositoryIndex.ts';
import { log } from './support.ts';
import { commands, events, Position, Range, Uri, user, workspace } from './vscode.ts';

interface Passage {
  path: string;
  text: string;
}

/** A partial document that can be opened by its URI. */
function documentOf(name: string, text: string, scheme = 'file') {
  const lines = text.split('\n');
  const uri = Object.assign(Uri.parse(`${scheme}:///${name}`), { scheme });
  const document = { uri, lineCount: lines.length, lineAt: (line: number) => ({ text: lines[line] ?? '' }) };
  workspace.documents.set(uri.toString(), document);
  return document;
}

type Document = ReturnType<typeof documentOf>;

const contexts: CompletionContext[] = [];
/** `search`: the index's results, and when they arrive. */
function setUp(search: (around: string, limit: number) => Promise<Passage[]> = () => Promise.resolve([])) {
  const context = new CompletionContext({ search } as unknown as RepositoryIndex, log);
  contexts.push(context);
  const snippets = (document: Document, line: number, maxChars = 10_000) =>
    context.snippets(document as never, new Position(line, 0) as never, maxChars);
  /** A pause in typing; `isRead`: the engine prefilled the prompt with the new snippets. */
  const pause = (document: Document, line: number, isRead = true) =>
    context.refresh(document as never, new Position(line, 0) as never, 10_000, async () => isRead);
  return { snippets, pause };
}

const visit = (document: Document) => events.activeEditor.fire({ document } as never);
const edit = (document: Document, line: number) =>
  events.document.fire({ document, contentChanges: [{ range: { start: { line } } }] } as never);
/** Sets the result of Go to Definition for any name. */
const defines = (find: (uri: Uri, position: Position) => unknown) =>
  commands.answers.set('vscode.executeDefinitionProvider', (uri, position) => find(uri as Uri, position as Position));

const likeWords = 'const order = shop.place(customer, basket, voucher);';

afterEach(() => {
  for (const context of contexts.splice(0)) context.dispose();
  commands.answers.clear();
  workspace.documents.clear();
  user.reset();
});

describe('the context of a completion', () => {
  it('contains definitions from other files of names at the cursor', async () => {
    const other = documentOf('shop.ts', 'first\nfunction place() {\n  return 1;\n}\n\nlast\nbeyond');
    const own = documentOf('a.ts', 'const x = place();');
    defines((_, { character }) =>
      character === 10 ? [{ uri: other.uri, range: new Range(new Position(1, 0), new Position(3, 1)) }] : [],
    );
    expect(await setUp().snippets(own, 0)).toEqual([
      { path: 'shop.ts', text: 'function place() {\n  return 1;\n}\n\nlast' },
    ]);
  });

  it('reads definitions given as links, and leaves out those of the same file', async () => {
    const other = documentOf('shop.ts', 'place');
    const own = documentOf('a.ts', 'place\nbasket');
    const start = new Range(new Position(0, 0), new Position(0, 5));
    defines((_, { line }) =>
      line === 0 ? [{ targetUri: other.uri, targetRange: start }] : [{ uri: own.uri, range: start }],
    );
    expect(await setUp().snippets(own, 1)).toEqual([{ path: 'shop.ts', text: 'place' }]);
  });

  it('contains chunks of visited files that share words with the lines at the cursor', async () => {
    const { snippets } = setUp();
    const own = documentOf('a.ts', likeWords);
    for (const document of [documentOf('like.ts', likeWords), documentOf('unlike.ts', 'zebra'), own]) visit(document);
    visit(documentOf('log', likeWords, 'output'));
    expect(await snippets(own, 0)).toEqual([{ path: 'like.ts', text: likeWords }]);
  });

  it('contains stretches of the file itself that the prompt lacks, never the lines at the cursor', async () => {
    const far = Array.from({ length: 40 }, (_, i) => (i === 30 ? likeWords : `other${i} = ${i}`));
    const [found, ...others] = await setUp().snippets(documentOf('a.ts', [likeWords, ...far].join('\n')), 0);
    expect(found?.path).toBe('a.ts');
    expect(found?.text.split('\n')).toEqual(far.slice(30));
    expect(others).toEqual([]);
  });

  it('contains other files also where the index finds the open file three times first', async () => {
    const passages = ['a.ts', 'a.ts', 'a.ts', 'b.ts', 'c.ts'].map((path, i) => ({ path, text: `found ${i}` }));
    const asked: number[] = [];
    const context = setUp((_, limit) => {
      asked.push(limit);
      return Promise.resolve(passages.slice(0, limit));
    });
    const found = await context.snippets(documentOf('a.ts', 'cursor'), 0);
    expect(found.map(({ path }) => path)).toEqual(['b.ts', 'c.ts']);
    expect(asked).toEqual([6]);
  });

  it('contains recent edits in other files, each chunk once', async () => {
    const { snippets } = setUp();
    const lines = Array.from({ length: 60 }, (_, i) => `line ${i}`);
    const other = documentOf('other.ts', lines.join('\n'));
    const own = documentOf('a.ts', 'x');
    for (const line of [31, 32, 33]) edit(other, line);
    edit(own, 0);
    expect(await snippets(own, 0)).toEqual([{ path: 'other.ts', text: lines.slice(28, 39).join('\n') }]);
  });

  it('contains what the index finds for the lines at the cursor, except in the file itself', async () => {
    const asked: string[] = [];
    const { snippets } = setUp((around) => {
      asked.push(around);
      return Promise.resolve([
        { path: 'a.ts', text: 'own' },
        { path: 'b.ts', text: 'found' },
      ]);
    });
    expect(await snippets(documentOf('a.ts', 'above\ncursor\nbelow'), 1)).toEqual([{ path: 'b.ts', text: 'found' }]);
    expect(asked).toEqual(['above\ncursor\nbelow']);
  });

  it('stays while keys are typed, and changes after a pause in which the engine prefilled it', async () => {
    let searches = 0;
    const { snippets, pause } = setUp(() => {
      searches += 1;
      return Promise.resolve([{ path: 'b.ts', text: `found ${searches}` }]);
    });
    const own = documentOf('a.ts', 'one\ntwo');
    await snippets(own, 0);
    expect(await snippets(own, 1)).toEqual([{ path: 'b.ts', text: 'found 1' }]);
    await pause(own, 1, false);
    expect(await snippets(own, 1)).toEqual([{ path: 'b.ts', text: 'found 1' }]);
    await pause(own, 1);
    expect(await snippets(own, 0)).toEqual([{ path: 'b.ts', text: 'found 3' }]);
  });

  it('is kept for each file, so that returning to a file hits the prefix cache', async () => {
    const { snippets } = setUp((around) => Promise.resolve([{ path: 'b.ts', text: `for ${around}` }]));
    const [first, second] = [documentOf('one.ts', 'one'), documentOf('two.ts', 'two')];
    await snippets(first, 0);
    expect(await snippets(second, 0)).toEqual([{ path: 'b.ts', text: 'for two' }]);
    expect(await snippets(first, 0)).toEqual([{ path: 'b.ts', text: 'for one' }]);
  });

  it("keeps known snippets in place and appends new ones, so the prompt's prefix stays the same", async () => {
    const answers: Passage[][] = [
      [
        { path: 'b.ts', text: 'b' },
        { path: 'c.ts', text: 'c' },
      ],
      [
        { path: 'd.ts', text: 'd' },
        { path: 'c.ts', text: 'c' },
      ],
    ];
    const { snippets, pause } = setUp(() => Promise.resolve(answers.shift() ?? []));
    const own = documentOf('a.ts', 'one\ntwo');
    await snippets(own, 0);
    await pause(own, 1);
    expect((await snippets(own, 1)).map(({ path }) => path)).toEqual(['c.ts', 'd.ts']);
  });

  it('respects the limit on characters', async () => {
    const { snippets } = setUp(() =>
      Promise.resolve([
        { path: 'b.ts', text: 'x'.repeat(80) },
        { path: 'c.ts', text: 'y'.repeat(80) },
      ]),
    );
    expect((await snippets(documentOf('a.ts', 'one'), 0, 100)).map(({ path }) => path)).toEqual(['b.ts']);
  });

  it('is not awaited past the deadline; late results serve the next key', async () => {
    let answer: (passages: Passage[]) => void = () => {};
    const late = new Promise<Passage[]>((resolve) => {
      answer = resolve;
    });
    const { snippets } = setUp(() => late);
    const own = documentOf('a.ts', 'one');
    expect(await snippets(own, 0)).toEqual([]);
    answer([{ path: 'b.ts', text: 'late' }]);
    await expect.poll(() => snippets(own, 0)).toEqual([{ path: 'b.ts', text: 'late' }]);
  });

  it('skips definitions of a slow language extension', async () => {
    defines(() => new Promise(() => {}));
    const { snippets } = setUp(() => Promise.resolve([{ path: 'b.ts', text: 'found' }]));
    const own = documentOf('a.ts', 'place');
    await snippets(own, 0);
    await expect.poll(() => snippets(own, 0)).toEqual([{ path: 'b.ts', text: 'found' }]);
  });

  it('keeps the previous snippets if gathering fails', async () => {
    let fails = false;
    const { snippets, pause } = setUp(() =>
      fails ? Promise.reject(new Error('gone')) : Promise.resolve([{ path: 'b.ts', text: 'found' }]),
    );
    const own = documentOf('a.ts', 'one\ntwo');
    await snippets(own, 0);
    fails = true;
    await expect(pause(own, 1)).rejects.toThrow('gone');
    expect(await snippets(own, 1)).toEqual([{ path: 'b.ts', text: 'found' }]);
  });
});
