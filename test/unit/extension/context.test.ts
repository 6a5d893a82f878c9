import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Candidate, contextBudget, estimatedTokens, plan } from '../../../engine/index/question/planner.ts';
import { limits } from '../../../engine/limits.ts';
import { apply, type Conversation, emptyConversation } from '../../../extension/chat/conversation.ts';
import {
  attachmentOf,
  ContextGatherer,
  countTokens,
  type Gathered,
  type Repository,
} from '../../../extension/context/gather.ts';
import { mentionText, mismatch, parseMentions, pinOf } from '../../../extension/context/mentions.ts';
import { focusSource } from '../../../extension/context/sources.ts';
import { ContextTracker, type Focus } from '../../../extension/context/tracker.ts';
import { limits as own } from '../../../extension/limits.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import { clientOf, hostOf } from './support.ts';
import { settings, Uri, workspace } from './vscode.ts';

const focus = (over: Partial<Focus> = {}): Focus => ({
  uri: 'file:///src/a.ts',
  path: 'src/a.ts',
  languageId: 'typescript',
  lines: Array.from({ length: 100 }, (_, index) => `line ${index + 1}`),
  selection: undefined,
  visible: { start: 40, end: 60 },
  ...over,
});

/** One token per character, including line ends. */
function candidate(over: Partial<Candidate> & { lines: readonly string[] }): Candidate {
  const tokens = over.lines.reduce((sum, line) => sum + line.length + 1, 0);
  const shape = { firstLine: 1, fileLines: over.lines.length, centre: 0, tokens, divisible: true } as const;
  return { id: 'x', tier: 'asked', label: 'x', path: over.id ?? 'x', languageId: '', ...shape, ...over };
}
const lines = (count: number, text = 'abcdefghi') => Array.from({ length: count }, () => text);

describe('the context of a question', () => {
  const attached = (of: Focus, tokens: number) => {
    const source = focusSource(of);
    const [chosen] = plan([candidate(source)], tokens).chosen;
    return chosen && attachmentOf(chosen);
  };

  it('is the whole file if it fits', () => {
    const { text, detail, label, id, firstLine } = attached(focus(), 10_000) ?? {};
    expect([text?.split('\n').length, detail, label, id, firstLine]).toEqual([
      100,
      '',
      'a.ts',
      'file:file:///src/a.ts',
      1,
    ]);
  });

  it("is the visible part if the file doesn't fit", () => {
    const { text, detail, firstLine } = attached(focus(), 90) ?? {};
    expect(text?.length).toBeLessThanOrEqual(90);
    // Eleven lines of eight characters around the middle of the visible range.
    expect(text?.split('\n')[5]).toBe('line 51');
    expect([detail, firstLine]).toEqual(['lines 46 to 56 of 100', 46]);
  });

  it('gives a quarter to the open file if the search found something, more if the question is about it, and no line twice', () => {
    const offered = [
      candidate({ id: 'open', tier: 'editor', lines: lines(50), path: 'a' }),
      candidate({ id: 'f', tier: 'found', lines: lines(10), path: 'a', firstLine: 31, divisible: false }),
      candidate({ id: 'g', tier: 'found', lines: lines(1), path: 'a', firstLine: 2, divisible: false }),
    ];
    const ids = (aboutOpenFile: boolean) =>
      plan(offered, 200, aboutOpenFile).chosen.map(({ candidate: { id }, tokens }) => [id, tokens]);
    expect(ids(false)).toEqual([
      ['open', 49],
      ['f', 100],
    ]);
    expect(ids(true)[0]).toEqual(['open', 119]);
  });

  it('is the selection if there is one, or the start of a long one', () => {
    const { text, label, firstLine } = attached(focus({ selection: { start: 9, end: 11 } }), 10_000) ?? {};
    expect([text, label, firstLine]).toEqual(['line 10\nline 11\nline 12', 'a.ts:10–12', 10]);
    const long = attached(focus({ selection: { start: 9, end: 99 } }), 40);
    expect(long?.text.startsWith('line 10\n')).toBe(true);
    expect(long?.text.length).toBeLessThanOrEqual(40);
  });

  it('is cut within a line if one line is too long', () => {
    const long = focus({ lines: ['x'.repeat(1_000)], visible: { start: 0, end: 0 } });
    expect(attached(long, 50)?.text).toHaveLength(50);
  });

  it('never exceeds the token budget', () => {
    for (let room = 0; room < 400; room += 7) {
      const offered = [
        candidate({ id: 'a', lines: lines(30) }),
        candidate({ id: 'b', lines: ['word '.repeat(40)], tier: 'editor' }),
        candidate({ id: 'm', lines: lines(8), tier: 'map' }),
        candidate({ id: 'f', lines: lines(2), tier: 'found', divisible: false }),
      ];
      const { chosen, omitted, tokens } = plan(offered, room);
      expect(tokens).toBeLessThanOrEqual(room);
      expect(chosen.reduce((sum, { text }) => sum + text.length, 0)).toBeLessThanOrEqual(room);
      expect(chosen.length + omitted.length).toBe(4);
    }
  });

  it('has room for a short file beside a long mentioned one', () => {
    const { chosen } = plan(
      [candidate({ id: 'long', lines: lines(90) }), candidate({ id: 'short', lines: lines(3) })],
      200,
    );
    expect(chosen.map(({ candidate: { id }, tokens }) => [id, tokens])).toEqual([
      ['long', 169],
      ['short', 30],
    ]);
  });

  it('takes search results whole, best first, within the remaining budget', () => {
    const found = [5, 30, 6].map((count, index) =>
      candidate({ id: `f${index}`, lines: lines(count), tier: 'found', divisible: false }),
    );
    const { chosen, omitted } = plan([candidate({ id: 'asked', lines: lines(10) }), ...found], 250);
    expect(chosen.map(({ candidate: { id } }) => id)).toEqual(['asked', 'f0', 'f2']);
    expect(omitted.map(({ id }) => id)).toEqual(['f1']);
  });

  it('leaves room for search results beside a file that is merely open', () => {
    const open = candidate({ id: 'open', lines: lines(90), tier: 'editor' });
    const found = candidate({ id: 'found', lines: lines(8), tier: 'found', divisible: false });
    expect(plan([open, found], 200).chosen.map(({ candidate: { id } }) => id)).toEqual(['open', 'found']);
    expect(plan([open], 200).tokens).toBeGreaterThan(190);
  });
});

