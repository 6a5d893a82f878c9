import type { Token, Tokens } from 'marked';
import { lexMarkdown } from '../extension/answerMarkup.ts';
import { type RenderOptions, renderBlocks, renderEach } from './markdown.ts';
import { inSlices } from './slices.ts';

/** A reference definition changes links above it, so the whole text must be rendered again. */
const definition = /^ {0,3}\[[^\]\n]+\]:/m;

/** A longer text is parsed and shown in pieces, between which the page handles events. Few answers are longer. */
const pieceChars = 8_000;
/** A longer list or table is split into several. */
const partItems = 250;

interface Options extends Omit<RenderOptions, 'open'> {
  /** Called for each rendered block to add buttons. */
  decorate(block: HTMLElement, open: boolean): void;
}

interface Piece {
  /** Blocks that no further character can change, and those after them. */
  readonly settled: readonly Token[];
  readonly open: readonly Token[];
  /** Header of a table whose first rows are settled; repeated before the other rows. */
  readonly header: string;
  /** True for the last piece. */
  readonly isLast: boolean;
}

/**
 * Streams Markdown. Renders finished blocks once, and per frame only the last two, which the next characters may still
 * change.
 */
export class StreamingMarkdown {
  readonly element: HTMLElement;
  readonly #options: Options;
  #text = '';
  /** Offset of the open blocks' text, and their element. */
  #settled = 0;
  /** Precedes the text that is not settled. */
  #header = '';
  #tail: HTMLElement | undefined;
  #frame = 0;
  /** Of a complete text: parsed blocks that are not shown yet, and the callback for when all are shown. */
  #unshown: Token[][] = [];
  #whenShown: (() => void) | undefined;
  /** Incremented for each text, so that no piece of an earlier one is shown. */
  #run = 0;

  constructor(element: HTMLElement, options: Options) {
    this.element = element;
    this.#options = options;
  }

  get markdown(): string {
    return this.#text;
  }

  append(text: string): void {
    // The lexer counts every line end as one character.
    this.#text += text.replaceAll('\r', '');
    this.#drawNextFrame();
  }

  /** Replaces everything; the text is complete. */
  set(text: string): void {
    this.#reset();
    this.#text = text.replaceAll('\r', '');
    this.finish();
  }

  /** Renders the complete text: its first piece now, the others in slices. */
  finish(whenShown: () => void = () => {}): void {
    this.#cancelFrame();
    const isGoingOn = this.#whenShown !== undefined;
    this.#whenShown = whenShown;
    if (isGoingOn) return;
    const chars = definition.test(this.#text) ? Number.POSITIVE_INFINITY : pieceChars;
    if (chars > pieceChars) this.#clear();
    this.#tail?.remove();
    this.#tail = undefined;
    this.#showPieces(chars, this.#run);
  }

  /** Renders the text received so far, once a frame. */
  draw(): void {
    this.#cancelFrame();
    const piece = this.#nextPiece(pieceChars);
    const { settled, open, isLast } = piece;
    this.#settle(piece);
    if (settled.length > 0) {
      this.#tail?.remove();
      this.#tail = undefined;
    }
    for (const part of partsOf(settled)) this.#show(part);
    if (!isLast) this.#drawNextFrame();
    else if (open.some(({ type }) => type !== 'space')) this.#showTail(open);
  }

  #drawNextFrame(): void {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.draw());
  }

