import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { beforeEach, describe, expect, it } from 'vitest';
import { lineRange } from '../../../engine/index/question/planner.ts';
import { chatItems, conversationMarkdown } from '../../../extension/chat/chatList.ts';
import {
  apply,
  distinctLabels,
  emptyConversation,
  type JournalRecord,
  recordsUpTo,
  replay,
  titleOf,
} from '../../../extension/chat/conversation.ts';
import { Journal, parseJournal, readJournal } from '../../../extension/chat/journal.ts';
import { ChatStore } from '../../../extension/chat/store.ts';
import { changeJournal } from '../../fuzz/changedJournal.ts';
import { temporaryFolder } from '../temporaryFolder.ts';

let folder = '';
beforeEach(() => {
  folder = temporaryFolder();
});

const figures = { promptTokens: 9, cachedTokens: 4, generatedTokens: 2, timeToFirstTokenMs: 3, tokensPerSecond: 50 };
const ask = (turn: string, question = `question ${turn}`): JournalRecord => ({
  type: 'ask',
  turn,
  at: 5,
  kind: 'chat',
  question,
  attachments: [
    {
      id: 'file:a',
      label: 'a.ts',
      detail: '',
      tokens: 3,
      path: 'src/a.ts',
      languageId: 'typescript',
      text: 'let ä;\n',
      firstLine: 1,
    },
  ],
  omitted: [],
});
const text = (turn: string, piece: string): JournalRecord => ({ type: 'delta', turn, kind: 'text', text: piece });
const thought = (turn: string, piece: string): JournalRecord => ({
  type: 'delta',
  turn,
  kind: 'thinking',
  text: piece,
});
const done = (turn: string): JournalRecord => ({
  type: 'end',
  turn,
  outcome: { kind: 'done', reason: 'stop', figures, dropped: 0 },
});

const story: JournalRecord[] = [
  { type: 'chat', version: 1, id: 'c', at: 1 },
  ask('1', 'Wieso "funktioniert" das\nnicht? 🔥'),
  { type: 'begin', turn: '1', model: 'Small' },
  thought('1', 'Hm, '),
  thought('1', 'wait.'),
  text('1', 'Because of '),
  text('1', '`\\n` — 🔥.'),
  done('1'),
  ask('2'),
  text('2', 'Half an ans'),
];

const quiet = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} };

describe('a conversation replayed from its journal', () => {
  it('can be rebuilt up to a turn, without queued questions', () => {
    const step = { id: 's', title: 'Read a.ts', text: '', state: 'done', result: 'let ä;' } as const;
    const conversation = replay('c', [
      ...story,
      { type: 'step', turn: '1', step },
      { type: 'cited', turn: '1', citations: [], missing: ['gone.ts:1'] },
      { type: 'pin', mention: '@diff', isPinned: true },
      { ...ask('3'), queued: true } as JournalRecord,
    ]);
    const again = (turn: string) =>
      replay(
        'd',
        parseJournal(
          recordsUpTo(conversation, turn)
            .map((record) => JSON.stringify(record))
            .join('\n'),
        ).records,
      );
    expect(again('1')).toEqual({ ...conversation, id: 'd', turns: conversation.turns.slice(0, 1) });
    expect(again('2').turns).toEqual(conversation.turns.slice(0, 2));
  });

  it('has all turns, and marks an unfinished answer as interrupted', () => {
    const { turns } = replay('c', story);
    expect(turns.map(({ view }) => [view.question, view.thinking, view.answer, view.model, view.outcome.kind])).toEqual(
      [
        ['Wieso "funktioniert" das\nnicht? 🔥', 'Hm, wait.', 'Because of `\\n` — 🔥.', 'Small', 'done'],
        ['question 2', '', 'Half an ans', '', 'interrupted'],
      ],
    );
    expect(turns[0]?.view.chips).toEqual([{ id: 'file:a', label: 'a.ts', detail: '', tokens: 3 }]);
  });

  it('is the same if two windows wrote into one file', () => {
    const mixed = [story[0], story[1], ask('9'), story[2], text('9', 'other'), ...story.slice(3), done('9')];
    const [first, other] = replay('c', mixed as JournalRecord[]).turns;
    expect(first?.view.answer).toBe('Because of `\\n` — 🔥.');
    expect(other?.view.answer).toBe('other');
  });

  it('has the final text instead of the deltas', () => {
    const told = [ask('1'), text('1', ' draft'), { type: 'text', turn: '1', thinking: '', answer: 'Final.' }] as const;
    expect(replay('c', told as unknown as JournalRecord[]).turns[0]?.view.answer).toBe('Final.');
  });

  it('lacks a replaced turn', () => {
    expect(replay('c', [...story, { type: 'drop', turn: '2' }]).turns).toHaveLength(1);
  });

  it('ignores events of unknown turns', () => {
    expect(replay('c', [text('nobody', 'x'), done('nobody')]).turns).toEqual([]);
  });
});

