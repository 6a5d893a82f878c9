// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { pageTexts } from '../../../extension/chat/pages.ts';
import { type ToHost, type ToPage, type Turn, toHost } from '../../../extension/messages.ts';

const figures = {
  promptTokens: 140,
  cachedTokens: 90,
  generatedTokens: 20,
  timeToFirstTokenMs: 210,
  tokensPerSecond: 42,
};
const turn = (over: Partial<Turn> = {}): Turn => ({
  id: 't1',
  kind: 'chat',
  question: 'Why?',
  chips: [],
  omitted: [],
  thinking: '',
  answer: '',
  steps: [],
  model: 'M',
  citations: [],
  missing: [],
  outcome: { kind: 'running', note: '' },
  ...over,
});
const done: Turn['outcome'] = { kind: 'done', reason: 'stop', figures, dropped: 0 };

const controls = {
  ...{ model: 'M', modelDetail: '', thinking: 'Off', thinkingOn: false, canThink: false },
  agent: 'off' as const,
};

let sent: ToHost[] = [];
const $ = <T extends HTMLElement>(selector: string): T => {
  const found = document.querySelector<T>(selector);
  if (found === null) throw new Error(`no ${selector}`);
  return found;
};

async function tell(...messages: ToPage[]): Promise<void> {
  for (const data of messages) window.dispatchEvent(new MessageEvent('message', { data }));
  await new Promise((resolve) => requestAnimationFrame(() => resolve(undefined)));
}

const key = (target: HTMLElement, name: string, over: KeyboardEventInit = {}) =>
  target.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true, cancelable: true, ...over }));

function type(text: string): void {
  $<HTMLTextAreaElement>('#question').value = text;
  $('#question').dispatchEvent(new Event('input'));
}

/** A draft report may follow. */
const untilSent = (name: ToHost['type']) =>
  vi.waitFor(() => expect(sent.findLast(({ type }) => type === name || type !== 'draft')?.type).toBe(name), {
    timeout: 30_000,
  });

/** A page normally lives as long as its window; here one window has many pages. */
const listeners: (() => void)[] = [];
for (const target of [window, document]) {
  const add = target.addEventListener.bind(target);
  target.addEventListener = (name: string, listener: EventListener, options?: AddEventListenerOptions) => {
    listeners.push(() => target.removeEventListener(name, listener));
    add(name, listener, options);
  };
}
afterEach(() => {
  for (const remove of listeners.splice(0)) remove();
});

beforeEach(async () => {
  // Of this page alone: a page before it may still report its draft.
  const own: ToHost[] = [];
  sent = own;
  document.body.replaceChildren();
  document.body.dataset['texts'] = JSON.stringify(pageTexts());
  vi.stubGlobal(
    'ResizeObserver',
    class {
      observe() {}
    },
  );
  vi.stubGlobal('acquireVsCodeApi', () => ({
    postMessage: (message: ToHost) => own.push(message),
  }));
  vi.resetModules();
  await import('../../../media/chat.ts');
});

