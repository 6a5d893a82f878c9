import type { Turn } from '../extension/messages.ts';
import { sentChips } from './chips.ts';
import { element, fill, iconButton, textButton } from './dom.ts';
import type { Host } from './host.ts';

/** The question and its attachments. The user can edit the question. */
export class QuestionView {
  readonly element: HTMLElement;
  readonly #host: Host;
  readonly #turn: Turn;
  readonly #text: HTMLElement;
  readonly #edit: HTMLButtonElement | undefined;

  constructor(turn: Turn, host: Host) {
    this.#host = host;
    this.#turn = turn;
    const { texts } = host;
    this.#text = element('p', { class: 'question-text', text: turn.question });
    // The user did not write the question of a summary.
    this.#edit = turn.kind === 'chat' ? iconButton('edit', texts.edit, () => this.#startEditing(), 'edit') : undefined;
    const omitted = turn.omitted.length > 0 ? [omission(turn.omitted, host)] : [];
    this.element = element('section', { class: 'question' }, [
      element('h3', { class: 'visually-hidden', text: texts.you }),
      element('div', { class: 'question-line' }, [...(this.#edit === undefined ? [] : [this.#edit]), this.#text]),
      ...sentChips(turn.chips, turn.id, host),
      ...omitted,
    ]);
  }

  #startEditing(): void {
    const { texts } = this.#host;
    const attributes = { 'aria-label': texts.edit, rows: '1' };
    const box = element('textarea', { class: 'question-edit', attributes });
    box.value = this.#turn.question;
    const send = textButton(texts.send, false, () => this.#send(box));
    const cancel = textButton(texts.cancel, true, () => this.#stopEditing());
    const note = element('p', { class: 'edit-note', text: texts.editNote });
    const form = element('div', { class: 'question-form' }, [
      box,
      note,
      element('div', { class: 'card-actions' }, [send, cancel]),
    ]);
    form.addEventListener('keydown', (event) => this.#onKey(event, box));
    this.element.querySelector('.question-line')?.replaceChildren(form);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  #onKey(event: KeyboardEvent, box: HTMLTextAreaElement): void {
    if (event.isComposing) return;
    if (event.key === 'Escape') {
      event.stopPropagation();
      this.#stopEditing();
    } else if (event.key === 'Enter' && !event.shiftKey && event.target === box) {
      event.preventDefault();
      this.#send(box);
    }
  }

  #send(box: HTMLTextAreaElement): void {
    const text = box.value.trim();
    if (text === '') return;
    this.#host.send({ type: 'resend', turn: this.#turn.id, text });
    this.#stopEditing();
  }

  #stopEditing(): void {
    const parts = this.#edit === undefined ? [this.#text] : [this.#edit, this.#text];
    this.element.querySelector('.question-line')?.replaceChildren(...parts);
    this.#edit?.focus();
  }
}

const omission = (omitted: readonly string[], { texts }: Host): HTMLElement =>
  element('p', { class: 'omitted', text: fill(texts.omitted, omitted.join('; ')) });
