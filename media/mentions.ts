import type { Suggestion } from '../extension/messages.ts';
import { contextIcon } from './chips.ts';
import { drawIcon, element } from './dom.ts';
import type { Host } from './host.ts';

/** `@` or `#` at the start of a word with the text after it. A quoted value may contain blanks. */
const mentioning = /(?<![^\s(])([@#])((?:[\w-]+:"[^"\n]*)|(?!\/)[\w./:+-]*)$/;
/** `/` at the beginning of the question with the name of a prompt after it. */
const naming = /^(\/)([\w.-]*)$/;
const debounceMs = 60;

/** Suggestions for a mention or a prompt's name, above the box: a WAI-ARIA combobox. */
export class MentionMenu {
  readonly element: HTMLElement;
  readonly #host: Host;
  readonly #box: HTMLTextAreaElement;
  #items: readonly Suggestion[] = [];
  #active = 0;
  #query: string | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `box` gets the roles of a combobox. */
  constructor(host: Host, box: HTMLTextAreaElement) {
    this.#host = host;
    this.#box = box;
    const attributes = { role: 'listbox', 'aria-label': host.texts.mentions };
    this.element = element('ul', { class: 'mentions', id: 'mentions', attributes });
    this.element.hidden = true;
    for (const [name, value] of Object.entries({
      role: 'combobox',
      'aria-controls': 'mentions',
      'aria-autocomplete': 'list',
    })) {
      box.setAttribute(name, value);
    }
    box.addEventListener('blur', () => this.close());
    this.close();
  }

  get isOpen(): boolean {
    return !this.element.hidden;
  }

  /** Called after each change of text or cursor. */
  update(): void {
    clearTimeout(this.#timer);
    const typed = this.#typed();
    if (typed === undefined) {
      this.close();
      return;
    }
    const [, sign, text = ''] = typed;
    const query = sign === '/' ? `/${text}` : text;
    this.#query = query;
    this.#timer = setTimeout(() => this.#host.send({ type: 'suggest', query }), debounceMs);
  }

  /** Drops late suggestions for an old query. */
  show(query: string, items: readonly Suggestion[]): void {
    if (query !== this.#query || document.activeElement !== this.#box) return;
    this.#items = items;
    this.#active = 0;
    this.element.replaceChildren(...items.map((item, index) => this.#option(item, index)));
    this.element.hidden = items.length === 0;
    this.#box.setAttribute('aria-expanded', String(this.isOpen));
    this.#mark();
  }

  /** True if the list handled the key. */
  onKey(event: KeyboardEvent): boolean {
    if (!this.isOpen) return false;
    const { length } = this.#items;
    if (event.key === 'ArrowDown') this.#active = (this.#active + 1) % length;
    else if (event.key === 'ArrowUp') this.#active = (this.#active + length - 1) % length;
    else if (event.key === 'Enter' || event.key === 'Tab') this.#accept(this.#active);
    else if (event.key === 'Escape') this.close();
    else return false;
    event.preventDefault();
    event.stopPropagation();
    this.#mark();
    return true;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#query = undefined;
    this.#items = [];
    this.element.hidden = true;
    this.#box.setAttribute('aria-expanded', 'false');
    this.#box.removeAttribute('aria-activedescendant');
  }

  #typed(): RegExpExecArray | undefined {
    const { selectionStart, selectionEnd, value } = this.#box;
    if (selectionStart !== selectionEnd) return undefined;
    const before = value.slice(0, selectionStart);
    return mentioning.exec(before) ?? naming.exec(before) ?? undefined;
  }

  #accept(index: number): void {
    const item = this.#items[index];
    const typed = this.#typed();
    if (item === undefined || typed === undefined) return;
    const text = `${typed[1]}${item.text.slice(1)}${item.open ? '' : ' '}`;
    this.close();
    this.#box.setRangeText(text, typed.index, this.#box.selectionEnd, 'end');
    this.#box.dispatchEvent(new Event('input'));
  }

  #option(item: Suggestion, index: number): HTMLElement {
    const attributes = { role: 'option', id: `mention-${index}` };
    const option = element('li', { class: 'mention', attributes }, [
      drawIcon(contextIcon(item.kind)),
      element('span', { class: 'mention-label', text: item.label }),
      element('span', { class: 'mention-detail', text: item.detail }),
    ]);
    // A click must not take the focus from the box.
    option.addEventListener('mousedown', (event) => event.preventDefault());
    option.addEventListener('click', () => this.#accept(index));
    return option;
  }

  #mark(): void {
    if (!this.isOpen) return;
    [...this.element.children].forEach((option, index) => {
      option.setAttribute('aria-selected', String(index === this.#active));
      if (index === this.#active) option.scrollIntoView?.({ block: 'nearest' });
    });
    this.#box.setAttribute('aria-activedescendant', `mention-${this.#active}`);
  }
}
