import type { Action, Figures, Outcome, Turn } from '../extension/messages.ts';
import { drawIcon, element, fill, iconButton } from './dom.ts';
import type { Host } from './host.ts';
import { StreamingMarkdown } from './stream.ts';

/** One question and its answer. */
export class TurnView {
  readonly element: HTMLElement;
  private readonly host: Host;
  private readonly id: string;
  private readonly thoughts: HTMLDetailsElement;
  private readonly thoughtsLabel: HTMLElement;
  private readonly thinking: StreamingMarkdown;
  private readonly answer: StreamingMarkdown;
  private readonly progress: HTMLElement;
  private readonly footer: HTMLElement;

  constructor(turn: Turn, host: Host) {
    this.host = host;
    this.id = turn.id;
    const { texts } = host;
    this.thinking = this.markdown('thoughts-text');
    this.answer = this.markdown('answer-text');
    this.thoughtsLabel = element('span', { text: texts.thinking });
    const summary = element('summary', {}, [drawIcon('chevron'), this.thoughtsLabel]);
    this.thoughts = element('details', { class: 'thoughts' }, [summary, this.thinking.element]);
    this.thoughts.hidden = true;
    this.progress = element('div', { class: 'progress-line' });
    this.footer = element('footer', { class: 'turn-footer' });
    const label = element('h3', { class: 'visually-hidden', text: texts.answer });
    this.element = element('article', { class: 'turn', attributes: { 'data-turn': turn.id, 'data-kind': turn.kind } }, [
      this.question(turn),
      element('section', { class: 'answer' }, [label, this.thoughts, this.answer.element, this.progress, this.footer]),
    ]);
    this.show(turn);
  }

  /** The text of the answer as the model wrote it. */
  get answerText(): string {
    return this.answer.markdown;
  }

  show(turn: Turn): void {
    this.thoughts.hidden = turn.thinking === '';
    if (turn.outcome.kind === 'running') {
      this.thinking.append(turn.thinking.slice(this.thinking.markdown.length));
      this.answer.append(turn.answer.slice(this.answer.markdown.length));
    } else {
      this.thinking.set(turn.thinking);
      this.answer.set(turn.answer);
    }
    this.showOutcome(turn.outcome);
  }

  append(kind: 'text' | 'thinking', text: string): void {
    this.progress.replaceChildren();
    if (kind === 'thinking') {
      this.thoughts.hidden = false;
      this.thinking.append(text);
      return;
    }
    if (this.answer.markdown === '') this.thoughtsLabel.textContent = this.host.texts.thoughts;
    this.answer.append(text);
  }

  showOutcome(outcome: Outcome): void {
    this.element.dataset['state'] = outcome.kind;
    this.element.setAttribute('aria-busy', String(outcome.kind === 'running'));
    if (outcome.kind === 'running') {
      this.showProgress(outcome);
      return;
    }
    this.thinking.finish();
    this.answer.finish();
    this.thoughtsLabel.textContent = this.host.texts.thoughts;
    this.progress.replaceChildren();
    this.footer.replaceChildren(...this.remarks(outcome), this.meta(outcome));
  }

  private markdown(className: string): StreamingMarkdown {
    const { texts } = this.host;
    return new StreamingMarkdown(element('div', { class: `markdown ${className}` }), {
      imageLabel: texts.image,
      onLink: (href) => this.host.send({ type: 'open-link', href }),
      decorate: (block, open) => decorateCode(block, open, this.host),
    });
  }

  private question(turn: Turn): HTMLElement {
    const chips = turn.chips.map((chip) =>
      element('li', { class: 'chip', title: chip.detail }, [drawIcon('file'), element('span', { text: chip.label })]),
    );
    return element('section', { class: 'question' }, [
      element('h3', { class: 'visually-hidden', text: this.host.texts.you }),
      element('p', { class: 'question-text', text: turn.question }),
      ...(chips.length > 0 ? [element('ul', { class: 'chips' }, chips)] : []),
    ]);
  }

  private showProgress({ note, share }: Extract<Outcome, { kind: 'running' }>): void {
    if (this.answer.markdown !== '' || this.thinking.markdown !== '') {
      this.progress.replaceChildren();
      return;
    }
    const dots = element('span', { class: 'dots', attributes: { 'aria-hidden': 'true' } }, [
      element('i'),
      element('i'),
      element('i'),
    ]);
    this.progress.replaceChildren(dots, element('span', { class: 'progress-note', text: note }));
    if (share !== undefined) this.progress.append(meter(share, note));
  }