describe('the journal', () => {
  const write = async (records: readonly JournalRecord[], path: string) => {
    const journal = new Journal(path, (error) => {
      throw error;
    });
    for (const record of records) journal.append(record);
    await journal.close();
  };

  it('reads back what was written', async () => {
    const path = join(folder, 'c.jsonl');
    await write(story, path);
    const read = await readJournal(path);
    expect(read?.skipped).toBe(0);
    expect(replay('c', read?.records ?? [])).toEqual(replay('c', story));
  });

  it('buffers deltas into fewer lines and keeps the order of events', async () => {
    const path = join(folder, 'c.jsonl');
    await write([ask('1'), text('1', 'a'), text('1', 'b'), thought('1', 'c'), text('1', 'd'), done('1')], path);
    const { records } = parseJournal(readFileSync(path, 'utf8'));
    expect(records.map((record) => (record.type === 'delta' ? `${record.kind} ${record.text}` : record.type))).toEqual([
      'ask',
      'text ab',
      'thinking c',
      'text d',
      'end',
    ]);
  });

  it('leaves out progress and token counts, which only the page needs', async () => {
    const path = join(folder, 'c.jsonl');
    const counted: JournalRecord = { type: 'delta', turn: '1', kind: 'text', text: 'a', tokens: 1 };
    await write([ask('1'), { type: 'progress', turn: '1', note: 'Loading' }, counted, done('1')], path);
    expect(parseJournal(readFileSync(path, 'utf8')).records).toEqual([ask('1'), text('1', 'a'), done('1')]);
  });

  it('loses nothing before the byte it is cut at, and can be continued there', async () => {
    const path = join(folder, 'c.jsonl');
    const lines = story.map((record) => `${JSON.stringify(record)}\n`);
    const whole = Buffer.from(lines.join(''));
    const ends = lines.map((_, index) => Buffer.byteLength(lines.slice(0, index + 1).join('')));
    for (let length = 0; length <= whole.length; length++) {
      const { records, skipped } = parseJournal(whole.subarray(0, length).toString());
      // A line is complete with its last brace, with or without its line end.
      const complete = ends.filter((end) => end - 1 <= length).length;
      expect(records, `${length} bytes`).toEqual(story.slice(0, complete));
      expect(skipped).toBeLessThanOrEqual(1);
    }
    for (let length = 0; length <= whole.length; length += 37) {
      writeFileSync(path, whole.subarray(0, length));
      const kept = (await readJournal(path))?.records ?? [];
      await write([ask('new'), text('new', 'after the crash'), done('new')], path);
      const after = (await readJournal(path))?.records ?? [];
      expect(after.slice(0, kept.length)).toEqual(kept);
      expect(after.slice(kept.length).map((record) => record.type)).toEqual(['ask', 'delta', 'end']);
    }
  });

  it('skips and counts invalid lines', () => {
    const garbage = ['null', '[]', '{"type":"unknown"}', '{"type":"delta","turn":5}', '\u0000\u0000', '{"type":'];
    const { records, skipped } = parseJournal(`${garbage.join('\n')}\n${JSON.stringify(ask('1'))}\n`);
    expect(records).toHaveLength(1);
    expect(skipped).toBe(garbage.length);
  });

  it('is missing without an error before the first question', async () => {
    expect(await readJournal(join(folder, 'none.jsonl'))).toBeUndefined();
  });

  it('reports failed writes and goes on', async () => {
    writeFileSync(join(folder, 'file'), '');
    const errors: unknown[] = [];
    const journal = new Journal(join(folder, 'file', 'c.jsonl'), (error) => errors.push(error));
    journal.append(ask('1'));
    journal.append(done('1'));
    await journal.close();
    expect(errors).toHaveLength(2);
  });
});

