import { describe, expect, it } from 'vitest';
import type { ModelCard } from '../../../engine/protocol/models.ts';
import { controlsOf, noticeOf } from '../../../extension/chat/pages.ts';
import {
  EngineFailure,
  type FailureCode,
  failedOutcome,
  progressNotes,
  reportedFailure,
} from '../../../extension/client/failure.ts';
import { type EngineState, type EngineView, ViewKeeper } from '../../../extension/client/host.ts';
import { formatBytes, formatParameters, formatSpeed, percent } from '../../../extension/format.ts';
import { controls, notice, outcome } from '../../../extension/messages.ts';
import { statusText } from '../../../extension/status.ts';
import { canThink, defaultMode, Thinking } from '../../../extension/thinking.ts';
import { clientOf, hostOf, MemoryMemento } from './support.ts';
import { env, translations } from './vscode.ts';

const card: ModelCard = {
  id: 'm',
  name: 'Model M',
  family: 'qwen3',
  backend: 'onnx',
  contextTokens: 4096,
  parameters: 4e9,
  weightBytes: 1,
  thinkingModes: ['off', 'on'],
  fillInTheMiddle: true,
  chat: true,
  toolCalling: true,
  notes: ['Weights are rounded to 4 bits.'],
};
const last = {
  promptTokens: 100,
  cachedTokens: 80,
  generatedTokens: 9,
  timeToFirstTokenMs: 120,
  tokensPerSecond: 42.4,
};
const view = (state: EngineState, over: Partial<EngineView> = {}): EngineView => ({
  state,
  running: 0,
  last: undefined,
  ...over,
});
const states: EngineState[] = [
  { kind: 'idle' },
  { kind: 'starting' },
  { kind: 'no-model', offers: [] },
  { kind: 'downloading', name: 'M', done: 30e6, total: 100e6 },
  { kind: 'loading', name: 'M', done: 0, total: 0 },
  { kind: 'ready', card },
  { kind: 'restarting', delayMs: 4000 },
  { kind: 'failed', message: 'Out of memory.', remedy: 'choose-model' },
];
const engine = hostOf(clientOf());
const thinking = new Thinking(new MemoryMemento(), engine);

describe('the status bar', () => {
  it.each(states.map((state) => [state.kind, state] as const))('has its own text: %s', (_, state) => {
    const { text, tooltip } = statusText(view(state), 'on');
    expect(text).toMatch(/^\$\([\w~-]+\) \S/);
    expect(tooltip).not.toBe('');
  });

  it('shows the progress of a download', () => {
    const { text, tooltip } = statusText(view({ kind: 'downloading', name: 'M', done: 30e6, total: 100e6 }), 'on');
    expect([text, tooltip]).toEqual(['$(loading~spin) M 30%', 'Downloading M: 30 MB of 100 MB']);
  });

  it('shows model, speed, activity and paused completions', () => {
    const ready = { kind: 'ready', card } as const;
    expect(statusText(view(ready, { last }), 'on').text).toBe('$(flame) Model M  42 tokens/s');
    expect(statusText(view(ready, { running: 1 }), 'on').text).toBe('$(loading~spin) Model M');
    expect(statusText(view(ready), 'paused').text).toBe('$(debug-pause) Model M');
    expect(statusText(view(ready, { last }), 'on').tooltip).toContain('100 prompt tokens, 80 from the cache');
  });

  it('says why the active editor has no completions', () => {
    const ready = view({ kind: 'ready', card });
    expect(statusText(ready, { offFor: 'markdown' })).toMatchObject({
      text: '$(circle-slash) Model M',
      tooltip: expect.stringContaining('Completions are off for markdown.'),
    });
    expect(statusText(ready, 'off').tooltip).toContain('Completions are switched off in the settings.');
  });

  it('shows figures only of the model that is used', () => {
    const keeper = new ViewKeeper();
    keeper.show({ kind: 'ready', card });
    keeper.count(1);
    keeper.count(-1, last);
    keeper.show({ kind: 'loading', name: 'M', done: 0, total: 0 });
    keeper.show({ kind: 'ready', card });
    expect(statusText(keeper.view, 'on').text).toContain('42 tokens/s');
    keeper.show({ kind: 'ready', card: { ...card, id: 'other' } });
    expect(statusText(keeper.view, 'on').text).not.toContain('tokens/s');
  });

  it('says that the server is gone', () => {
    const gone = view({ kind: 'ready', card: { ...card, host: 'team' } }, { away: 'It cannot be reached.' });
    expect(statusText(gone, 'on')).toMatchObject({
      text: '$(warning) Model M @ team',
      tooltip: expect.stringContaining('The server did not answer: It cannot be reached.'),
      problem: true,
    });
  });

  it('marks a failure as an error and names it', () => {
    const { problem, tooltip } = statusText(
      view({ kind: 'failed', message: 'Out of memory.', remedy: 'restart' }),
      'on',
    );
    expect([problem, tooltip]).toEqual([true, 'Out of memory.']);
  });
});

