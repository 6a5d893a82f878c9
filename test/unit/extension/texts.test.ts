import { describe, expect, it } from 'vitest';
import type { ModelCard } from '../../../engine/protocol/engineProtocol.ts';
import { controlsOf, noticeOf } from '../../../extension/chat/panel.ts';
import { EngineFailure, type FailureCode, failedOutcome } from '../../../extension/client/failure.ts';
import type { EngineState, EngineView } from '../../../extension/client/view.ts';
import { formatBytes, formatParameters, formatSpeed, percent } from '../../../extension/format.ts';
import { controls, notice, outcome } from '../../../extension/messages.ts';
import { statusText } from '../../../extension/status.ts';
import { canThink, defaultMode, Thinking } from '../../../extension/thinking.ts';
import { clientOf, hostOf, MemoryMemento } from './support.ts';

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
    const { text, tooltip } = statusText(view(state), false);
    expect(text).toMatch(/^\$\([\w~-]+\) \S/);
    expect(tooltip).not.toBe('');
  });

  it('shows the progress of a download', () => {
    const { text, tooltip } = statusText(view({ kind: 'downloading', name: 'M', done: 30e6, total: 100e6 }), false);
    expect([text, tooltip]).toEqual(['$(loading~spin) M 30%', 'Downloading M: 30 MB of 100 MB']);
  });

  it('shows model, speed, activity and paused completions', () => {
    const ready = { kind: 'ready', card } as const;
    expect(statusText(view(ready, { last }), false).text).toBe('$(flame) Model M  42 tokens/s');
    expect(statusText(view(ready, { running: 1 }), false).text).toBe('$(loading~spin) Model M');
    expect(statusText(view(ready), true).text).toBe('$(debug-pause) Model M');
    expect(statusText(view(ready, { last }), false).tooltip).toContain('100 prompt tokens, 80 from the cache');
  });

  it('marks a failure as an error and names it', () => {
    const { problem, tooltip } = statusText(
      view({ kind: 'failed', message: 'Out of memory.', remedy: 'restart' }),
      false,
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
        ...{ state: 'absent' as const, fit: { verdict: 'good' as const, reason: 'Fits.' }, recommended: true },
      },
    ];
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