describe('the token budget of the context', () => {
  it("is a share of the model's context window, smaller on a CPU", () => {
    expect(contextBudget({ contextTokens: 10_000, backend: 'webgpu' }, 0)).toBe(4_000);
    expect(contextBudget({ contextTokens: 10_000, backend: 'onnx' }, 0)).toBe(limits.question.cpuAttachmentTokens);
    expect(contextBudget({ contextTokens: 1_000, backend: 'onnx' }, 0)).toBe(400);
    expect(contextBudget({ contextTokens: 1e9, backend: 'webgpu' }, 0)).toBe(limits.question.attachmentTokens);
    expect(contextBudget(undefined, 0)).toBeGreaterThan(0);
  });

  it.each([
    [135e6, 675],
    [10e6, limits.question.leastAttachmentTokens],
    [1.5e9, 7_500],
    [30e9, 13_107],
  ])('grows with the model: %d parameters', (parameters, tokens) => {
    const reader = { contextTokens: 32_768, backend: 'webgpu', parameters };
    expect(contextBudget(reader, 0)).toBe(tokens);
    const onProcessor = Math.min(tokens, limits.question.cpuAttachmentTokens);
    expect(contextBudget({ ...reader, backend: 'onnx' }, 0)).toBe(onProcessor);
  });

  it('shrinks as the conversation fills the window, down to half', () => {
    expect(contextBudget({ contextTokens: 10_000, backend: 'webgpu' }, 4_500)).toBe(3_000);
    expect(contextBudget({ contextTokens: 10_000, backend: 'webgpu' }, 9_000)).toBe(2_000);
  });

  it('is counted by the model, or estimated conservatively without one', async () => {
    const text = 'one two three';
    const counting = clientOf();
    const host = hostOf(counting);
    expect(await countTokens(host, [text])).toEqual([estimatedTokens(text)]);
    await host.client();
    await counting.ready();
    expect(await countTokens(host, [text, ''])).toEqual([3, 0]);
    const refusing = clientOf({ FAKE_COUNTS_NOT: '1' });
    const other = hostOf(refusing);
    await other.client();
    await refusing.ready();
    expect(await countTokens(other, [text])).toEqual([estimatedTokens(text)]);
  });
});

