import type { Changes, Turn, TurnEvent } from '../extension/messages.ts';
import { drawIcon, element, iconButton } from './dom.ts';
import type { Host } from './host.ts';
import { TurnView } from './turn.ts';

/** Scrolling closer to the end than this resumes following. */
const followPixels = 48;
/** Screen readers announce this much of a finished answer. */
const announcedChars = 1_000;

/** Turns of an opened conversation that are shown at once; earlier ones follow in slices, so that the page stays responsive. */
const turnsAtOnce = 12;
const sliceMs = 12;

/** The conversation, or the welcome if it is empty. */
export class Transcript {
  readonly element: HTMLElement;
  readonly #host: Host;
  readonly #list: HTMLElement;
  readonly #empty: HTMLElement;
  readonly #scroller: HTMLElement;
  readonly #toEnd: HTMLButtonElement;
  readonly #announcer: HTMLElement;
  #turns = new Map<string, TurnView>();
  /** The first turns of the conversation, which are not shown yet. */
  #earlier: Turn[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #following = true;
  /** Scroll position at the last check. */
  #lastTop = 0;

  /** `ask` puts an example into the question box. */
  constructor(host: Host, ask: (question: string) => void) {
    this.#host = host;
    const { texts } = host;
    this.#list = element('div', {
      id: 'transcript',
      attributes: { role: 'log', 'aria-live': 'off', 'aria-label': texts.conversation },
    });
    this.#empty = welcome(host, ask);
    this.#scroller = element('main', { class: 'scroller', attributes: { tabindex: '-1' } }, [this.#empty, this.#list]);
    this.#toEnd = iconButton('down', texts.scrollDown, () => this.#scrollToEnd(), 'to-end');
    this.#toEnd.hidden = true;
    this.#announcer = element('div', {
      class: 'visually-hidden',
      id: 'announcer',
      attributes: { 'aria-live': 'polite' },
    });
    this.element = element('div', { class: 'transcript-area' }, [this.#scroller, this.#toEnd, this.#announcer]);
    this.#scroller.addEventListener('scroll', () => this.#onScroll(), { passive: true });
    this.#list.addEventListener('focusin', ({ target }) => this.#onFocus(target));
    const observer = new ResizeObserver(() => this.#follow());
    observer.observe(this.#list);
    observer.observe(this.#scroller);
  }

  get lastQuestion(): string | undefined {
    return [...this.#list.querySelectorAll('.question-text')].at(-1)?.textContent ?? undefined;
  }

  /** Context window tokens in use after the last answer. */
  get usedTokens(): number {
    return [...this.#turns.values()].findLast((turn) => turn.usedTokens > 0)?.usedTokens ?? 0;
  }

  get running(): boolean {
    return this.#list.querySelector(':scope > [data-state="running"]') !== null;
  }

  showAll(turns: readonly Turn[]): void {
    this.#turns.clear();
    const first = Math.max(0, turns.length - turnsAtOnce);
    this.#earlier = turns.slice(0, first);
    this.#list.replaceChildren(...turns.slice(first).map((turn) => this.#make(turn)));
    this.#empty.hidden = turns.length > 0;
    // In another frame, because the layout of many turns takes long.
    requestAnimationFrame(() => this.#scrollToEnd());
    this.#showEarlierLater();
  }

  #showEarlierLater(): void {
    clearTimeout(this.#timer);
    if (this.#earlier.length > 0) this.#timer = setTimeout(() => this.#showEarlier(performance.now() + sliceMs), 0);
  }

  #showEarlier(untilMs: number): void {
    const after = this.#turns;
    this.#turns = new Map();
    const views: HTMLElement[] = [];
    while (this.#earlier.length > 0 && (views.length === 0 || performance.now() < untilMs)) {
      const turn = this.#earlier.pop();
      if (turn !== undefined) views.unshift(this.#make(turn));
    }
    this.#turns = new Map([...[...this.#turns].reverse(), ...after]);
    this.#list.prepend(...views);
    this.#showEarlierLater();
  }

  /** A turn that an event is about. */
  #turn(id: string): TurnView | undefined {
    if (!this.#turns.has(id) && this.#earlier.some((turn) => turn.id === id))
      this.#showEarlier(Number.POSITIVE_INFINITY);
    return this.#turns.get(id);
  }

  /** A new turn, or a queued one whose question was edited. */
  show(turn: Turn): void {
    const known = this.#turn(turn.id);
    if (known !== undefined) known.element.replaceWith(this.#make(turn));
    else {
      this.#place(this.#make(turn));
      this.#scrollToEnd();
      if (turn.outcome.kind === 'queued') this.#announcer.textContent = this.#host.texts.queued;
    }
    this.#empty.hidden = true;
  }

  showChanges(turn: string, changes: Changes): void {
    this.#turn(turn)?.showChanges(changes);
  }

  apply(event: TurnEvent): void {
    const turn = this.#turn(event.turn);
    if (turn === undefined) return;
    turn.apply(event);
    if (event.type === 'start') this.#place(turn.element);
    if (event.type === 'drop') {
      turn.element.remove();
      this.#turns.delete(event.turn);
      this.#empty.hidden = this.#turns.size > 0;
    }
    if (event.type === 'end' && event.outcome.kind === 'done') {
      this.#announcer.textContent = `${this.#host.texts.answered} ${turn.answerText.slice(0, announcedChars)}`;
    }
  }

  #make(turn: Turn): HTMLElement {
    const view = new TurnView(turn, this.#host);
    this.#turns.set(turn.id, view);
    return view.element;
  }

  /** Queued turns come last. */
  #place(element: HTMLElement): void {
    const queued = element.dataset['state'] === 'queued';
    this.#list.insertBefore(element, queued ? null : this.#list.querySelector(':scope > [data-state="queued"]'));
  }

  /** Focusing the last control by keyboard scrolls to the end, because the button for that cannot be reached from there. */
  #onFocus(target: EventTarget | null): void {
    const controls = this.#list.querySelectorAll('button, a[href], summary, [tabindex="0"]');
    if (target === controls.item(controls.length - 1)) this.#scrollToEnd();
  }

  #onScroll(): void {
    this.#notice();
    this.#toEnd.hidden = this.#following;
  }

  /** Growing text also increases the distance to the end, so only scrolling up stops following. */
  #notice(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    const below = scrollHeight - scrollTop - clientHeight;
    // Shrinking text also moves the view up, but keeps it at the end.
    if (scrollTop < this.#lastTop) this.#following = below <= 1;
    else if (scrollTop > this.#lastTop && below < followPixels) this.#following = true;
    this.#lastTop = scrollTop;
  }

  #follow(): void {
    this.#notice();
    if (!this.#following || this.#turns.size === 0) return;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#lastTop = this.#scroller.scrollTop;
  }

  #scrollToEnd(): void {
    this.#lastTop = 0;
    this.#following = true;
    this.#follow();
    this.#toEnd.hidden = true;
  }
}

function welcome(host: Host, ask: (question: string) => void): HTMLElement {
  const { texts } = host;
  const examples = texts.examples.map((example) =>
    element('li', {}, [
      element('button', {
        class: 'example',
        text: example,
        attributes: { type: 'button' },
        onClick: () => ask(example),
      }),
    ]),
  );
  return element('section', { id: 'empty' }, [
    element('div', { class: 'emblem' }, [drawIcon('arch'), drawIcon('flame')]),
    element('h2', { text: texts.emptyTitle }),
    element('p', { text: texts.emptyText }),
    element('ul', { class: 'examples', attributes: { 'aria-label': texts.examplesLabel } }, examples),
  ]);
}
