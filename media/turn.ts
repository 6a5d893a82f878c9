import {
  type Action,
  applyEvent,
  type Changes,
  type Figures,
  type Outcome,
  type Turn,
  type TurnEvent,
} from '../extension/messages.ts';
import { changesCard } from './changes.ts';
import { sentChips } from './chips.ts';
import { decorateCode, linkCitations } from './decorations.ts';
import { confirmed, drawIcon, element, fill, iconButton, meter, textButton } from './dom.ts';
import type { Host } from './host.ts';
import { StepsView } from './steps.ts';
import { StreamingMarkdown } from './stream.ts';

type Running = Extract<Outcome, { kind: 'running' }>;
type Queued = Extract<Outcome, { kind: 'queued' }>;
type Ended = Exclude<Outcome, Running | Queued>;

/** The speed is shown only after this time; before, it is noise. */
const leastSeconds = 1;

/** One question and its answer. */
export class TurnView {
  readonly element: HTMLElement;
  readonly #host: Host;
  readonly #turn: Turn;
  readonly #thoughts: HTMLDetailsElement;
  readonly #thoughtsLabel: HTMLElement;
  readonly #thinking: StreamingMarkdown;
  readonly #answerNow: HTMLElement;
  readonly #answer: StreamingMarkdown;
  readonly #steps: StepsView;
  readonly #changes = element('div');
  readonly #progress: HTMLElement;
  readonly #footer: HTMLElement;
  /** Time and token count at the first delta. */
  #begun: { atMs: number; tokens: number } | undefined;

  constructor(turn: Turn, host: Host) {
    this.#host = host;
    this.#turn = turn;
    const { texts } = host;
    this.#steps = new StepsView(turn, host);
    this.#thinking = this.#markdown('thoughts-text');
    this.#answer = this.#markdown('answer-text');
    this.#thoughtsLabel = element('span', { text: texts.thinking });
    const summary = element('summary', {}, [drawIcon('chevron'), this.#thoughtsLabel]);
    this.#thoughts = element('details', { class: 'thoughts' }, [summary, this.#thinking.element]);
    this.#answerNow = textButton(texts.actions['answer-now'], true, () => host.act('answer-now'));
    this.#answerNow.classList.add('answer-now');
    this.#progress = element('div', { class: 'progress-line' });
    this.#footer = element('footer', { class: 'turn-footer' });
    const label = element('h3', { class: 'visually-hidden', text: texts.answer });
    this.element = element('article', { class: 'turn', attributes: { 'data-turn': turn.id, 'data-kind': turn.kind } }, [
      new QuestionView(turn, host).element,
      element('section', { class: 'answer' }, [
        label,
        this.#thoughts,
        this.#answerNow,
        this.#steps.element,
        this.#answer.element,
        this.#changes,
        this.#progress,
        this.#footer,
      ]),
    ]);
    this.#showTexts();
    this.#showOutcome();
  }

  /** The text of the answer as the model wrote it. */
  get answerText(): string {
    return this.#answer.markdown;
  }

  /** Context window tokens in use; 0 if unknown. 0 for a summary, whose parts use the window one after the other. */
  get usedTokens(): number {
    const { kind, outcome } = this.#turn;
    const figures = kind === 'chat' && 'figures' in outcome ? outcome.figures : undefined;
    return figures === undefined ? 0 : figures.promptTokens + figures.generatedTokens;
  }

  showChanges(changes: Changes): void {
    this.#changes.replaceChildren(changesCard(this.#turn.id, changes, this.#host));
  }

  apply(event: TurnEvent): void {
    applyEvent(this.#turn, event);
    if (event.type === 'start') this.#footer.replaceChildren();
    if (event.type === 'step') this.#steps.show();
    else if (event.type === 'delta') this.#append(event);
    else if (event.type === 'text') this.#showTexts();
    else this.#showOutcome();
  }

  #append({ kind, text, tokens }: Extract<TurnEvent, { type: 'delta' }>): void {
    this.#progress.replaceChildren();
    if (kind === 'thinking') this.#thinking.append(text);
    else this.#answer.append(text);
    this.#showThoughts(true);
    if (tokens !== undefined) this.#showSpeed(tokens);
  }

  #showTexts(): void {
    const { thinking, answer, outcome } = this.#turn;
    become(this.#thinking, thinking, outcome.kind === 'running');
    become(this.#answer, answer, outcome.kind === 'running');
  }

  #showOutcome(): void {
    const { outcome } = this.#turn;
    this.element.dataset['state'] = outcome.kind;
    this.element.setAttribute('aria-busy', String(outcome.kind === 'running'));
    this.#showThoughts(outcome.kind === 'running');
    this.#steps.show();
    if (outcome.kind === 'queued') this.#footer.replaceChildren(this.#queueLine(outcome));
    else if (outcome.kind === 'running') this.#showProgress(outcome);
    else this.#finish(outcome);
  }

  #finish(outcome: Ended): void {
    this.#thinking.finish();
    this.#answer.finish(() => this.#linkCitations());
    this.#progress.replaceChildren();
    this.#footer.replaceChildren(...this.#remarks(outcome), this.#meta(outcome));
  }

  #linkCitations(): void {
    linkCitations(this.#answer.element, {
      ...{ citations: this.#turn.citations, missing: this.#turn.missing },
      missingLabel: this.#host.texts.missingPlace,
      open: ({ text }) => this.#host.send({ type: 'open-citation', turn: this.#turn.id, text }),
    });
  }

