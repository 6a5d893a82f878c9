import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { limits } from '../../../extension/limits.ts';
import { NextEdit } from '../../../extension/nextEdit/nextEdit.ts';
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
    const own = lines[start.line] ?? '';
    lines[start.line] = own.slice(0, start.character) + text + own.slice(end.character);
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
    nextEdit = new NextEdit();
    before();
    own.type(0, 4, 9, 's');
    own.type(0, 5, 5, 'um');
    vi.advanceTimersByTime(limits.nextEdit.settleMs);
    return { ...own, nextEdit };
  }

  it('is shown at the next place after a pause, with the removed and the added text', () => {
    const { texts, struck } = renamed();
    expect(offered()).toBe(true);
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
    nextEdit = new NextEdit();
    own.type(0, 0, 5, 'sum\n');
    vi.advanceTimersByTime(limits.nextEdit.settleMs);
    expect(offered()).toBe(false);
  });
});