describe('the store', () => {
  const reopen = async () => {
    const store = new ChatStore(folder, quiet);
    await store.restore();
    return store;
  };

  it('starts with an empty conversation and no file', async () => {
    const store = await reopen();
    expect(store.conversation.turns).toEqual([]);
    await store.close();
    expect(readdirSync(folder)).toEqual([]);
  });

  it('restores the conversation that was on screen', async () => {
    const store = await reopen();
    for (const record of story.slice(1)) store.record(record);
    await store.close();
    const again = await reopen();
    expect(again.conversation.turns.map(({ view }) => view.answer)).toEqual(['Because of `\\n` — 🔥.', 'Half an ans']);
    again.record(ask('3'));
    await again.close();
    expect((await reopen()).conversation.turns).toHaveLength(3);
  });

  it('starts a new conversation and keeps the old file', async () => {
    const store = await reopen();
    store.record(ask('1'));
    await store.startNew();
    await store.close();
    expect((await reopen()).conversation.turns).toEqual([]);
    expect(readdirSync(folder).filter((name) => name.endsWith('.jsonl'))).toHaveLength(1);
  });

  it('does not follow a path out of its folder', async () => {
    writeFileSync(join(folder, 'current'), '../../../etc/passwd');
    expect((await reopen()).conversation.turns).toEqual([]);
  });

  it('opens a journal cut at any byte', async () => {
    const store = await reopen();
    for (const record of story.slice(1)) store.record(record);
    await store.close();
    const path = join(folder, `${store.conversation.id}.jsonl`);
    const size = readFileSync(path).length;
    for (let length = size; length >= 0; length -= 61) {
      truncateSync(path, length);
      const cut = await reopen();
      expect(cut.conversation.turns.length).toBeLessThanOrEqual(2);
      await cut.close();
    }
  });
});

describe('the conversations of a workspace', () => {
  const said = async (...questions: string[]) => {
    const store = new ChatStore(folder, quiet);
    for (const [index, question] of questions.entries()) {
      store.record(ask(`${index}`, question));
      store.record(text(`${index}`, `answer to ${question}`));
      store.record(done(`${index}`));
    }
    await store.close();
    return store;
  };

  it('are listed by their first question, latest first, without empty ones', async () => {
    const older = await said('How do I sort?', 'And backwards?');
    await new Promise((resolve) => setTimeout(resolve, 10));
    const newer = await said('What is a monad?\nBriefly.');
    writeFileSync(join(folder, 'empty.jsonl'), '{"type":"chat","version":1,"id":"empty","at":1}\n');
    const list = await newer.list();
    expect(list.map(({ id, title, questions }) => [id, title, questions])).toEqual([
      [newer.conversation.id, 'What is a monad?', 1],
      [older.conversation.id, 'How do I sort?', 2],
    ]);
  });

  it('are found by their text, if it has every word of the query', async () => {
    const store = await said('How do I sort?', 'And backwards?');
    await said('What is a monad?');
    const list = await store.list();
    const found = (query: string) => chatItems(list, query, '').map(({ entry }) => entry.title);
    expect(found('BACKWARDS sort')).toEqual(['How do I sort?']);
    expect(found('answer')).toHaveLength(2);
    expect(found('sort monad')).toEqual([]);
    expect(chatItems(list, 'backwards', store.conversation.id)[0]).toMatchObject({
      label: '$(check) How do I sort?',
      detail: expect.stringContaining('And backwards?'),
    });
  });

  it('can be renamed, on screen or not', async () => {
    const old = await said('one');
    const store = await said('two');
    await store.rename(old.conversation.id, 'First');
    await store.rename(store.conversation.id, 'Second');
    const titles = async () => (await new ChatStore(folder, quiet).list()).map(({ title }) => title).sort();
    expect(await titles()).toEqual(['First', 'Second']);
    expect(titleOf(store.conversation)).toBe('Second');
    await store.close();
  });

  it('can be opened again, and are then what the next window shows', async () => {
    const old = await said('one');
    const store = await said('two');
    expect(await store.open(old.conversation.id)).toBe(true);
    expect(store.conversation.turns.map(({ view }) => view.question)).toEqual(['one']);
    const next = new ChatStore(folder, quiet);
    await next.restore();
    expect(next.conversation.id).toBe(old.conversation.id);
    expect(await store.open('../../etc/passwd')).toBe(false);
    expect(await store.open('gone')).toBe(false);
    expect(store.conversation.id).toBe(old.conversation.id);
  });

  it('can be deleted', async () => {
    const store = await said('one');
    await store.remove(store.conversation.id);
    expect([await store.list(), readdirSync(folder)]).toEqual([[], ['current']]);
  });

  it('are exported as Markdown with attachments and thinking', () => {
    const exported = conversationMarkdown(replay('c', story));
    expect(exported).toBe(
      [
        '# Wieso "funktioniert" das',
        '## You\n\nWieso "funktioniert" das\nnicht? 🔥\n\n*With: a.ts*',
        '## Small\n\n> Hm, wait.\n\nBecause of `\\n` — 🔥.',
        '## You\n\nquestion 2\n\n*With: a.ts*',
        '## Hearth\n\nHalf an ans\n',
      ].join('\n\n'),
    );
  });
});