  #queueLine({ held }: Queued): HTMLElement {
    const { texts } = this.#host;
    const turn = this.#turn.id;
    const remove = iconButton('close', texts.actions.remove, () => this.#host.act('remove', turn));
    remove.dataset['action'] = 'remove';
    const label = element('span', { text: held ? texts.held : texts.queued });
    return element('div', { class: 'queue-line' }, [label, ...(held ? [this.#action('send', false)] : []), remove]);
  }

  #showSpeed(tokens: number): void {
    const now = performance.now();
    this.#begun ??= { atMs: now, tokens };
    const seconds = (now - this.#begun.atMs) / 1000;
    if (seconds < leastSeconds) return;
    const text = this.#speed((tokens - this.#begun.tokens) / seconds);
    this.#footer.replaceChildren(element('div', { class: 'meta' }, [element('span', { class: 'figures', text })]));
  }

  #speed(tokensPerSecond: number): string {
    return fill(this.#host.texts.speed, tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0));
  }

  #showThoughts(running: boolean): void {
    const { texts } = this.#host;
    const thinks = running && this.#answer.markdown === '';
    this.#thoughts.hidden = this.#thinking.markdown === '';
    this.#thoughtsLabel.textContent = thinks ? texts.thinking : texts.thoughts;
    this.#answerNow.hidden = this.#thoughts.hidden || !thinks;
  }

  #markdown(className: string): StreamingMarkdown {
    const { texts } = this.#host;
    return new StreamingMarkdown(element('div', { class: `markdown ${className}` }), {
      imageLabel: texts.image,
      onLink: (href) => this.#host.send({ type: 'open-link', href }),
      decorate: (block, open) => decorateCode(block, open, this.#turn.id, this.#host),
    });
  }

  #showProgress({ note, share }: Running): void {
    if (this.#answer.markdown !== '' || this.#thinking.markdown !== '') {
      this.#progress.replaceChildren();
      return;
    }
    const dots = element('span', { class: 'dots', attributes: { 'aria-hidden': 'true' } }, [
      element('i'),
      element('i'),
      element('i'),
    ]);
    this.#progress.replaceChildren(dots, element('span', { class: 'progress-note', text: note }));
    if (share !== undefined) this.#progress.append(meter(share, note));
  }

  #remarks(outcome: Ended): HTMLElement[] {
    const { texts } = this.#host;
    const remark = (text: string) => element('p', { class: 'remark', text });
    switch (outcome.kind) {
      case 'stopped':
        return [remark(texts.stopped)];
      case 'interrupted':
        return [remark(texts.interrupted), element('div', { class: 'card-actions' }, [this.#action('retry', true)])];
      case 'failed':
        return [this.#errorCard(outcome)];
      case 'done': {
        const remarks: HTMLElement[] = [];
        if (outcome.dropped > 0) remarks.push(remark(fill(texts.dropped, outcome.dropped)));
        if (outcome.reason === 'length') remarks.push(remark(texts.cutByLength));
        if (outcome.reason === 'context') remarks.push(remark(texts.cutByContext));
        if (outcome.reason === 'repetition') remarks.push(remark(texts.cutByRepetition));
        return remarks;
      }
    }
  }

  #errorCard({ message, actions }: Extract<Outcome, { kind: 'failed' }>): HTMLElement {
    const buttons = actions.map((action, index) => this.#action(action, index > 0));
    return element('div', { class: 'card error', attributes: { role: 'alert' } }, [
      drawIcon('warning'),
      element('div', { class: 'card-body' }, [
        element('p', { text: message }),
        element('div', { class: 'card-actions' }, buttons),
      ]),
    ]);
  }

  #action(action: Action, secondary: boolean): HTMLElement {
    const send = () => this.#host.act(action, this.#turn.id);
    const button = textButton(this.#host.texts.actions[action], secondary, send);
    button.dataset['action'] = action;
    return button;
  }

  #meta(outcome: Ended): HTMLElement {
    const { texts } = this.#host;
    const figures = outcome.kind === 'done' || outcome.kind === 'stopped' ? outcome.figures : undefined;
    const copy = iconButton('copy', texts.copyAnswer, () => {
      this.#host.send({ type: 'copy', text: this.#answer.markdown });
      confirmed(copy, texts.copied);
    });
    const again = iconButton('again', texts.regenerate, () => this.#regenerate(), 'again');
    const fork = iconButton('fork', texts.actions.fork, () => this.#host.act('fork', this.#turn.id), 'fork');
    const children = this.#answer.markdown === '' ? [again] : [copy, again, fork];
    return element('div', { class: 'meta' }, [
      ...children,
      ...(figures && figures.generatedTokens > 0 ? [this.#figures(figures)] : []),
    ]);
  }

  #regenerate(): void {
    this.#host.send({ type: 'resend', turn: this.#turn.id, text: this.#turn.question });
  }

  #figures(figures: Figures): HTMLElement {
    const { texts } = this.#host;
    const speed = this.#speed(figures.tokensPerSecond);
    const prompt = fill(texts.promptTokens, figures.promptTokens, figures.cachedTokens);
    const seconds = (figures.timeToFirstTokenMs / 1000).toFixed(1);
    const detail = fill(texts.figuresDetail, figures.promptTokens, figures.cachedTokens, seconds);
    return element('span', { class: 'figures', text: `${speed} · ${prompt}`, title: detail });
  }
}

/** Appends a continuation, or replaces corrected or complete text. */
function become(shown: StreamingMarkdown, text: string, running: boolean): void {
  if (running && text.startsWith(shown.markdown)) shown.append(text.slice(shown.markdown.length));
  else shown.set(text);
}

/** The question and its attachments. The user can edit the question. */
class QuestionView {
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
