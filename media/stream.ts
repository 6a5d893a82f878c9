import type { Token } from 'marked';
import { lexMarkdown } from '../extension/answerMarkup.ts';
import { type RenderOptions, renderBlocks } from './markdown.ts';

/** A reference definition changes links above it, so the whole text must be rendered again. */
const definition = /^ {0,3}\[[^\]\n]+\]:/m;

interface Options extends Omit<RenderOptions, 'open'> {
  /** Called for each rendered block to add buttons. */
  decorate(block: HTMLElement, open: boolean): void;
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
  #tail: HTMLElement | undefined;
  #frame = 0;

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
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.draw());
  }

  /** Replaces everything; the text is complete. */
  set(text: string): void {
    this.#reset();
    this.#text = text.replaceAll('\r', '');
    this.finish();
  }

  /** Renders the complete text. */
  finish(): void {
    this.#cancelFrame();
    if (definition.test(this.#text)) this.#reset();
    this.#advance();
    if (this.#tail !== undefined) this.#fillBlock(this.#tail, lexMarkdown(this.#text.slice(this.#settled)), false);
    this.#tail = undefined;
    this.#settled = this.#text.length;
  }

  /** Renders the text received so far, once a frame. */
  draw(): void {
    this.#cancelFrame();
    this.#advance();
    const rest = this.#text.slice(this.#settled);
    if (rest.trim() === '') return;
    this.#tail ??= this.#newBlock();
    this.#fillBlock(this.#tail, lexMarkdown(rest), true);
  }

  #cancelFrame(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  #reset(): void {
    this.element.replaceChildren();
    this.#settled = 0;
    this.#tail = undefined;
  }

  /**
   * Settles every block except the last two and their blank lines: `3.` is a paragraph until the next character makes it an
   * item of the list above.
   */
  #advance(): void {
    const blocks = lexMarkdown(this.#text.slice(this.#settled));
    const filled = blocks.flatMap((block, index) => (block.type === 'space' ? [] : [index]));
    for (const block of blocks.slice(0, filled.at(-2) ?? 0)) {
      this.#settled += block.raw.length;
      if (block.type === 'space') continue;
      this.#fillBlock(this.#tail ?? this.#newBlock(), [block], false);
      this.#tail = undefined;
    }
    if (this.#tail === undefined && filled.length > 0) this.#tail = this.#newBlock();
  }

  #newBlock(): HTMLElement {
    const block = document.createElement('div');
    block.className = 'block';
    this.element.append(block);
    return block;
  }

  #fillBlock(block: HTMLElement, tokens: readonly Token[], open: boolean): void {
    block.replaceChildren(renderBlocks(tokens, { ...this.#options, open }));
    this.#options.decorate(block, open);
  }
}