describe('a question about the repository', () => {
  const passage = (path: string) => ({
    ...{ path, firstLine: 3, lastLine: 4, score: 1, coverage: 1, within: '' },
    text: 'light()\nlamp()',
  });
  const asked: string[] = [];
  const repository: Repository = {
    available: true,
    searchByMeaning: (question) => {
      asked.push(question);
      return Promise.resolve([passage('src/lamp.ts'), passage('src/light.ts')]);
    },
    symbols: () => Promise.resolve([]),
    outline: () => Promise.resolve([]),
    map: () => Promise.resolve({ text: 'src/lamp.ts\n  lamp', files: 1, ofFiles: 1 }),
  };
  const gathererOf = (of: Repository) => {
    const tracker = new ContextTracker();
    return { tracker, gatherer: new ContextGatherer(hostOf(clientOf()), tracker, of) };
  };
  const labels = ({ attachments }: Gathered) => attachments.map(({ label }) => label);

  it('gets the search results with their lines', async () => {
    const gathered = await gathererOf(repository).gatherer.gather('Who lights the lamp?', emptyConversation('c'));
    expect(labels(gathered)).toEqual(['lamp.ts:3–4', 'light.ts:3–4']);
    expect(gathered.attachments[0]).toMatchObject({ path: 'src/lamp.ts', firstLine: 3, detail: 'lines 3 to 4' });
    expect([asked, gathered.omitted]).toEqual([['Who lights the lamp?'], []]);
  });

  it('is sent without them if the search hangs, and says so', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const hanging = { ...repository, searchByMeaning: () => new Promise<never>(() => {}) };
      const asking = gathererOf(hanging).gatherer.gather('Who lights the lamp?', emptyConversation('c'));
      await vi.advanceTimersByTimeAsync(own.chat.searchMs);
      const gathered = await asking;
      expect([labels(gathered), gathered.omitted]).toEqual([[], ['Repository: the search took too long']]);
    } finally {
      vi.useRealTimers();
    }
  });

  it('gets the repository map once a conversation, if it is about the whole', async () => {
    const { gatherer } = gathererOf(repository);
    const conversation = emptyConversation('c');
    const { attachments, omitted } = await gatherer.gather('What is this project?', conversation);
    expect(labels({ attachments, omitted })[0]).toBe('Repository map');
    apply(conversation, {
      type: 'ask',
      turn: 't',
      at: 1,
      kind: 'chat',
      question: 'What is this project?',
      attachments,
      omitted,
    });
    expect(labels(await gatherer.gather('Explain this project', conversation))).toEqual([
      'lamp.ts:3–4',
      'light.ts:3–4',
    ]);
  });

  it('is not searched for with a mention, with the setting off, or without the chip', async () => {
    const { gatherer, tracker } = gathererOf(repository);
    const before = asked.length;
    const particular = await gatherer.gather('What is in @problems?', emptyConversation('c'));
    expect(particular).toEqual({ attachments: [], omitted: ['@problems: not found'] });
    expect(gatherer.chips('x', []).map(({ label }) => label)).toEqual(['Repository']);
    settings.set('hearth.chat.searchWorkspace', false);
    expect(labels(await gatherer.gather('What?', emptyConversation('c')))).toEqual([]);
    settings.clear();
    tracker.remove('repository');
    expect(labels(await gatherer.gather('What?', emptyConversation('c')))).toEqual([]);
    expect([gatherer.chips('x', []), asked.length]).toEqual([[], before]);
    expect(labels(await gatherer.gather('@repository What?', emptyConversation('c')))).toHaveLength(2);
  });
});

describe('pinned context', () => {
  const gatherer = () => new ContextGatherer(hostOf(clientOf()), new ContextTracker(), undefined);
  const folder = temporaryFolder();
  const lamp = Uri.file(`${folder}/lamp.ts`);
  const path = lamp.path.slice(1);
  const pins = [`@file:${path}`];
  const pinned = (): Conversation => ({ ...emptyConversation('c'), pins });

  beforeEach(() => {
    workspace.workspaceFolders = [{ uri: Uri.parse('file://'), name: 'work', index: 0 }];
    writeFileSync(lamp.path, '');
    const document = { uri: lamp, languageId: 'typescript', lineCount: 2, getText: () => 'light()\nlamp()' };
    workspace.documents.set(lamp.toString(), document);
  });
  afterEach(() => {
    workspace.workspaceFolders = undefined;
  });

  it('is attached once to every question, and missing items are named', async () => {
    const { attachments } = await gatherer().gather(`What is in @file:${path}?`, pinned());
    expect(attachments.map(({ text }) => text)).toEqual(['light()\nlamp()']);
    const other = await gatherer().gather('Why?', { ...pinned(), pins: [...pins, '@file:gone.ts'] });
    expect(other.attachments).toEqual(attachments);
    expect(other.omitted).toEqual(['@file:gone.ts: not found']);
  });

  it('is left out by name if it does not fit', async () => {
    const text = 'long line of text\n'.repeat(100_000);
    const large = { uri: lamp, languageId: 'typescript', lineCount: 100_001, getText: () => text };
    workspace.documents.set(lamp.toString(), large);
    const { attachments } = await gatherer().gather('Why?', pinned());
    const used = attachments.reduce((sum, { tokens }) => sum + tokens, 0);
    expect(used).toBeLessThanOrEqual(contextBudget(undefined, 0));
    expect(attachments[0]?.detail).toMatch(/^lines 1 to \d+ of 100001$/);
  });

  it('is one chip with its size, which counts as used until a question includes it', async () => {
    const own = gatherer();
    expect(await own.measure(pins)).toBe(true);
    expect(await own.measure(pins)).toBe(false);
    const tokens = estimatedTokens('light()\nlamp()');
    const [chip, ...others] = own.chips(`What is in @file:${path}?`, pins);
    expect([chip, others]).toEqual([
      { id: pins[0], label: `file:${path}`, detail: '', tokens, mention: pins[0], pin: pins[0], isPinned: true },
      [],
    ]);
    const conversation = pinned();
    expect(own.unsentTokens(conversation)).toBe(tokens);
    const { attachments } = await own.gather('Why?', conversation);
    apply(conversation, { type: 'ask', turn: 't', at: 1, kind: 'chat', question: 'Why?', attachments, omitted: [] });
    apply(conversation, { type: 'text', turn: 't', thinking: '', answer: 'So.' });
    expect(own.unsentTokens(conversation)).toBe(0);
  });

  it('is a file, a folder, a symbol, problems or changes, never something momentary like the selection', () => {
    expect(['@file:"a b.ts"', '#folder:src', '@symbol:f', '@problems', '@diff'].map(pinOf)).toEqual([
      ...['@file:"a b.ts"', '@folder:src', '@symbol:f', '@problems', '@diff'],
    ]);
    const refused = ['@selection', '@terminal', '@failure', '@repository', 'a.ts', '@file:a.ts @file:b.ts'];
    expect(refused.map(pinOf)).toEqual(refused.map(() => undefined));
  });
});

