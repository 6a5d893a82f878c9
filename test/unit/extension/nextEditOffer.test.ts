import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { limits } from '../../../extension/limits.ts';
import { Foresight, NextEdit } from '../../../extension/nextEdit/nextEdit.ts';
import type { Place } from '../../../extension/nextEdit/pattern.ts';
import { events, Position, Range, Selection, settings, user, window } from './vscode.ts';

/** A partial editor: text, cursor and decorations. */
function editorOn(lines: string[]) {
  const drawn = new Map<unknown, { range: Range; renderOptions?: { after: { contentText: string } } }[]>();
  const document = {
    uri: { scheme: 'file', toString: () => 'file:///a.ts' },
    get lineCount() {
      return lines.length;
    },
    lineAt: (line: number) => ({ text: lines[line] ?? '' }),
    getText: () => lines.join('\n'),
  };
  const replace = ({ start, end }: Range, text: string) => {
    const [first, last] = [lines[start.line] ?? '', lines[end.line] ?? ''];
    const fresh = first.slice(0, start.character) + text + last.slice(end.character);
    lines.splice(start.line, end.line - start.line + 1, ...fresh.split('\n'));
    const contentChanges = [{ range: { start, end }, text }];
    events.document.fire({ document, contentChanges } as never);
  };
  const editor = {
    document,
    selection: new Selection(new Position(0, 0), new Position(0, 0)),
    setDecorations: (type: unknown, list: never[]) => drawn.set(type, list),
    revealRange: vi.fn(),
    edit: (change: (edit: { replace: typeof replace }) => void) => {
      change({ replace });
      return Promise.resolve(true);
    },
  };
  window.activeTextEditor = editor;
  return {
    lines,
    editor,
    /** Moves the cursor. */
    move(line: number, character = 0) {
      editor.selection = new Selection(new Position(line, character), new Position(line, character));
      events.selection.fire({ textEditor: editor } as never);
    },
    type: (line: number, start: number, end: number, text: string) =>
      replace(new Range(new Position(line, start), new Position(line, end)), text),
    texts: () => [...drawn.values()].flat().flatMap(({ renderOptions }) => renderOptions?.after.contentText ?? []),
    struck: () => [...drawn.values()].flat().filter((own) => own instanceof Range),
  };
}

const offered = () =>
  user.commands.findLast((command) => command.startsWith('setContext')) === 'setContext hearth.nextEdit true';

/** Finds nothing. */
const foresight = { note: vi.fn(), ask: vi.fn<Foresight['ask']>(), cancel: vi.fn() };