  private remarks(outcome: Exclude<Outcome, { kind: 'running' }>): HTMLElement[] {
    const { texts } = this.host;
    const remark = (text: string) => element('p', { class: 'remark', text });
    switch (outcome.kind) {
      case 'stopped':
        return [remark(texts.stopped)];
      case 'interrupted':
        return [remark(texts.interrupted), element('div', { class: 'card-actions' }, [this.action('retry', true)])];
      case 'failed':
        return [this.errorCard(outcome)];
      case 'done': {
        const remarks: HTMLElement[] = [];
        if (outcome.dropped > 0) remarks.push(remark(fill(texts.dropped, outcome.dropped)));
        if (outcome.reason === 'length') remarks.push(remark(texts.cutByLength));
        if (outcome.reason === 'context') remarks.push(remark(texts.cutByContext));
        return remarks;
      }
    }
  }

  private errorCard({ message, actions }: Extract<Outcome, { kind: 'failed' }>): HTMLElement {
    const buttons = actions.map((action, index) => this.action(action, index > 0));
    return element('div', { class: 'card error', attributes: { role: 'alert' } }, [
      drawIcon('warning'),
      element('div', { class: 'card-body' }, [
        element('p', { text: message }),
        element('div', { class: 'card-actions' }, buttons),
      ]),
    ]);
  }

  private action(action: Action, secondary: boolean): HTMLElement {
    return element('button', {
      class: secondary ? 'button secondary' : 'button',
      text: this.host.texts.actions[action],
      attributes: { type: 'button', 'data-action': action },
      onClick: () => this.host.send({ type: 'action', action, turn: this.id }),
    });
  }

  private meta(outcome: Exclude<Outcome, { kind: 'running' }>): HTMLElement {
    const { texts } = this.host;
    const figures = outcome.kind === 'done' || outcome.kind === 'stopped' ? outcome.figures : undefined;
    const copy = iconButton('copy', texts.copyAnswer, () => {
      this.host.send({ type: 'copy', text: this.answer.markdown });
      confirm(copy, texts.copied);
    });
    const children = this.answer.markdown === '' ? [] : [copy];
    return element('div', { class: 'meta' }, [...children, ...(figures ? [this.figures(figures)] : [])]);
  }

  private figures(figures: Figures): HTMLElement {
    const { texts } = this.host;
    const speed = fill(texts.speed, figures.tokensPerSecond.toFixed(figures.tokensPerSecond < 10 ? 1 : 0));
    const prompt = fill(texts.promptTokens, figures.promptTokens, figures.cachedTokens);
    const seconds = (figures.timeToFirstTokenMs / 1000).toFixed(1);
    const detail = fill(texts.figuresDetail, figures.promptTokens, figures.cachedTokens, seconds);
    return element('span', { class: 'figures', text: `${speed} · ${prompt}`, title: detail });
  }
}

export function meter(share: number, label: string): HTMLElement {
  const bar = element('div', { class: 'meter-bar' });
  bar.style.width = `${Math.round(share * 100)}%`;
  const now = String(Math.round(share * 100));
  const range = { 'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-valuenow': now };
  return element('div', { class: 'meter', attributes: { role: 'progressbar', 'aria-label': label, ...range } }, [bar]);
}

/** Gives code blocks a head with the language, and the buttons once the code is complete. */
function decorateCode(block: HTMLElement, open: boolean, host: Host): void {
  for (const pre of block.querySelectorAll('pre')) {
    const code = pre.querySelector('code');
    if (code === null) continue;
    const language =
      [...code.classList].find((name) => name.startsWith('language-'))?.slice('language-'.length) ?? 'text';
    const head = element('div', { class: 'code-head' }, [element('span', { class: 'code-language', text: language })]);
    if (!open) head.append(...codeButtons(code, host));
    const wrapper = element('div', { class: 'code' });
    pre.tabIndex = 0;
    pre.replaceWith(wrapper);
    wrapper.append(head, pre);
  }
  for (const table of block.querySelectorAll('table')) {
    const scroller = element('div', { class: 'table-scroll' });
    table.replaceWith(scroller);
    scroller.append(table);
  }
}

function codeButtons(code: HTMLElement, host: Host): HTMLElement[] {
  const { texts } = host;
  const text = () => (code.textContent ?? '').replace(/\n$/, '');
  const copy = iconButton('copy', texts.copy, () => {
    host.send({ type: 'copy', text: text() });
    confirm(copy, texts.copied);
  });
  copy.dataset['action'] = 'copy';
  const insert = iconButton('insert', texts.insert, () => host.send({ type: 'insert', text: text() }));
  insert.dataset['action'] = 'insert';
  return [copy, insert];
}

/** Shows for a moment that it was done. */
function confirm(button: HTMLButtonElement, done: string): void {
  const label = button.title;
  button.replaceChildren(drawIcon('check'));
  button.title = done;
  button.setAttribute('aria-label', done);
  setTimeout(() => {
    button.replaceChildren(drawIcon('copy'));
    button.title = label;
    button.setAttribute('aria-label', label);
  }, 1_500);
}
