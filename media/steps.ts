import type { Permission, Step, Turn } from '../extension/messages.ts';
import { drawIcon, element, fill, type Icon, textButton } from './dom.ts';
import type { Host } from './host.ts';

/** The agent's steps, folded into one line when done. A request for permission is never folded or shortened. */
export class StepsView {
  readonly element: HTMLElement;
  readonly #host: Host;
  readonly #turn: Turn;
  readonly #details: HTMLDetailsElement;
  readonly #label = element('span');
  readonly #list = element('ol', { class: 'step-list' });
  readonly #question = element('div');
  #wasRunning = false;

  constructor(turn: Turn, host: Host) {
    this.#turn = turn;
    this.#host = host;
    const summary = element('summary', {}, [drawIcon('chevron'), this.#label]);
    this.#details = element('details', { class: 'steps' }, [summary, this.#list]);
    this.element = element('div', {}, [this.#details, this.#question]);
    this.show();
  }

  show(): void {
    const { steps, outcome } = this.#turn;
    const isRunning = outcome.kind === 'running';
    this.#details.hidden = steps.length === 0;
    this.#label.textContent = fill(this.#host.texts.steps, steps.length);
    // Keeps the user's own opening or closing in between.
    if (isRunning !== this.#wasRunning) this.#details.open = isRunning;
    this.#wasRunning = isRunning;
    this.#list.replaceChildren(...steps.map((step) => this.#row(step)));
    const asked = isRunning ? steps.find(({ state }) => state === 'asks') : undefined;
    if (this.#question.dataset['step'] === (asked?.id ?? '')) return;
    this.#question.dataset['step'] = asked?.id ?? '';
    this.#question.replaceChildren(...(asked ? [this.#request(asked)] : []));
  }

  #row({ id, title, text, state, result }: Step): HTMLElement {
    const { texts } = this.#host;
    const words: Partial<Record<Step['state'], string>> = { refused: texts.refused, failed: texts.failed };
    const word = words[state];
    const head = [
      drawIcon(icons[state]),
      element('span', { class: 'step-title', text: title }),
      ...(word === undefined ? [] : [element('span', { class: 'step-state', text: word })]),
    ];
    const attributes = { 'data-step': id, 'data-state': state };
    const parts = [text, result].filter((part) => part !== '');
    if (parts.length === 0) return element('li', { attributes }, [element('span', { class: 'step-line' }, head)]);
    const texted = parts.map((part) =>
      element('pre', { class: 'step-text', text: part, attributes: { tabindex: '0' } }),
    );
    return element('li', { attributes }, [
      element('details', {}, [element('summary', { class: 'step-line' }, head), ...texted]),
    ]);
  }

  #request({ id, text }: Step): HTMLElement {
    const { texts } = this.#host;
    const button = (answer: Permission, label: string, isSecondary: boolean) => {
      const send = () => this.#host.send({ type: 'permit', turn: this.#turn.id, step: id, answer });
      const made = textButton(label, isSecondary, send);
      made.dataset['permit'] = answer;
      return made;
    };
    const buttons = [
      button('once', texts.allowOnce, false),
      button('chat', texts.allowChat, true),
      button('never', texts.never, true),
    ];
    return element('div', { class: 'card request', attributes: { role: 'alert', 'aria-label': texts.asks } }, [
      drawIcon('terminal'),
      element('div', { class: 'card-body' }, [
        element('p', { text: texts.asks }),
        element('pre', { class: 'step-text whole', text, attributes: { tabindex: '0' } }),
        element('div', { class: 'card-actions' }, buttons),
      ]),
    ]);
  }
}

const icons: Readonly<Record<Step['state'], Icon>> = {
  running: 'again',
  asks: 'terminal',
  done: 'check',
  refused: 'close',
  failed: 'warning',
};