describe('the next edit', () => {
  let nextEdit: NextEdit | undefined;
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => {
    nextEdit?.dispose();
    vi.useRealTimers();
    settings.clear();
    user.reset();
  });

  /** An editor in which `total` in the first of four lines has just become `sum`. */
  function renamed(before: () => void = () => {}) {
    const own = editorOn(['let total = 0;', 'other();', 'total += 1;', 'return total;']);
    nextEdit = new NextEdit(foresight);
    before();
    own.type(0, 4, 9, 's');
    own.type(0, 5, 5, 'um');
    vi.advanceTimersByTime(limits.nextEdit.settleMs);
    return { ...own, nextEdit };
  }

  it('is shown at the next place after a pause, with the removed and the added text', async () => {
    const { texts, struck } = renamed();
    expect(offered()).toBe(true);
    // Its keys are bound before the text names them.
    expect([offered(), texts()]).toEqual([true, []]);
    await vi.advanceTimersByTimeAsync(0);
    expect(texts()).toEqual(['sum', 'Tab to jump to the same change on line 3']);
    expect(struck()).toEqual([new Range(new Position(2, 0), new Position(2, 5))]);
  });

  it('is reached by the first Tab and applied by the second, then the next is offered', async () => {
    const { nextEdit, lines, editor, move, texts } = renamed();
    await nextEdit.accept();
    expect(editor.selection.active).toEqual(new Position(2, 0));
    expect(lines[2]).toBe('total += 1;');
    move(2);
    expect(texts()).toContain('Tab to accept, Esc to dismiss');
    await nextEdit.accept();
    expect(lines[2]).toBe('sum += 1;');
    expect(texts()).toContain('Tab to jump to the same change on line 4');
  });

  it('ends when every place is changed', async () => {
    const { nextEdit, lines, move, texts } = renamed();
    for (const line of [2, 3]) {
      move(line);
      await nextEdit.accept();
    }
    expect(lines).toEqual(['let sum = 0;', 'other();', 'sum += 1;', 'return sum;']);
    expect([offered(), texts()]).toEqual([false, []]);
  });

  it.each([
    ['Escape', ({ nextEdit }: ReturnType<typeof renamed>) => nextEdit.dismiss()],
    ['going on elsewhere', ({ move }: ReturnType<typeof renamed>) => move(1)],
    ['the next key', ({ type }: ReturnType<typeof renamed>) => type(0, 0, 0, 'x')],
    ['another file', () => events.activeEditor.fire(undefined)],
  ])('is dismissed by %s', (_, act) => {
    const own = renamed();
    act(own);
    expect([offered(), own.texts()]).toEqual([false, []]);
  });

  it('is not offered if the setting is off', () => {
    renamed(() => settings.set('hearth.nextEdit.enabled', false));
    expect(offered()).toBe(false);
  });

  it('is learned from a changed line, not from added lines', () => {
    const own = editorOn(['total', 'total']);
    nextEdit = new NextEdit(foresight);
    own.type(0, 0, 5, 'sum\n');
    vi.advanceTimersByTime(limits.nextEdit.settleMs);
    expect(offered()).toBe(false);
  });

  describe('that the model predicts', () => {
    const place: Place = { line: 3, start: 0, end: 6, text: 'give' };

    /** `other();` has become `another();`, which stands nowhere else, and the model answered `place`. */
    function foreseen() {
      const own = editorOn(['let total = 0;', 'other();', 'total += 1;', 'return total;']);
      own.move(1);
      nextEdit = new NextEdit(foresight);
      foresight.ask.mockClear();
      foresight.note.mockClear();
      own.type(1, 0, 5, 'another');
      vi.advanceTimersByTime(limits.nextEdit.settleMs);
      const found = foresight.ask.mock.lastCall?.[2];
      return { ...own, nextEdit, found };
    }

    it('is requested if the pattern fits nowhere, and shown as inserted and deleted text', async () => {
      const { found, texts, struck } = foreseen();
      expect(foresight.note).toHaveBeenLastCalledWith(expect.anything(), 1, 'other();');
      expect(offered()).toBe(false);
      found?.(place);
      await vi.advanceTimersByTimeAsync(0);
      expect(texts()).toEqual(['give', 'Tab to jump to the next edit on line 4']);
      expect(struck()).toEqual([new Range(new Position(3, 0), new Position(3, 6))]);
    });

    it('is reached and applied by Tab, and then the model is asked again', async () => {
      const { nextEdit, found, lines, move, texts } = foreseen();
      found?.(place);
      await nextEdit.accept();
      move(3);
      expect(texts()).toContain('Tab to accept, Esc to dismiss');
      await nextEdit.accept();
      expect(lines[3]).toBe('give total;');
      expect([offered(), texts()]).toEqual([false, []]);
      expect(foresight.note).toHaveBeenLastCalledWith(expect.anything(), 3, 'return total;', undefined);
      expect(foresight.ask).toHaveBeenCalledTimes(2);
    });

    it('may remove lines: they are struck out, and Tab removes them', async () => {
      const { nextEdit, found, lines, move, struck, texts } = foreseen();
      found?.({ line: 2, start: 0, endLine: 3, end: 0, text: '' });
      await vi.advanceTimersByTimeAsync(0);
      expect(struck()).toEqual([new Range(new Position(2, 0), new Position(3, 0))]);
      expect(texts()).toEqual(['', 'Tab to jump to the next edit on line 3']);
      await nextEdit.accept();
      move(2);
      await nextEdit.accept();
      expect(lines).toEqual(['let total = 0;', 'another();', 'return total;']);
      expect(foresight.note).toHaveBeenLastCalledWith(expect.anything(), 2, 'total += 1;', '');
    });

    it('is not shown if the cursor left the line meanwhile', () => {
      const { found, move } = foreseen();
      move(0);
      found?.(place);
      expect(offered()).toBe(false);
    });

    it('is cancelled by the next key, and not requested if the pattern fits somewhere', () => {
      const { type } = foreseen();
      foresight.cancel.mockClear();
      type(1, 0, 0, 'x');
      expect(foresight.cancel).toHaveBeenCalled();
      nextEdit?.dispose();
      foresight.ask.mockClear();
      renamed();
      expect(foresight.ask).not.toHaveBeenCalled();
    });
  });
});