describe('a pasted text', () => {
  it('is a chip until the next question, goes with that one alone, and can be removed', async () => {
    const tracker = new ContextTracker();
    const gatherer = new ContextGatherer(hostOf(clientOf()), tracker, undefined);
    tracker.paste('one\ntwo\n');
    tracker.paste('three');
    expect(gatherer.chips('', []).map(({ label }) => label)).toEqual([
      'Pasted text (3 lines)',
      'Pasted text (1 lines)',
    ]);
    const [first] = gatherer.chips('', []);
    tracker.remove(first?.id ?? '');
    const { attachments } = await gatherer.gather('What is it?', emptyConversation('c'), tracker.takePasted());
    expect(attachments.map(({ text, firstLine }) => [text, firstLine])).toEqual([['three', 0]]);
    expect([tracker.takePasted(), gatherer.chips('', [])]).toEqual([[], []]);
    tracker.dispose();
  });
});

describe('mentions', () => {
  const found = (question: string) => parseMentions(question).map(({ kind, value, text }) => [kind, value, text]);

  it.each([
    ['why does @file:src/a.ts fail', [['file', 'src/a.ts', '@file:src/a.ts']]],
    ['(#file:src/a.ts), then', [['file', 'src/a.ts', '#file:src/a.ts']]],
    [
      '@file:"my file.ts" and @diff.',
      [
        ['file', 'my file.ts', '@file:"my file.ts"'],
        ['diff', '', '@diff'],
      ],
    ],
    [
      '@symbol:Foo.bar? @selection',
      [
        ['symbol', 'Foo.bar', '@symbol:Foo.bar'],
        ['selection', '', '@selection'],
      ],
    ],
    ['@file:a.ts @file:a.ts', [['file', 'a.ts', '@file:a.ts']]],
  ])('are found in: %s', (question, expected) => {
    expect(found(question)).toEqual(expected);
  });

  it.each([
    'me@file:x',
    '@file',
    '@file:',
    '@filed:x',
    '@selection:x',
    'a #define',
    '@property',
    'x@diff.com',
    '@diff-x',
  ])('are not: %s', (question) => {
    expect(found(question)).toEqual([]);
  });

  it('are parsed as they are written', () => {
    for (const value of ['src/a.ts', 'my file.ts', 'a/(group)/b.ts', 'ends.with.', 'übung.py']) {
      expect(parseMentions(`see ${mentionText('file', value)}, please`)).toMatchObject([{ kind: 'file', value }]);
    }
    expect(mentionText('diff')).toBe('@diff');
  });

  it('are ranked by match: prefix, substring, then letters in order', () => {
    const paths = [
      'docs/other.md',
      'docs/chart.md',
      'src/chat/view.ts',
      'src/achat.ts',
      'src/chat.ts',
      'src/cache/hat.ts',
    ];
    const sorted = paths
      .filter((path) => mismatch('chat', path) < Number.POSITIVE_INFINITY)
      .sort((a, b) => mismatch('chat', a) - mismatch('chat', b));
    expect(sorted).toEqual(['src/chat.ts', 'src/achat.ts', 'src/chat/view.ts', 'docs/chart.md', 'src/cache/hat.ts']);
  });
});