describe("the chat's panel", () => {
  it.each(states.map((state) => [state.kind, state] as const))('follows the protocol: %s', (_, state) => {
    expect(notice.safeParse(noticeOf(view(state))).success).toBe(true);
    expect(controls.safeParse(controlsOf(view(state), thinking)).success).toBe(true);
  });

  it('offers downloads with their size, and shows nothing if all is well', () => {
    const offers = [
      {
        ...{ id: 's', name: 'Small', description: 'Tiny.', licence: 'MIT', parameters: 1, downloadBytes: 98e6 },
        ...{ family: 'llama', embedding: false, fillInTheMiddle: false, contextTokens: 8192 },
        ...{
          state: 'absent' as const,
          fit: { verdict: 'good' as const, reason: 'Fits.' },
          recommendedFor: ['chat' as const],
          suitability: { chat: 1 },
        },
      },
    ].map((entry) => ({ entry }));
    expect(noticeOf(view({ kind: 'no-model', offers }))).toMatchObject({
      offers: [{ id: 's', label: 'Small (98 MB)', detail: 'Tiny. Fits.' }],
    });
    expect(noticeOf(view({ kind: 'ready', card }))).toEqual({ kind: 'none' });
  });

  it('describes the model, with its notes', () => {
    const { modelDetail, canThink: able, thinking: mode } = controlsOf(view({ kind: 'ready', card }), thinking);
    expect(modelDetail.split('\n')).toContain('Weights are rounded to 4 bits.');
    expect([able, mode]).toEqual([true, 'Off']);
  });
});

describe('a failed answer', () => {
  const codes: FailureCode[] = [
    ...([
      'engine-ended',
      'engine-given-up',
      'protocol',
      'no-model',
      'invalid-input',
      'unsupported',
      'not-found',
    ] as const),
    ...(['out-of-memory', 'context-overflow', 'device-lost', 'unavailable', 'internal'] as const),
  ];
  it.each(codes)('has a message and at least one action: %s', (code) => {
    const failed = outcome.parse(failedOutcome(new EngineFailure(code, 'It went wrong.'), true));
    expect(failed.kind).toBe('failed');
    if (failed.kind !== 'failed') return;
    expect(failed.message).toMatch(/\.$/);
    expect(failed.actions.length).toBeGreaterThan(0);
  });

  it('is not a failure if the user cancelled', () => {
    expect(failedOutcome(new EngineFailure('cancelled', ''), false)).toEqual({ kind: 'stopped' });
  });
});

describe('the thinking switch', () => {
  it('starts off if the model can, otherwise at medium', () => {
    expect(defaultMode(['off', 'on'])).toBe('off');
    expect(defaultMode(['low', 'medium', 'high'])).toBe('medium');
    expect([canThink(['off']), canThink(['off', 'on']), canThink([])]).toEqual([false, true, false]);
  });

  it('is remembered for each model', async () => {
    const memory = new MemoryMemento();
    const first = new Thinking(memory, engine);
    await first.set({ id: 'm' }, 'on');
    const later = new Thinking(memory, engine);
    expect(later.mode(card)).toBe('on');
    expect(later.mode({ id: 'other', thinkingModes: ['off', 'on'] })).toBe('off');
  });

  it('ignores a stored mode that the model lacks', async () => {
    await thinking.set({ id: 'm' }, 'high');
    expect(thinking.mode(card)).toBe('off');
  });
});

describe('figures', () => {
  it('are formatted in common units', () => {
    expect([formatBytes(98_362_432), formatBytes(12.1e9), formatBytes(10)]).toEqual(['98 MB', '12.1 GB', '1 kB']);
    expect([formatParameters(134_515_008), formatParameters(4e9), formatParameters(30.5e9)]).toEqual([
      '135 M',
      '4.0 B',
      '31 B',
    ]);
    expect([formatSpeed(7.26), formatSpeed(87.3)]).toEqual(['7.3 tokens/s', '87 tokens/s']);
    expect([percent(1, 3), percent(5, 0), percent(7, 5)]).toEqual([33, undefined, 100]);
  });
});

describe('the progress of a summary', () => {
  it('is "part N of M", with the remaining time once one part is done', () => {
    let nowMs = 0;
    const noteOf = progressNotes(() => nowMs);
    const step = { task: 'summarise', subject: 's', message: 'a.ts, lines 1–90', total: 4, unit: 'parts' } as const;
    expect(noteOf({ ...step, done: 0 })).toEqual({ note: 'Part 1 of 4: a.ts, lines 1–90', share: 0 });
    nowMs = 20_000;
    expect(noteOf({ ...step, done: 1 })).toEqual({
      note: 'Part 2 of 4: a.ts, lines 1–90 (about 60 s left)',
      share: 0.25,
    });
    nowMs = 400_000;
    expect(noteOf({ ...step, done: 2 }).note).toContain('about 7 min left');
  });

  it('is only its message if there are no parts', () => {
    const step = { task: 'load', subject: 's', message: 'Loading', done: 1, total: 2, unit: 'bytes' } as const;
    expect(progressNotes()(step)).toEqual({ note: 'Loading', share: 0.5 });
  });
});

describe('a failure that the engine reports', () => {
  it('is shown unchanged in English; in another language its kind precedes it', () => {
    const message = 'Three requests wait.';
    expect(reportedFailure('busy', message, undefined).message).toBe(message);
    env.language = 'de';
    translations.set('Too many requests are waiting.', 'Zu viele Anforderungen warten.');
    try {
      expect(reportedFailure('busy', message, undefined).message).toBe(`Zu viele Anforderungen warten. ${message}`);
      expect(reportedFailure('cancelled', message, undefined).message).toBe(message);
    } finally {
      env.language = 'en';
      translations.clear();
    }
  });
});