describe('asking the model for the next edit', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => {
    vi.useRealTimers();
    settings.clear();
  });

  function asking(card: object = {}, mode?: string, change: object = {}) {
    const answered = { line: 2, lines: 1, text: 'sum += 2;', logProbability: 0, ...change };
    if (mode !== undefined) settings.set('hearth.nextEdit.model', mode);
    const { editor } = editorOn(['let total = 0;', 'let sum = 1;', 'sum += 1;', 'return;']);
    const nextEdit = vi.fn(async () => answered);
    const foresight = new Foresight({ current: { completionModel: card, nextEdit } } as never, { debug: vi.fn() });
    foresight.note(editor.document as never, 1, 'sum += 0;');
    const found = vi.fn();
    foresight.ask(editor.document as never, 1, found);
    return { foresight, nextEdit, found, settle: () => vi.advanceTimersByTimeAsync(limits.nextEdit.idleMs) };
  }

  it('waits for a pause in typing, and finds the part of the line that changes', async () => {
    const { nextEdit, found, settle } = asking({ foreseesEdits: true });
    expect(nextEdit).not.toHaveBeenCalled();
    await settle();
    expect(nextEdit).toHaveBeenCalledWith(
      expect.objectContaining({
        edits: [
          { path: expect.any(String), line: 1, above: 'let total = 0;', before: 'sum += 0;', after: 'let sum = 1;' },
        ],
        places: [{ line: 2, above: 'let sum = 1;', text: 'sum += 1;' }],
        window: {
          firstLine: 0,
          text: 'let total = 0;\nlet sum = 1;\nsum += 1;\nreturn;',
          before: 'let total = 0;\nsum += 0;\nsum += 1;\nreturn;',
          cursor: 'let total = 0;\nlet sum = 1'.length,
        },
      }),
      expect.anything(),
    );
    expect(found).toHaveBeenCalledWith({ line: 2, start: 7, end: 8, text: '2' });
  });

  it.each([
    ['a line that goes', { text: '' }, { line: 2, start: 0, endLine: 3, end: 0, text: '' }],
    ['the last lines, which go', { lines: 2, text: '' }, { line: 2, start: 0, endLine: 3, end: 7, text: '' }],
    [
      'lines that become others',
      { lines: 2, text: 'sum += 1;\nreturn sum;' },
      { line: 3, start: 6, end: 6, text: ' sum' },
    ],
    [
      'lines that become one',
      { lines: 2, text: 'sum += 1; return;' },
      { line: 2, start: 9, endLine: 3, end: 0, text: ' ' },
    ],
  ])('finds %s', async (_, change, place) => {
    const { found, settle } = asking({ foreseesEdits: true }, undefined, change);
    await settle();
    expect(found).toHaveBeenCalledWith(place);
  });

  it('ignores lines that the document does not have', async () => {
    const { found, settle } = asking({ foreseesEdits: true }, undefined, { lines: 3 });
    await settle();
    expect(found).not.toHaveBeenCalled();
  });

  it('stops asking once it is cancelled', async () => {
    const { foresight, nextEdit, settle } = asking({ foreseesEdits: true });
    foresight.cancel();
    await settle();
    expect(nextEdit).not.toHaveBeenCalled();
  });

  it.each([
    ['a model trained on edits', { foreseesEdits: true }, undefined, true],
    ['no other model', {}, undefined, false],
    ['any model with `on`', {}, 'on', true],
    ['no model with `off`', { foreseesEdits: true }, 'off', false],
    ['no server', { foreseesEdits: true, host: 'example.org' }, 'on', false],
  ])('asks %s', async (_, card, mode, expected) => {
    const { nextEdit, settle } = asking(card, mode);
    await settle();
    expect(nextEdit.mock.calls.length > 0).toBe(expected);
  });
});