  #cancelFrame(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  #reset(): void {
    this.#clear();
    this.#unshown = [];
    this.#whenShown = undefined;
    this.#run++;
  }

  #clear(): void {
    this.element.replaceChildren();
    this.#settled = 0;
    this.#header = '';
    this.#tail = undefined;
  }

  /** The next piece of the unsettled text: all of it, or a beginning with at least one settled block. */
  #nextPiece(pieceChars: number): Piece {
    const rest = this.#header + this.#text.slice(this.#settled);
    for (let chars = pieceChars; chars < rest.length; chars *= 2) {
      const piece = beginningOf(lexMarkdown(rest.slice(0, chars)));
      if (piece.settled.length > 0) return piece;
    }
    const blocks = lexMarkdown(rest);
    const count = certain(blocks);
    return { settled: blocks.slice(0, count), open: blocks.slice(count), header: '', isLast: true };
  }

  #settle({ settled, header }: Piece): void {
    if (settled.length === 0) return;
    this.#settled += lengthOf(settled) - this.#header.length;
    this.#header = header;
  }

  #showPieces(chars: number, run: number): void {
    if (run !== this.#run) return;
    if (this.#unshown.length === 0) {
      const piece = this.#nextPiece(chars);
      const { settled, open, isLast } = piece;
      if (isLast) this.#settled = this.#text.length;
      else this.#settle(piece);
      this.#unshown = partsOf([...settled, ...open]);
    }
    const part = this.#unshown.shift();
    if (part) this.#show(part);
    if (this.#unshown.length > 0 || this.#settled < this.#text.length) {
      inSlices(this.element, () => this.#showPieces(chars, run));
      return;
    }
    const whenShown = this.#whenShown;
    this.#whenShown = undefined;
    whenShown?.();
  }

  #show(blocks: readonly Token[]): void {
    const elements = renderEach(blocks, { ...this.#options, open: false });
    this.element.append(...elements);
    for (const element of elements) this.#options.decorate(element, false);
  }

  #showTail(blocks: readonly Token[]): void {
    if (this.#tail === undefined) {
      this.#tail = document.createElement('div');
      this.#tail.className = 'block';
      this.element.append(this.#tail);
    }
    this.#tail.replaceChildren(renderBlocks(blocks, { ...this.#options, open: true }));
    this.#options.decorate(this.#tail, true);
  }
}

const lengthOf = (blocks: readonly Token[]): number => blocks.reduce((length, { raw }) => length + raw.length, 0);

/**
 * Number of blocks that no further character can change: all except the last two and their blank lines. `3.` is a paragraph
 * until the next character makes it an item of the list above.
 */
function certain(blocks: readonly Token[]): number {
  const filled = blocks.flatMap((block, index) => (block.type === 'space' ? [] : [index]));
  return filled.at(-2) ?? 0;
}

/** The settled part of a beginning of a text: blocks, or the first items of a long list or rows of a long table. */
function beginningOf(blocks: readonly Token[]): Piece {
  const count = certain(blocks);
  const at = count > 0 ? -1 : blocks.findIndex((block) => isList(block) || isTable(block));
  const block = blocks[at];
  const part = block && (isList(block) ? firstItems(block) : isTable(block) ? firstRows(block) : undefined);
  const settled = part === undefined ? blocks.slice(0, count) : [...blocks.slice(0, at), part];
  return { settled, open: [], header: part && isTable(part) ? firstLines(part.raw, 2) : '', isLast: false };
}

function firstItems(list: Tokens.List): Token | undefined {
  if (list.items.length <= partItems + 1) return undefined;
  const items = list.items.slice(0, partItems);
  return { ...list, items, raw: items.map(({ raw }) => raw).join('') };
}

/** Each row is one line, after two header lines. The last rows may be incomplete. */
function firstRows(table: Tokens.Table): Token | undefined {
  const count = Math.floor((table.rows.length - 2) / partItems) * partItems;
  if (count <= 0) return undefined;
  return { ...table, rows: table.rows.slice(0, count), raw: firstLines(table.raw, count + 2) };
}

const firstLines = (text: string, count: number): string => text.split('\n').slice(0, count).join('\n').concat('\n');

/** Groups of blocks to show at once: normal ones together, each part of a long list or table alone. */
function partsOf(blocks: readonly Token[]): Token[][] {
  const parts: Token[][] = [[]];
  for (const block of blocks) {
    const cut = cutBlock(block);
    if (cut.length > 1) parts.push(...cut.map((part) => [part]), []);
    else if (block.type !== 'space') parts.at(-1)?.push(block);
  }
  return parts.filter(({ length }) => length > 0);
}

function cutBlock(block: Token): Token[] {
  if (isList(block)) {
    const { start } = block;
    return chunks(block.items).map((items, i) => ({
      ...block,
      items,
      start: start === '' ? start : start + i * partItems,
    }));
  }
  return isTable(block) ? chunks(block.rows).map((rows) => ({ ...block, rows })) : [block];
}

const isList = (block: Token): block is Tokens.List => block.type === 'list';
const isTable = (block: Token): block is Tokens.Table => block.type === 'table';

const chunks = <Item>(items: readonly Item[]): Item[][] =>
  Array.from({ length: Math.ceil(items.length / partItems) }, (_, i) =>
    items.slice(i * partItems, (i + 1) * partItems),
  );