describe('a process killed while it writes', () => {
  /** Streams numbered deltas, and prints after each flush how many the file must contain. */
  const script = (journal: string, path: string) => `
    import { Journal } from ${JSON.stringify(journal)};
    const journal = new Journal(${JSON.stringify(path)}, (error) => { throw error; });
    journal.append({ type: 'ask', turn: 't', at: 0, kind: 'chat', question: 'q', attachments: [] });
    for (let piece = 0; ; piece++) {
      journal.append({ type: 'delta', turn: 't', kind: 'text', text: piece + ' ' });
      if (piece % 7 === 0) { await journal.flush(); process.stdout.write(piece + '\\n'); }
    }`;

  const killed = (child: ChildProcess, afterLines: number): Promise<number> =>
    new Promise((resolve) => {
      let out = '';
      child.stdout?.on('data', (chunk: Buffer) => {
        out += chunk.toString();
        if (out.split('\n').length > afterLines) child.kill('SIGKILL');
      });
      child.once('close', () => resolve(Number(out.split('\n').filter(Boolean).at(-1))));
    });

  it('loses nothing that was flushed, in 30 of 30 runs', async () => {
    const bundle = join(folder, 'store.mjs');
    // The journal itself needs nothing of VS Code.
    const alias = { vscode: join(folder, 'vscode.mjs') };
    writeFileSync(alias.vscode, 'export const l10n = {};');
    const entry = fileURLToPath(new URL('../../../extension/chat/journal.ts', import.meta.url));
    await build({ entryPoints: [entry], bundle: true, format: 'esm', platform: 'node', outfile: bundle, alias });
    for (let round = 0; round < 30; round++) {
      const path = join(folder, `${round}.jsonl`);
      const source = join(folder, `${round}.mjs`);
      writeFileSync(source, script(bundle, path));
      const child = spawn(process.execPath, [source], { stdio: ['ignore', 'pipe', 'inherit'] });
      const promised = await killed(child, 1 + ((round * 13) % 40));
      const conversation = emptyConversation('c');
      for (const record of (await readJournal(path))?.records ?? []) apply(conversation, record);
      const pieces = (conversation.turns[0]?.view.answer ?? '').trim().split(' ').map(Number);
      expect(pieces.length).toBeGreaterThan(promised);
      expect(pieces.every((piece, index) => piece === index)).toBe(true);
    }
  });
});

describe('labels of attachments', () => {
  const label = (path: string, text: string) => ({ path, label: text });

  it('show folders of files with the same name until they differ', () => {
    const items = [
      label('packages/a/src/index.ts', 'index.ts:1–9'),
      label('packages/a/src/index.ts', 'index.ts:20–30'),
      label('packages/b/src/index.ts', 'index.ts:1–9'),
      label('index.ts', 'index.ts'),
      label('src/sums.py', 'sums.py'),
      label('lib/lamp.py', 'light'),
      label('map', 'Repository map'),
    ];
    expect([lineRange(59, 59), lineRange(59, 60)]).toEqual(['59', '59–60']);
    expect(distinctLabels(items).map((item) => item.label)).toEqual([
      'a/src/index.ts:1–9',
      'a/src/index.ts:20–30',
      'b/src/index.ts:1–9',
      'index.ts',
      'sums.py',
      'light',
      'Repository map',
    ]);
  });
});

