/** Simulated typing: changes of real files, key by key with typing errors, pauses, cursor jumps and file switches. */
import { hunks, linesOf } from '../../extension/edits/hunks.ts';

export interface FileChange {
  readonly path: string;
  readonly before: string;
  readonly after: string;
}

/** The editor right after a key. */
export interface Key {
  readonly atMs: number;
  readonly path: string;
  readonly lines: readonly string[];
  readonly line: number;
  readonly character: number;
  /** The cursor moved without typing. */
  readonly isJump: boolean;
}

/**
 * Medians in milliseconds. Keys: Dhakal et al. 2018 ("Observations on typing from 136 million keystrokes") found 238 ms on
 * average. Before a line, and between moving the cursor and typing: 0.4 s for the hand to reach the keyboard and, not always,
 * 1.35 s of thought (Card, Moran and Newell 1980, "The keystroke-level model"). Looking for another place takes longer.
 */
const pausesMs = { key: 160, word: 300, line: 900, place: 3_000, file: 6_000 } as const;
/** Standard deviation of a pause's logarithm: the longest of a hundred is five times the median. */
const spread = 0.7;
/** Share of keys with a wrong letter, which Backspace then removes. */
const slips = 0.03;

/** The keys that turn each file's `before` into its `after`, one change after the other. */
export function* typing(changes: Iterable<FileChange>, random: () => number): Generator<Key> {
  const clock = new Clock(random);
  for (const change of changes) {
    clock.wait('file');
    yield* typedChange(change, clock, random);
  }
}

function* typedChange({ path, before, after }: FileChange, clock: Clock, random: () => number): Generator<Key> {
  const editor = new Editor(path, linesOf(before), clock);
  yield editor.jump(0, 0);
  for (const { newStart, removed, added } of hunks(before, after)) {
    yield* typedPlace(editor, newStart, removed, added, random);
  }
}

/** Changes line by line as far as old and new lines pair up, then removes or types the others. */
function* typedPlace(
  editor: Editor,
  first: number,
  removed: number,
  value: readonly string[],
  random: () => number,
): Generator<Key> {
  editor.clock.wait('place');
  for (let i = 0; i < Math.min(removed, value.length); i++) {
    const [old = '', now = ''] = [editor.lines[first + i], value[i]];
    if (old === now) continue;
    const start = sharedStart(old, now);
    const end = sharedStart(reversed(old.slice(start)), reversed(now.slice(start)));
    yield editor.jump(first + i, old.length - end);
    editor.clock.wait('line');
    if (old.length - end > start) yield editor.remove(old.length - end - start);
    yield* typedText(editor, now.slice(start, now.length - end), random);
  }
  if (removed > value.length) {
    yield editor.jump(first + value.length, 0);
    editor.clock.wait('line');
    yield editor.removeLines(removed - value.length);
  }
  if (value.length <= removed) return;
  const rest = value.slice(removed);
  const line = first + removed;
  const atEnd = line > 0;
  yield atEnd ? editor.jump(line - 1, editor.lines[line - 1]?.length ?? 0) : editor.jump(0, 0);
  editor.clock.wait('line');
  yield* typedText(editor, atEnd ? `\n${rest.join('\n')}` : `${rest.join('\n')}\n`, random);
}

function* typedText(editor: Editor, text: string, random: () => number): Generator<Key> {
  for (let at = 0; at < text.length; at++) {
    const char = text[at] ?? '';
    if (char === '\n') {
      // The editor indents.
      const [indent = ''] = /^[ \t]*/.exec(text.slice(at + 1)) ?? [];
      yield editor.type(`\n${indent}`);
      at += indent.length;
      editor.clock.wait('line');
      continue;
    }
    editor.clock.wait(/\w/.test(char) && !/\w/.test(text[at - 1] ?? ' ') ? 'word' : 'key');
    if (/[a-z]/.test(char) && random() < slips) {
      yield editor.type(String.fromCharCode(97 + Math.floor(random() * 26)));
      editor.clock.wait('word');
      yield editor.remove(1);
      editor.clock.wait('key');
    }
    yield editor.type(char);
  }
}

class Clock {
  nowMs = 0;
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** A log-normal pause (Box and Muller, 1958). */
  wait(kind: keyof typeof pausesMs): void {
    const normal = Math.sqrt(-2 * Math.log(1 - this.#random())) * Math.cos(2 * Math.PI * this.#random());
    this.nowMs += pausesMs[kind] * Math.exp(spread * normal);
  }
}

class Editor {
  readonly #path: string;
  readonly clock: Clock;
  lines: readonly string[];
  #line = 0;
  #character = 0;

  constructor(path: string, lines: readonly string[], clock: Clock) {
    this.#path = path;
    this.lines = lines;
    this.clock = clock;
  }

  jump(line: number, character: number): Key {
    [this.#line, this.#character] = [line, character];
    return this.#key(true);
  }

  type(text: string): Key {
    const { before, after } = this.#split();
    const typed = `${before}${text}`.split('\n');
    this.lines = this.lines.toSpliced(this.#line, 1, ...typed.with(-1, `${typed.at(-1)}${after}`));
    this.#line += typed.length - 1;
    this.#character = typed.at(-1)?.length ?? 0;
    return this.#key(false);
  }

  /** Removes characters before the cursor on its line. */
  remove(characters: number): Key {
    const { before, after } = this.#split();
    this.#character = before.length - characters;
    this.lines = this.lines.with(this.#line, `${before.slice(0, this.#character)}${after}`);
    return this.#key(false);
  }

  removeLines(count: number): Key {
    this.lines = this.lines.toSpliced(this.#line, count);
    this.#line = Math.max(0, Math.min(this.#line, this.lines.length - 1));
    this.#character = 0;
    return this.#key(false);
  }

  #split(): { before: string; after: string } {
    const text = this.lines[this.#line] ?? '';
    return { before: text.slice(0, this.#character), after: text.slice(this.#character) };
  }

  #key(isJump: boolean): Key {
    const [path, lines, line, character] = [this.#path, this.lines, this.#line, this.#character];
    return { atMs: this.clock.nowMs, path, lines, line, character, isJump };
  }
}

const reversed = (text: string): string => [...text].reverse().join('');

function sharedStart(a: string, b: string): number {
  let shared = 0;
  while (shared < Math.min(a.length, b.length) && a[shared] === b[shared]) shared++;
  return shared;
}