describe('the chat page', () => {
  it('reports that it is ready and shows the welcome', () => {
    expect(sent).toEqual([{ type: 'ready' }]);
    expect($('#empty').hidden).toBe(false);
    expect(document.querySelectorAll('.example')).toHaveLength(3);
  });

  it('puts an example into the question box without sending it', () => {
    $('.example').click();
    expect($<HTMLTextAreaElement>('#question').value).toBe(pageTexts().examples[0]);
    expect(sent).toHaveLength(1);
  });

  it("sends with Enter, breaks the line with Shift+Enter, and ignores an input method's Enter", () => {
    type('Hello');
    key($('#question'), 'Enter', { shiftKey: true });
    key($('#question'), 'Enter', { isComposing: true });
    expect(sent).toHaveLength(1);
    key($('#question'), 'Enter');
    expect(sent.at(-1)).toEqual({ type: 'send', text: 'Hello' });
    expect($<HTMLTextAreaElement>('#question').value).toBe('');
  });

  it('shows a long conversation from its end, in order, and any turn of an event at once', async () => {
    const turns = Array.from({ length: 200 }, (_, i) => turn({ id: `t${i}`, question: `q${i}`, outcome: done }));
    const shown = () => [...document.querySelectorAll('.question-text')].map(({ textContent }) => textContent);
    const questions = turns.map(({ question }) => question);
    window.dispatchEvent(new MessageEvent('message', { data: { type: 'conversation', turns } }));
    expect(shown()).toEqual(questions.slice(-shown().length));
    expect(shown().length).toBeLessThan(100);
    window.dispatchEvent(new MessageEvent('message', { data: { type: 'drop', turn: 't3' } }));
    expect(shown()).toEqual(questions.filter((question) => question !== 'q3'));
    await tell({ type: 'conversation', turns });
    await vi.waitFor(() => expect(shown()).toEqual(questions), { timeout: 60_000 });
    // Another conversation is opened before the first one is complete.
    await tell({ type: 'conversation', turns }, { type: 'conversation', turns: turns.slice(0, 2) });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(shown()).toEqual(['q0', 'q1']);
  });

  it('does not send blanks', () => {
    type('  \n');
    key($('#question'), 'Enter');
    expect([sent.length, $<HTMLButtonElement>('#send').disabled]).toEqual([1, true]);
  });

  it('reports the draft with its cursor, and restores it in the next page', async () => {
    const box = $<HTMLTextAreaElement>('#question');
    type('half a thought');
    box.setSelectionRange(5, 6);
    box.dispatchEvent(new Event('blur'));
    const draft = { text: 'half a thought', start: 5, end: 6 };
    expect(sent.at(-1)).toEqual({ type: 'draft', draft });
    await tell({ type: 'draft', draft: { text: 'older', start: 0, end: 0 } });
    expect(box.value).toBe('half a thought');
    type('');
    await tell({ type: 'draft', draft });
    expect([box.value, box.selectionStart, box.selectionEnd]).toEqual(['half a thought', 5, 6]);
  });

  it('shows the draft written in the other page, and does not report it back', async () => {
    const box = $<HTMLTextAreaElement>('#question');
    for (const text of ['H', 'Hello', '']) {
      await tell({ type: 'mirror', draft: { text, start: text.length, end: text.length } });
      expect([box.value, box.selectionStart]).toEqual([text, text.length]);
      expect($<HTMLButtonElement>('#send').disabled).toBe(text === '');
      box.dispatchEvent(new Event('blur'));
    }
    expect(sent.filter(({ type: kind }) => kind === 'draft')).toEqual([]);
    type('mine');
    box.focus();
    vi.spyOn(document, 'hasFocus').mockReturnValue(true);
    await tell({ type: 'mirror', draft: { text: 'old', start: 3, end: 3 } });
    expect(box.value).toBe('mine');
  });

  it('folds many search results into one line, and lists other attachments', async () => {
    const found = Array.from({ length: 4 }, (_, index) => ({
      id: `found:${index}`,
      label: `${index}`,
      detail: '',
      tokens: 1,
    }));
    const chips = [{ id: 'file:a', label: 'a.ts', detail: '', tokens: 1 }, ...found];
    await tell({ type: 'conversation', turns: [turn({ chips, outcome: done })] });
    expect($('.passages summary').textContent).toBe('4 chunks');
    expect($<HTMLDetailsElement>('.passages').open).toBe(false);
    expect([...document.querySelectorAll('.question > .chips .chip')].map((chip) => chip.textContent)).toEqual([
      'a.ts',
    ]);
    expect(document.querySelectorAll('.passages .chip')).toHaveLength(4);
    await tell({ type: 'conversation', turns: [turn({ chips: chips.slice(0, 4), outcome: done })] });
    expect(document.querySelectorAll('.passages')).toHaveLength(0);
    expect(document.querySelectorAll('.question > .chips .chip')).toHaveLength(4);
  });

  it('streams an answer and then shows its figures', async () => {
    await tell({ type: 'turn', turn: turn() });
    expect([$('#empty').hidden, $('#send').hidden, $('#stop').hidden]).toEqual([true, true, false]);
    await tell({ type: 'delta', turn: 't1', kind: 'text', text: 'Because **of' });
    await tell({ type: 'delta', turn: 't1', kind: 'text', text: '** it.' });
    expect($('.answer-text').innerHTML).toContain('<strong>of</strong>');
    expect($('.turn').getAttribute('aria-busy')).toBe('true');
    await tell({ type: 'end', turn: 't1', outcome: done });
    expect($('.turn').dataset['state']).toBe('done');
    expect($('.figures').textContent).toBe('42 tokens/s · 140 prompt, 90 cached');
    expect([$('#send').hidden, $('#stop').hidden]).toEqual([false, true]);
    expect($('#announcer').textContent).toContain('Because **of** it.');
  });

  it('shows the speed of an answer after a second', async () => {
    const now = vi.spyOn(performance, 'now');
    const delta = (text: string, tokens: number): ToPage => ({ type: 'delta', turn: 't1', kind: 'text', text, tokens });
    await tell({ type: 'turn', turn: turn() });
    now.mockReturnValue(10_000);
    await tell(delta('One', 3));
    now.mockReturnValue(10_900);
    await tell(delta(' two', 12));
    expect(document.querySelector('.figures')).toBeNull();
    now.mockReturnValue(12_000);
    await tell(delta(' three', 43));
    expect($('.figures').textContent).toBe('20 tokens/s');
    await tell({ type: 'delta', turn: 't1', kind: 'text', text: ' four' });
    expect($('.figures').textContent).toBe('20 tokens/s');
    now.mockRestore();
    await tell({ type: 'end', turn: 't1', outcome: done });
    expect($('.figures').textContent).toContain('42 tokens/s');
  });

  it('stops with the button and with Escape, only during an answer', async () => {
    key(document.body, 'Escape');
    expect(sent).toHaveLength(1);
    await tell({ type: 'turn', turn: turn() });
    $('#stop').click();
    key(document.body, 'Escape');
    expect(sent.slice(1)).toEqual(Array(2).fill({ type: 'action', action: 'stop' }));
  });

  it('sends a question during an answer with a button that says it is queued', async () => {
    await tell({ type: 'turn', turn: turn() });
    expect($('#send').hidden).toBe(true);
    type('next');
    expect([$('#send').hidden, $('#send').title, $('#stop').hidden]).toEqual([false, pageTexts().queue, false]);
    $('#send').click();
    expect(sent.find((message) => message.type === 'send')).toEqual({ type: 'send', text: 'next' });
    await tell({ type: 'end', turn: 't1', outcome: done });
    expect($('#send').title).toBe(pageTexts().send);
  });

  const queued = (id: string, held = false) => turn({ id, question: id, outcome: { kind: 'queued', held } });
  const order = () => [...document.querySelectorAll<HTMLElement>('.turn')].map(({ dataset }) => dataset['turn']);

  it('lists queued questions in order below the running answer, and moves them when they start', async () => {
    await tell({ type: 'conversation', turns: [turn(), queued('q1'), queued('q2')] });
    expect([...document.querySelectorAll('.queue-line')].map(({ firstChild }) => firstChild?.textContent)).toEqual([
      'Queued',
      'Queued',
    ]);
    expect(document.querySelector('[data-action=send]')).toBeNull();
    await tell({ type: 'end', turn: 't1', outcome: done }, { type: 'start', turn: 'q2' });
    expect([order(), $('[data-turn=q2]').dataset['state'], $('#stop').hidden]).toEqual([
      ['t1', 'q2', 'q1'],
      'running',
      false,
    ]);
    expect($('[data-turn=q2]').querySelector('.queue-line')).toBeNull();
    await tell({ type: 'turn', turn: turn({ id: 'new' }) }, { type: 'turn', turn: queued('q3') });
    expect([order(), $('#announcer').textContent]).toEqual([['t1', 'q2', 'new', 'q1', 'q3'], pageTexts().queued]);
  });

  it('removes, edits and sends a queued question', async () => {
    await tell({ type: 'conversation', turns: [turn(), queued('q1')] });
    $('[data-turn=q1] [data-action=remove]').click();
    expect(sent.at(-1)).toEqual({ type: 'action', action: 'remove', turn: 'q1' });
    $('[data-turn=q1] .edit').click();
    $<HTMLTextAreaElement>('.question-edit').value = 'better';
    key($('.question-edit'), 'Enter');
    expect(sent.at(-1)).toEqual({ type: 'resend', turn: 'q1', text: 'better' });
    await tell({ type: 'turn', turn: { ...queued('q1'), question: 'better' } });
    expect([order(), $('[data-turn=q1] .question-text').textContent]).toEqual([['t1', 'q1'], 'better']);
    await tell({ type: 'queue', turn: 'q1', held: true });
    expect($('.queue-line').firstChild?.textContent).toBe(pageTexts().held);
    $('[data-turn=q1] [data-action=send]').click();
    expect(sent.at(-1)).toEqual({ type: 'action', action: 'send', turn: 'q1' });
    await tell({ type: 'drop', turn: 't1' }, { type: 'drop', turn: 'q1' });
    expect([order(), $('#empty').hidden]).toEqual([[], false]);
  });

  it('offers Answer now only while the model thinks', async () => {
    await tell({ type: 'turn', turn: turn() });
    const button = $<HTMLButtonElement>('.answer-now');
    expect(button.hidden).toBe(true);
    await tell({ type: 'delta', turn: 't1', kind: 'thinking', text: 'Hm.' });
    expect(button.hidden).toBe(false);
    button.click();
    expect(sent.at(-1)).toEqual({ type: 'action', action: 'answer-now' });
    await tell({ type: 'delta', turn: 't1', kind: 'text', text: 'So.' });
    expect(button.hidden).toBe(true);
  });

  it('shows thinking folded while it streams', async () => {
    await tell({ type: 'turn', turn: turn() }, { type: 'delta', turn: 't1', kind: 'thinking', text: 'Hm.' });
    const thoughts = $<HTMLDetailsElement>('.thoughts');
    expect([thoughts.hidden, thoughts.open, thoughts.querySelector('summary')?.textContent]).toEqual([
      false,
      false,
      'Thinking…',
    ]);
    await tell({ type: 'delta', turn: 't1', kind: 'text', text: 'So.' });
    expect(thoughts.querySelector('summary')?.textContent).toBe('Thoughts');
    expect(thoughts.textContent).toContain('Hm.');
  });

  it('shows progress until the first word', async () => {
    await tell({ type: 'turn', turn: turn({ outcome: { kind: 'running', note: 'Part 2 of 4', share: 0.25 } }) });
    expect($('.progress-note').textContent).toBe('Part 2 of 4');
    expect($('.turn [role=progressbar]').getAttribute('aria-valuenow')).toBe('25');
    await tell({ type: 'delta', turn: 't1', kind: 'text', text: 'It' });
    await tell({ type: 'progress', turn: 't1', note: 'Part 3 of 4' });
    expect(document.querySelector('.progress-note')).toBeNull();
  });

  it('continues an answer after the page is reloaded', async () => {
    await tell({ type: 'conversation', turns: [turn({ answer: 'Half an ' })] });
    await tell({ type: 'delta', turn: 't1', kind: 'text', text: 'answer.' });
    expect($('.answer-text').textContent?.trim()).toBe('Half an answer.');
    expect($('#stop').hidden).toBe(false);
  });

  it('replaces the text if the final one differs', async () => {
    await tell({ type: 'turn', turn: turn() }, { type: 'delta', turn: 't1', kind: 'text', text: 'Draft' });
    await tell({ type: 'text', turn: 't1', thinking: '', answer: 'Final' });
    expect($('.answer-text').textContent?.trim()).toBe('Final');
  });

  it.each([
    ['stopped', { kind: 'stopped' } as const, pageTexts().stopped],
    ['interrupted', { kind: 'interrupted' } as const, pageTexts().interrupted],
    ['cut by length', { ...done, reason: 'length' } as const, pageTexts().cutByLength],
    ['a text that repeats itself', { ...done, reason: 'repetition' } as const, pageTexts().cutByRepetition],
    ['cut by the context', { ...done, reason: 'context' } as const, pageTexts().cutByContext],
  ])('marks an answer that was %s', async (_, outcome, words) => {
    await tell({ type: 'conversation', turns: [turn({ answer: 'x', outcome })] });
    expect($('.remark').textContent).toBe(words);
  });

  it('shows how many messages no longer fit', async () => {
    await tell({ type: 'conversation', turns: [turn({ answer: 'x', outcome: { ...done, dropped: 3 } })] });
    expect($('.remark').textContent).toMatch(/^3 earlier/);
  });

  it('shows a failure as a card with working buttons', async () => {
    const outcome = { kind: 'failed', message: 'It stopped.', actions: ['retry', 'show-log'] } as const;
    await tell({ type: 'conversation', turns: [turn({ outcome: { ...outcome, actions: [...outcome.actions] } })] });
    expect($('.card').getAttribute('role')).toBe('alert');
    $('.card [data-action=retry]').click();
    expect(sent.at(-1)).toEqual({ type: 'action', action: 'retry', turn: 't1' });
  });

  it('copies, inserts and applies the exact code of a block', async () => {
    const answer = '```py\nif a < b:\n    print("&")\n```\n\nand `more`';
    await tell({ type: 'conversation', turns: [turn({ answer, outcome: done })] });
    $('.code [data-action=copy]').click();
    $('.code [data-action=insert]').click();
    $('.code [data-action=apply]').click();
    const code = 'if a < b:\n    print("&")';
    expect(sent.slice(1)).toEqual([
      { type: 'copy', text: code },
      { type: 'insert', text: code },
      { type: 'apply', turn: 't1', text: code },
    ]);
  });

  it('asks again with the same or an edited question', async () => {
    await tell({ type: 'conversation', turns: [turn({ answer: 'A', outcome: done })] });
    $('.again').click();
    expect(sent.at(-1)).toEqual({ type: 'resend', turn: 't1', text: 'Why?' });
    $('.edit').click();
    const box = $<HTMLTextAreaElement>('.question-edit');
    expect([box.value, document.activeElement]).toEqual(['Why?', box]);
    box.value = 'Why not?';
    key(box, 'Enter', { shiftKey: true });
    expect(sent).toHaveLength(2);
    key(box, 'Enter');
    expect(sent.at(-1)).toEqual({ type: 'resend', turn: 't1', text: 'Why not?' });
  });

  it('restores question and focus when editing is cancelled', async () => {
    await tell({ type: 'conversation', turns: [turn({ answer: 'A', outcome: done })] });
    $('.edit').click();
    $<HTMLTextAreaElement>('.question-edit').value = 'other';
    key($('.question-edit'), 'Escape');
    expect([$('.question-text').textContent, document.querySelector('.question-edit')]).toEqual(['Why?', null]);
    expect(document.activeElement).toBe($('.edit'));
    expect(sent).toHaveLength(1);
  });

  it("lets the user edit own questions, not a summary's", async () => {
    await tell({ type: 'conversation', turns: [turn({ kind: 'summary', outcome: done })] });
    expect(document.querySelector('.edit')).toBeNull();
    await tell({ type: 'turn', turn: turn({ id: 't2' }) });
    expect(document.body.classList.contains('answering')).toBe(true);
  });

  it('shows no buttons on unfinished code', async () => {
    await tell({ type: 'turn', turn: turn() }, { type: 'delta', turn: 't1', kind: 'text', text: '```py\nif a' });
    expect(document.querySelector('.code button')).toBeNull();
  });

  it('shows the attachments of the next question, which the user can remove and add', async () => {
    await tell({
      type: 'context',
      context: {
        chips: [{ id: 'file:a', label: 'a.ts', detail: '', tokens: 1200 }],
        restricted: false,
        pinnedTokens: 0,
      },
    });
    expect($('#chips .chip').title).toContain('about 1,200 tokens');
    $('#chips .chip button').click();
    expect(sent.at(-1)).toEqual({ type: 'remove-chip', id: 'file:a' });
    await tell({ type: 'context', context: { chips: [], addable: 'a.ts', restricted: false, pinnedTokens: 0 } });
    $('#chips .addable').click();
    expect(sent.at(-1)).toEqual({ type: 'add-context' });
  });

  it('pins what can be pinned, counts it in the context figure, and takes it out again', async () => {
    const chip = {
      id: '@file:a.ts',
      label: 'file:a.ts',
      detail: '',
      tokens: 40,
      mention: '@file:a.ts',
      pin: '@file:a.ts',
    };
    await tell({ type: 'controls', controls: { ...controls, contextTokens: 200 } });
    await tell({ type: 'context', context: { chips: [chip], restricted: false, pinnedTokens: 0 } });
    expect($('#usage').hidden).toBe(true);
    const button = () => $('#chips .chip [aria-pressed]');
    expect(button().title).toBe('Attach file:a.ts to every question of this chat');
    button().click();
    expect(sent.at(-1)).toEqual({ type: 'pin', mention: '@file:a.ts', isPinned: true });
    const pinned = { ...chip, isPinned: true };
    await tell({ type: 'context', context: { chips: [pinned], restricted: false, pinnedTokens: 40 } });
    expect($('#usage').textContent).toBe('20%');
    expect(document.querySelectorAll('#chips .chip button')).toHaveLength(1);
    expect([button().title, button().getAttribute('aria-pressed')]).toEqual([
      'Attached to every question of this chat. Remove file:a.ts',
      'true',
    ]);
    button().click();
    expect(sent.at(-1)).toEqual({ type: 'pin', mention: '@file:a.ts', isPinned: false });
  });

  it('offers to continue after an ended answer in a new chat', async () => {
    await tell({ type: 'conversation', turns: [turn({ answer: 'So.' })] });
    expect(document.querySelector('.icon-button.fork')).toBeNull();
    await tell({ type: 'end', turn: 't1', outcome: done });
    $('.icon-button.fork').click();
    expect(sent.at(-1)).toEqual({ type: 'action', action: 'fork', turn: 't1' });
  });

  it('shows sent and omitted attachments, and opens them', async () => {
    const chips = [{ id: 'file:a', label: 'a.ts', detail: 'lines 1 to 2 of 9', tokens: 12 }];
    await tell({ type: 'conversation', turns: [turn({ chips, omitted: ['b.ts: no room'], outcome: done })] });
    expect($('.question .chip').title).toBe('a.ts\nlines 1 to 2 of 9\nabout 12 tokens');
    expect($('.omitted').textContent).toBe('Left out: b.ts: no room');
    $('.question .chip').click();
    expect(sent.at(-1)).toEqual({ type: 'open-chip', turn: 't1', id: 'file:a' });
  });

  it('suggests completions of a mention and inserts one', async () => {
    $('#question').focus();
    type('see @fi');
    await untilSent('suggest');
    // The draft is reported too, at a time of its own.
    expect(sent).toContainEqual({ type: 'suggest', query: 'fi' });
    const items = [
      { kind: 'file' as const, label: 'file', detail: 'a file', text: '@file:', open: true },
      { kind: 'file' as const, label: 'fib.ts', detail: '', text: '@file:fib.ts', open: false },
    ];
    await tell({ type: 'suggestions', query: 'old', items: items.slice(1) });
    expect($('#mentions').hidden).toBe(true);
    await tell({ type: 'suggestions', query: 'fi', items });
    const box = $<HTMLTextAreaElement>('#question');
    expect([$('#mentions').hidden, box.getAttribute('aria-expanded')]).toEqual([false, 'true']);
    key(box, 'ArrowDown');
    const active = $(`#${box.getAttribute('aria-activedescendant')}`);
    expect([active.textContent, active.getAttribute('aria-selected')]).toEqual(['fib.ts', 'true']);
    key(box, 'Enter');
    expect([box.value, $('#mentions').hidden]).toEqual(['see @file:fib.ts ', true]);
    const draft = { text: 'see @file:fib.ts ', start: 17, end: 17 };
    await vi.waitFor(() => expect(sent.at(-1)).toEqual({ type: 'draft', draft }));
    expect(sent.some((message) => message.type === 'send')).toBe(false);
  });

  it('suggests the prompts of the repository after a slash that begins the question', async () => {
    $('#question').focus();
    type('see /re');
    type('/re');
    await untilSent('suggest');
    expect(sent.filter((message) => message.type === 'suggest')).toEqual([{ type: 'suggest', query: '/re' }]);
    const items = [{ kind: 'prompt' as const, label: 'review', detail: 'a prompt', text: '/review', open: false }];
    await tell({ type: 'suggestions', query: '/re', items });
    key($('#question'), 'Tab');
    expect($<HTMLTextAreaElement>('#question').value).toBe('/review ');
  });

  it('closes the mention list with Escape and then sends with Enter', async () => {
    $('#question').focus();
    type('#');
    await untilSent('suggest');
    const items = [{ kind: 'diff' as const, label: 'diff', detail: '', text: '@diff', open: false }];
    await tell({ type: 'suggestions', query: '', items });
    key($('#question'), 'Escape');
    key($('#question'), 'Enter');
    // A draft report may follow.
    expect(sent.findLast(({ type }) => type !== 'draft')).toEqual({ type: 'send', text: '#' });
    expect(sent.some((message) => message.type === 'action')).toBe(false);
  });

  it('removes a mention from the text with its chip', async () => {
    type('why does @file:a.ts fail');
    const chips = [{ id: '@file:a.ts', label: 'file:a.ts', detail: '', tokens: 0, mention: '@file:a.ts' }];
    await tell({ type: 'context', context: { chips, restricted: false, pinnedTokens: 0 } });
    $('#chips .chip button').click();
    expect($<HTMLTextAreaElement>('#question').value).toBe('why does fail');
  });

  it('links existing citations and marks missing ones, in prose and in code spans that are nothing else', async () => {
    const answer =
      'In `src/a.ts:1`, src/a.ts:12, src/a.ts:123, `f(src/a.ts:1)`, *gone.ts:3* and [a loop](src/a.ts:12).\n\n```ts\nsrc/a.ts:12\n```';
    const citations = [
      { text: 'src/a.ts:1', path: 'src/a.ts', line: 1, endLine: 1 },
      { text: 'src/a.ts:12', path: 'src/a.ts', line: 12, endLine: 12 },
    ];
    await tell({ type: 'conversation', turns: [turn({ answer, citations, missing: ['gone.ts:3'], outcome: done })] });
    const links = [...document.querySelectorAll<HTMLElement>('.citation')];
    expect(links.map((link) => link.textContent)).toEqual(['src/a.ts:1', 'src/a.ts:12', 'a loop']);
    links[2]?.click();
    expect(sent.at(-1)).toEqual({ type: 'open-citation', turn: 't1', text: 'src/a.ts:12' });
    expect($('.missing-place').textContent).toBe('gone.ts:3');
    expect($('.missing-place').title).toBe('gone.ts:3 is not in the workspace.');
    expect($('.answer-text').textContent).toContain('src/a.ts:123, f(src/a.ts:1), gone.ts:3 and a loop');
  });

  it('shows a corrected answer', async () => {
    await tell({ type: 'turn', turn: turn() }, { type: 'delta', turn: 't1', kind: 'text', text: 'See gone.ts:1.' });
    await tell({ type: 'text', turn: 't1', thinking: '', answer: 'See.' });
    await tell({ type: 'end', turn: 't1', outcome: done });
    expect($('.answer-text').textContent?.trim()).toBe('See.');
  });

  it('shows context window use', async () => {
    await tell({ type: 'controls', controls: { ...controls, contextTokens: 200 } });
    expect($('#usage').hidden).toBe(true);
    await tell({ type: 'conversation', turns: [turn({ answer: 'A', outcome: done })] });
    expect($('#usage').textContent).toBe('80%');
    expect($('#usage').getAttribute('aria-label')).toBe('160 of 200 tokens of the context window used (80%)');
    expect($('#usage').classList.contains('nearly-full')).toBe(true);
    await tell({ type: 'conversation', turns: [turn({ kind: 'summary', answer: 'A', outcome: done })] });
    expect($('#usage').hidden).toBe(true);
  });

  it('names a pasted picture and files from outside that are not attached, until something is typed', () => {
    const refusedOf = (event: Event, name: string, data: object): string => {
      Object.defineProperty(event, name, { value: { items: [], files: [], getData: () => '', ...data } });
      ($('#question') as HTMLElement).dispatchEvent(event);
      return $('#refused').textContent ?? '';
    };
    const cancelable = { bubbles: true, cancelable: true };
    expect(refusedOf(new Event('paste', cancelable), 'clipboardData', {})).toBe('');
    const paste = new Event('paste', cancelable);
    expect(refusedOf(paste, 'clipboardData', { items: [{ kind: 'file' }] })).toMatch(/^Not attached: picture\./);
    expect(paste.defaultPrevented).toBe(true);
    $('#question').dispatchEvent(new Event('input'));
    expect($('#refused').textContent).toBe('');
    const drop = new Event('drop', cancelable);
    const files = [{ name: 'a.png' }, { name: 'b.jpg' }];
    expect(refusedOf(drop, 'dataTransfer', { files })).toMatch(/^Not attached: a\.png, b\.jpg\./);
  });

  it('makes mentions of files that are dropped from the editor, at the cursor', async () => {
    const box = $('#question') as HTMLTextAreaElement;
    box.value = 'Compare and explain';
    box.setSelectionRange(7, 7);
    const drop = new Event('drop', { bubbles: true, cancelable: true });
    const list = 'file:///w/a.ts\r\n# a comment\r\nfile:///w/src';
    const getData = (type: string) => (type === 'application/vnd.code.uri-list' ? list : '');
    Object.defineProperty(drop, 'dataTransfer', { value: { items: [], files: [], getData } });
    box.dispatchEvent(drop);
    expect(drop.defaultPrevented).toBe(true);
    expect(sent.at(-1)).toEqual({ type: 'drop', uris: ['file:///w/a.ts', 'file:///w/src'] });
    await tell({ type: 'dropped', text: '@file:a.ts @folder:src', refused: ['b.png'] });
    expect(box.value).toBe('Compare @file:a.ts @folder:src  and explain');
    expect($('#refused').textContent).toContain('b.png');
  });

  it('makes a long pasted text an attachment, and leaves a short one to the box', () => {
    const pasted = (text: string): Event => {
      const event = new Event('paste', { bubbles: true, cancelable: true });
      Object.defineProperty(event, 'clipboardData', {
        value: { items: [], files: [], getData: (type: string) => (type === 'text/plain' ? text : '') },
      });
      $('#question').dispatchEvent(event);
      return event;
    };
    sent.length = 0;
    expect(pasted('a\nb').defaultPrevented).toBe(false);
    const long = Array.from({ length: 400 }, (_, i) => `line ${i}`);
    expect(pasted(long.join('\r\n')).defaultPrevented).toBe(true);
    expect(sent).toEqual([{ type: 'paste', text: long.join('\n') }]);
  });

  it('offers downloads with their size', async () => {
    const offers = [{ id: 'small', label: 'Small (98 MB)', detail: '' }];
    await tell({ type: 'notice', notice: { kind: 'no-model', text: 'Hearth needs a model.', offers } });
    const button = $('#notice .button');
    expect(button.textContent).toBe('Download Small (98 MB)');
    button.click();
    expect(sent.at(-1)).toEqual({ type: 'download', model: 'small' });
    const failed = { kind: 'no-model', text: 'There is no network.', failed: true, offers } as const;
    await tell({ type: 'notice', notice: failed });
    expect($('#notice .card.error').textContent).toContain('There is no network.');
    expect($('#notice .button').textContent).toBe('Try again');
    $('#notice .button').click();
    expect(sent.at(-1)).toEqual({ type: 'download', model: 'small' });
    await tell({ type: 'notice', notice: { kind: 'none' } });
    expect($('#notice').children).toHaveLength(0);
  });

  it('shows model and thinking mode, and opens their pickers', async () => {
    const controls = {
      model: 'Qwen3 4B',
      modelDetail: 'x',
      thinking: 'On',
      thinkingOn: true,
      canThink: true,
      agent: 'off' as const,
      contextTokens: 0,
    };
    await tell({ type: 'controls', controls });
    expect($('#model').getAttribute('aria-label')).toBe('Choose model: Qwen3 4B');
    expect([$('#thinking').getAttribute('aria-pressed'), $('#thinking').textContent]).toEqual(['true', 'On']);
    $('#model').click();
    $('#thinking').click();
    expect(sent.slice(1)).toEqual([
      { type: 'action', action: 'choose-model' },
      { type: 'action', action: 'thinking' },
    ]);
    await tell({ type: 'controls', controls: { ...controls, thinkingOn: false, canThink: false } });
    expect($('#thinking').title).toBe(pageTexts().cannotThink);
  });

  it('restores the last question with Up in an empty box', async () => {
    await tell({ type: 'conversation', turns: [turn({ outcome: done })] });
    key($('#question'), 'ArrowUp');
    expect($<HTMLTextAreaElement>('#question').value).toBe('Why?');
  });

  it('shows a question as plain text', async () => {
    await tell({ type: 'conversation', turns: [turn({ question: '<img src=x onerror=1>\n**b**', outcome: done })] });
    expect($('.question-text').textContent).toBe('<img src=x onerror=1>\n**b**');
    expect(document.querySelector('.question img, .question strong')).toBeNull();
  });

  it('reports invalid messages and goes on', async () => {
    await tell({ type: 'nonsense' } as never, null as never, {
      type: 'delta',
      turn: 'unknown',
      kind: 'text',
      text: 'x',
    });
    const reported = sent.filter(({ type }) => type === 'page-error');
    expect(reported).toHaveLength(2);
    await tell({ type: 'turn', turn: turn() });
    expect(document.querySelectorAll('.turn')).toHaveLength(1);
  });

  it('sends only valid messages', () => {
    type('Hello');
    key($('#question'), 'Enter');
    for (const button of document.querySelectorAll('button')) button.click();
    for (const message of sent) expect(toHost.safeParse(message).success, JSON.stringify(message)).toBe(true);
  });

  it('gives every control an accessible name', async () => {
    const chips = [{ id: 'a', label: 'a.ts', detail: '', tokens: 1 }];
    await tell({ type: 'conversation', turns: [turn({ chips, answer: '```js\n1\n```', outcome: done })] });
    for (const button of document.querySelectorAll('button')) {
      expect(button.getAttribute('aria-label') ?? button.textContent, button.outerHTML).not.toBe('');
    }
    for (const icon of document.querySelectorAll('svg')) expect(icon.getAttribute('aria-hidden')).toBe('true');
    expect($('#question').getAttribute('aria-label')).toBe(pageTexts().placeholder);
    expect($('#transcript').getAttribute('role')).toBe('log');
  });

  it('lists the changes of an answer with the buttons that each state has', async () => {
    const file = {
      id: '0',
      kind: 'rename',
      path: 'a.ts',
      to: 'b.ts',
      added: 2,
      removed: 1,
      state: 'proposed',
    } as const;
    const gone = { id: '1', kind: 'delete', path: 'c.ts', added: 0, removed: 9, state: 'rejected' } as const;
    await tell({ type: 'conversation', turns: [turn({ answer: 'A', outcome: done })] });
    await tell({ type: 'changes', turn: 't1', changes: { files: [file, gone], isRestorable: false } });
    expect($('.changes-head').textContent).toBe('File changes: 2+2−10');
    expect(
      [...document.querySelectorAll('.changes [data-act]')].map((button) => button.getAttribute('data-act')),
    ).toEqual(['accept', 'reject', 'accept', 'reject']);
    $('.changed-file').click();
    $('.changed-files [data-act=accept]').click();
    $('.card-actions [data-act=reject]').click();
    expect(sent.slice(-3)).toEqual([
      { type: 'changes', turn: 't1', act: 'show', file: '0' },
      { type: 'changes', turn: 't1', act: 'accept', file: '0' },
      { type: 'changes', turn: 't1', act: 'reject' },
    ]);
    const accepted = { ...file, state: 'accepted' as const };
    await tell({ type: 'changes', turn: 't1', changes: { files: [accepted], isRestorable: true } });
    expect(
      [...document.querySelectorAll<HTMLElement>('.changes [data-act]')].map(({ dataset }) => dataset['act']),
    ).toEqual(['restore']);
  });

  it("shows a step's request in full, as plain text, with buttons only while it waits", async () => {
    const text = `echo ${'x'.repeat(5_000)} <b>; rm -rf ~`;
    const step = { id: '0', title: 'Run a command', text, state: 'asks', result: '' } as const;
    await tell({ type: 'turn', turn: turn() }, { type: 'step', turn: 't1', step });
    expect($('.request pre').textContent).toBe(text);
    expect($<HTMLDetailsElement>('.steps').open).toBe(true);
    $('[data-permit=never]').click();
    expect(sent.at(-1)).toEqual({ type: 'permit', turn: 't1', step: '0', answer: 'never' });
    await tell({ type: 'step', turn: 't1', step: { ...step, state: 'refused' } });
    expect(document.querySelector('.request')).toBeNull();
    await tell({ type: 'step', turn: 't1', step: { ...step, id: '1' } });
    expect(document.querySelectorAll('[data-permit]')).toHaveLength(3);
    await tell({ type: 'end', turn: 't1', outcome: { kind: 'stopped' } });
    expect(document.querySelector('[data-permit]')).toBeNull();
    expect($<HTMLDetailsElement>('.steps').open).toBe(false);
    expect($('.steps > summary').textContent).toBe('Steps: 2');
  });

  it('shows no buttons for a step of an interrupted answer', async () => {
    const step = { id: '0', title: 'Run a command', text: 'ls', state: 'asks', result: '' } as const;
    await tell({ type: 'conversation', turns: [turn({ steps: [step], outcome: { kind: 'interrupted' } })] });
    expect(document.querySelector('[data-permit]')).toBeNull();
  });

  it('switches the agent where the model can', async () => {
    const controls = {
      model: 'M',
      modelDetail: '',
      thinking: 'Off',
      thinkingOn: false,
      canThink: false,
      contextTokens: 0,
    };
    // Before the extension has said what the model can do.
    $('#agent').click();
    for (const agent of ['unavailable', 'off', 'on'] as const) {
      await tell({ type: 'controls', controls: { ...controls, agent } });
      $('#agent').click();
    }
    expect(sent.filter(({ type }) => type === 'action')).toHaveLength(2);
    expect([$('#agent').getAttribute('aria-pressed'), $('#agent').title]).toEqual(['true', pageTexts().agentOn]);
  });
});