describe('a chat whose files another program changes', () => {
  const started = async (): Promise<{ store: ChatStore; path: string }> => {
    const store = new ChatStore(folder, quiet);
    for (const record of story.slice(1, 8)) store.record(record);
    await store.flush();
    return { store, path: join(folder, `${store.conversation.id}.jsonl`) };
  };
  const next = async (store: ChatStore) => {
    await store.close();
    const other = new ChatStore(folder, quiet);
    await other.restore();
    return other.conversation.turns.map(({ view }) => view.answer);
  };
  const answers = ['Because of `\\n` — 🔥.', 'Half an answer'];

  it.each<[string, (path: string) => void]>([
    ['removed', (path) => rmSync(path)],
    ['removed with its folder', () => rmSync(folder, { recursive: true })],
    ['cut', (path) => truncateSync(path, 40)],
    ['overwritten in place', (path) => writeFileSync(path, 'x'.repeat(statSync(path).size), { flag: 'r+' })],
  ])('rewrites what is on the screen: %s', async (_, change) => {
    const { store, path } = await started();
    change(path);
    for (const record of [ask('2'), text('2', 'Half an '), text('2', 'answer')]) store.record(record);
    expect(await next(store)).toEqual(answers);
  });

  it('keeps the turns of another window', async () => {
    const { store, path } = await started();
    const other = new ChatStore(folder, quiet);
    await other.open(store.conversation.id);
    other.record(ask('other'));
    other.record(text('other', 'Elsewhere'));
    await other.close();
    writeFileSync(`${path}.copy`, readFileSync(path));
    renameSync(`${path}.copy`, path);
    for (const record of [ask('2'), text('2', 'Half an answer')]) store.record(record);
    expect((await next(store)).sort()).toEqual([...answers, 'Elsewhere'].sort());
  });

  it('keeps what another window adds to a turn that this one found unfinished', async () => {
    const { store, path } = await started();
    for (const record of [ask('2'), text('2', 'Half an ')]) store.record(record);
    await store.flush();
    const other = new ChatStore(folder, quiet);
    await other.open(store.conversation.id);
    for (const record of [text('2', 'answer'), done('2')]) store.record(record);
    await store.flush();
    const lines = readFileSync(path, 'utf8').split('\n');
    writeFileSync(path, lines.filter((line) => !line.includes('"turn":"1"')).join('\n'));
    for (const record of [ask('3'), done('3')]) other.record(record);
    await other.close();
    expect(await next(other)).toEqual([...answers, '']);
    const found = (await other.read(store.conversation.id))?.turns.map(({ view }) => view.outcome.kind);
    expect(found).toEqual(['done', 'done', 'done']);
  });

  it('writes what could not be written, once it can be, where the file has everything else', async () => {
    const { store, path } = await started();
    store.record({ type: 'title', title: 'First' });
    await store.flush();
    const bytes = readFileSync(path);
    rmSync(path);
    mkdirSync(path);
    store.record({ type: 'title', title: 'Second' });
    await store.flush();
    rmSync(path, { recursive: true });
    writeFileSync(path, bytes);
    await store.close();
    expect((await new ChatStore(folder, quiet).read(store.conversation.id))?.title).toBe('Second');
  });

  it('stays removed if another window removes it and nothing is asked here', async () => {
    const { store, path } = await started();
    await new ChatStore(folder, quiet).remove(store.conversation.id);
    await store.close();
    expect(existsSync(path)).toBe(false);
  });

  it('opens and lists the others if one cannot be read', async () => {
    const { store, path } = await started();
    await store.startNew();
    for (const record of story.slice(1, 8)) store.record(record);
    await store.close();
    rmSync(path);
    mkdirSync(path);
    expect(await next(await started().then(({ store: third }) => third))).toHaveLength(1);
    expect(await new ChatStore(folder, quiet).list()).toHaveLength(2);
  });

  /** A slice of `npm run fuzz:files`. */
  it('loses nothing that is on the screen', async () => {
    const figures = await changeJournal(2);
    expect(figures.problems).toEqual([]);
    expect(figures.same).toBeGreaterThan(25);
  });
});
