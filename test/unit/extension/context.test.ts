import { describe, expect, it } from 'vitest';
import { type Candidate, contextBudget, estimatedTokens, plan } from '../../../engine/index/question/planner.ts';
import { limits } from '../../../engine/limits.ts';
import { apply, emptyConversation } from '../../../extension/chat/conversation.ts';
import type { Repository } from '../../../extension/context/gather.ts';
import { attachmentOf, ContextGatherer, countTokens, type Gathered } from '../../../extension/context/gather.ts';
import { mentionText, mismatch, parseMentions } from '../../../extension/context/mentions.ts';
import { focusSource } from '../../../extension/context/sources.ts';
import { ContextTracker, type Focus } from '../../../extension/context/tracker.ts';
import { clientOf, hostOf } from './support.ts';
import { settings } from './vscode.ts';

const focus = (over: Partial<Focus> = {}): Focus => ({
  uri: 'file:///src/a.ts',
  path: 'src/a.ts',
  languageId: 'typescript',
  lines: Array.from({ length: 100 }, (_, index) => `line ${index + 1}`),
  selection: undefined,
  visible: { start: 40, end: 60 },
  ...over,
});

/** A character is a token, line ends included. */
function candidate(over: Partial<Candidate> & { lines: readonly string[] }): Candidate {
  const tokens = over.lines.reduce((sum, line) => sum + line.length + 1, 0);
  const shape = { firstLine: 1, fileLines: over.lines.length, centre: 0, tokens, divisible: true } as const;
  return { id: 'x', tier: 'asked', label: 'x', path: over.id ?? 'x', languageId: '', ...shape, ...over };
}
const lines = (count: number, text = 'abcdefghi') => Array.from({ length: count }, () => text);

describe('what goes with a question', () => {
  const attached = (of: Focus, tokens: number) => {
    const source = focusSource(of);
    const [chosen] = plan([candidate(source)], tokens).chosen;
    return chosen && attachmentOf(chosen);
  };

  it('is the whole file where it fits', () => {
    const { text, detail, label, id, firstLine } = attached(focus(), 10_000) ?? {};
    expect([text?.split('\n').length, detail, label, id, firstLine]).toEqual([
      100,
      '',
      'a.ts',
      'file:file:///src/a.ts',
      1,
    ]);
  });

  it('is what the user looks at where it does not', () => {
    const { text, detail, firstLine } = attached(focus(), 90) ?? {};
    expect(text?.length).toBeLessThanOrEqual(90);
    // Eleven lines of eight characters, around the middle of what is visible.
    expect(text?.split('\n')[5]).toBe('line 51');
    expect([detail, firstLine]).toEqual(['lines 46 to 56 of 100', 46]);
  });

  it('is a quarter the open file where something was found, more where it is asked about, and no line twice', () => {
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

  it('is the selection where there is one, the start of one that is too long', () => {
    const { text, label, firstLine } = attached(focus({ selection: { start: 9, end: 11 } }), 10_000) ?? {};
    expect([text, label, firstLine]).toEqual(['line 10\nline 11\nline 12', 'a.ts:10–12', 10]);
    const long = attached(focus({ selection: { start: 9, end: 99 } }), 40);
    expect(long?.text.startsWith('line 10\n')).toBe(true);
    expect(long?.text.length).toBeLessThanOrEqual(40);
  });

  it('is cut within a line that is too long alone', () => {
    const long = focus({ lines: ['x'.repeat(1_000)], visible: { start: 0, end: 0 } });
    expect(attached(long, 50)?.text).toHaveLength(50);
  });

  it('never has more tokens than there is room for, whatever is offered', () => {
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

  it('has room for a short file beside a long one that was asked for first', () => {
    const { chosen } = plan(
      [candidate({ id: 'long', lines: lines(90) }), candidate({ id: 'short', lines: lines(3) })],
      200,
    );
    expect(chosen.map(({ candidate: { id }, tokens }) => [id, tokens])).toEqual([
      ['long', 169],
      ['short', 30],
    ]);
  });

  it('takes what was found whole or not at all, the best first, in the room that the rest leaves', () => {
    const found = [5, 30, 6].map((count, index) =>
      candidate({ id: `f${index}`, lines: lines(count), tier: 'found', divisible: false }),
    );
    const { chosen, omitted } = plan([candidate({ id: 'asked', lines: lines(10) }), ...found], 250);
    expect(chosen.map(({ candidate: { id } }) => id)).toEqual(['asked', 'f0', 'f2']);
    expect(omitted.map(({ id }) => id)).toEqual(['f1']);
  });

  it('leaves room for what was found beside a file that only happens to be open', () => {
    const open = candidate({ id: 'open', lines: lines(90), tier: 'editor' });
    const found = candidate({ id: 'found', lines: lines(8), tier: 'found', divisible: false });
    expect(plan([open, found], 200).chosen.map(({ candidate: { id } }) => id)).toEqual(['open', 'found']);
    expect(plan([open], 200).tokens).toBeGreaterThan(190);
  });
});

describe('the room for what goes along', () => {
  it("is a share of the model's true window, less on a processor", () => {
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

  it('shrinks as the conversation fills the window, and half of it stays', () => {
    expect(contextBudget({ contextTokens: 10_000, backend: 'webgpu' }, 4_500)).toBe(3_000);
    expect(contextBudget({ contextTokens: 10_000, backend: 'webgpu' }, 9_000)).toBe(2_000);
  });

  it('is counted by the model, and estimated on the safe side where it cannot be asked', async () => {
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

  it('goes with what a search finds, each with its lines', async () => {
    const gathered = await gathererOf(repository).gatherer.gather('Who lights the lamp?', emptyConversation('c'));
    expect(labels(gathered)).toEqual(['lamp.ts:3–4', 'light.ts:3–4']);
    expect(gathered.attachments[0]).toMatchObject({ path: 'src/lamp.ts', firstLine: 3, detail: 'lines 3 to 4' });
    expect([asked, gathered.omitted]).toEqual([['Who lights the lamp?'], []]);
  });

  it('has the map where it is about the whole, once a conversation', async () => {
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

  it('is not searched for when the user says what it is about, switched it off, or took its chip away', async () => {
    const { gatherer, tracker } = gathererOf(repository);
    const before = asked.length;
    const particular = await gatherer.gather('What is in @problems?', emptyConversation('c'));
    expect(particular).toEqual({ attachments: [], omitted: ['@problems: there is no such thing'] });
    expect(gatherer.chips('x').map(({ label }) => label)).toEqual(['Repository']);
    settings.set('hearth.chat.searchWorkspace', false);
    expect(labels(await gatherer.gather('What?', emptyConversation('c')))).toEqual([]);
    settings.clear();
    tracker.remove('repository');
    expect(labels(await gatherer.gather('What?', emptyConversation('c')))).toEqual([]);
    expect([gatherer.chips('x'), asked.length]).toEqual([[], before]);
    expect(labels(await gatherer.gather('@repository What?', emptyConversation('c')))).toHaveLength(2);
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

  it('are read back as they are written', () => {
    for (const value of ['src/a.ts', 'my file.ts', 'a/(group)/b.ts', 'ends.with.', 'übung.py']) {
      expect(parseMentions(`see ${mentionText('file', value)}, please`)).toMatchObject([{ kind: 'file', value }]);
    }
    expect(mentionText('diff')).toBe('@diff');
  });

  it('are offered by the nearness of what is typed: the beginning of the name, then any part, then letters in order', () => {
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
