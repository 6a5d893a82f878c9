import type { Chip, Context, Controls, Notice } from '../extension/messages.ts';
import { drawIcon, element, fill, iconButton, meter, textButton } from './dom.ts';
import type { Host } from './host.ts';

/** The question box with what goes along, the model, the thinking switch, and send or stop. */
export class Composer {
  readonly element: HTMLElement;
  private readonly host: Host;
  private readonly notice: HTMLElement;
  private readonly chips: HTMLElement;
  private readonly box: HTMLTextAreaElement;
  private readonly sendButton: HTMLButtonElement;
  private readonly stopButton: HTMLButtonElement;
  private readonly model: HTMLButtonElement;
  private readonly thinking: HTMLButtonElement;
  private running = false;
  private shownNotice = '';
  /** What the Up key brings back into an empty box. */
  recall: () => string | undefined = () => undefined;

  constructor(host: Host) {
    this.host = host;
    const { texts } = host;
    this.notice = element('div', { id: 'notice', attributes: { 'aria-live': 'polite' } });
    this.chips = element('ul', { class: 'chips', id: 'chips', attributes: { 'aria-label': texts.contextLabel } });
    const names = { 'aria-label': texts.placeholder, placeholder: texts.placeholder, rows: '1' };
    this.box = element('textarea', { id: 'question', attributes: names });
    this.sendButton = iconButton('send', texts.send, () => this.submit(), 'send');
    this.sendButton.id = 'send';
    this.stopButton = iconButton('stop', texts.stop, () => host.send({ type: 'stop' }), 'stop');
    this.stopButton.id = 'stop';
    this.model = this.control('model', 'model', texts.chooseModel, () => host.send({ type: 'pick-model' }));
    this.thinking = this.control('thinking', 'bulb', texts.cannotThink, () => host.send({ type: 'pick-thinking' }));
    const controls = [
      this.model,
      this.thinking,
      element('span', { class: 'spacer' }),
      this.sendButton,
      this.stopButton,
    ];
    const frame = element('div', { class: 'composer' }, [
      this.chips,
      this.box,
      element('div', { class: 'composer-controls' }, controls),
    ]);
    this.element = element('form', { class: 'composer-area' }, [this.notice, frame]);
    this.element.addEventListener('submit', (event) => event.preventDefault());
    this.listen();
    this.setRunning(false);
    this.setText(host.draft);
  }

  focus(): void {
    this.box.focus();
  }

  setText(text: string): void {
    this.box.value = text;
    this.onInput();
  }

  setRunning(running: boolean): void {
    this.running = running;
    const hadFocus = document.activeElement === this.sendButton || document.activeElement === this.stopButton;
    this.sendButton.hidden = running;
    this.stopButton.hidden = !running;
    if (hadFocus) this.box.focus();
  }

  showControls(controls: Controls): void {
    const { texts } = this.host;
    label(
      this.model,
      controls.model,
      `${texts.chooseModel}\n${controls.modelDetail}`.trim(),
      `${texts.chooseModel}: ${controls.model}`,
    );
    const mode = fill(texts.thinkingMode, controls.thinking);
    const title = controls.canThink ? mode : texts.cannotThink;
    label(this.thinking, controls.canThink ? controls.thinking : '', title, title);
    this.thinking.setAttribute('aria-pressed', String(controls.thinkingOn));
    this.thinking.classList.toggle('unavailable', !controls.canThink);
  }

  showContext({ chips, addable }: Context): void {
    const items = chips.map((chip) => this.chip(chip));
    if (addable !== undefined) items.push(this.addChip(addable));
    this.chips.replaceChildren(...items);
    this.chips.hidden = items.length === 0;
  }

  showNotice(notice: Notice): void {
    // Download and load report many times a second: the same notice keeps its elements, and with them the focus.
    const key = notice.kind === 'progress' ? 'progress' : JSON.stringify(notice);
    if (key === this.shownNotice && notice.kind !== 'progress') return;
    this.shownNotice = key;
    this.notice.dataset['kind'] = notice.kind;
    this.notice.replaceChildren(...this.noticeParts(notice));
  }

  private control(id: string, icon: 'model' | 'bulb', name: string, onClick: () => void): HTMLButtonElement {
    const button = element('button', {
      id,
      class: 'control',
      attributes: { type: 'button', 'aria-label': name },
      onClick,
    });
    button.append(drawIcon(icon), element('span', { class: 'control-label' }));
    return button;
  }

  private listen(): void {
    this.box.addEventListener('input', () => this.onInput());
    this.box.addEventListener('keydown', (event) => {
      if (event.isComposing) return;
      if (event.key === 'Enter' && !event.shiftKey) {
        event.preventDefault();
        this.submit();
      } else if (event.key === 'ArrowUp' && this.box.value === '') this.bringBack(event);
    });
  }

  private bringBack(event: KeyboardEvent): void {
    const last = this.recall();
    if (last === undefined) return;
    event.preventDefault();
    this.setText(last);
  }

  private onInput(): void {
    this.host.draft = this.box.value;
    this.sendButton.disabled = this.box.value.trim() === '';
  }

  private submit(): void {
    const text = this.box.value.trim();
    if (text === '' || this.running) return;
    this.host.send({ type: 'send', text });
    this.setText('');
  }

  private chip(chip: Chip): HTMLElement {
    const { texts } = this.host;
    const size = fill(texts.chipTokens, chip.tokens.toLocaleString());
    const title = [chip.label, chip.detail, size].filter((part) => part !== '').join('\n');
    const remove = iconButton('close', fill(texts.removeChip, chip.label), () => {
      this.host.send({ type: 'remove-chip', id: chip.id });
      this.box.focus();
    });
    return element('li', { class: 'chip', title, attributes: { 'data-chip': chip.id } }, [
      drawIcon('file'),
      element('span', { class: 'chip-label', text: chip.label }),
      ...(chip.detail === '' ? [] : [element('span', { class: 'chip-detail', text: chip.detail })]),
      remove,
    ]);
  }

  private addChip(name: string): HTMLElement {
    const title = fill(this.host.texts.addChip, name);
    const attributes = { type: 'button', 'aria-label': title };
    const button = element('button', {
      class: 'chip addable',
      title,
      attributes,
      onClick: () => this.host.send({ type: 'add-context' }),
    });
    button.append(drawIcon('add'), element('span', { class: 'chip-label', text: name }));
    return element('li', {}, [button]);
  }

  private noticeParts(notice: Notice): HTMLElement[] {
    if (notice.kind === 'none') return [];
    const text = element('p', { text: notice.text });
    if (notice.kind === 'progress') return [text, meterOrSweep(notice.share, notice.text)];
    const buttons = notice.kind === 'no-model' ? this.offers(notice) : this.remedies(notice);
    const body = element('div', { class: 'card-body' }, [text, element('div', { class: 'card-actions' }, buttons)]);
    const problem = notice.kind === 'problem';
    const icon = drawIcon(problem ? 'warning' : 'model');
    return [element('div', { class: problem ? 'card error' : 'card' }, [icon, body])];
  }

  private offers(notice: Extract<Notice, { kind: 'no-model' }>): HTMLElement[] {
    const { texts } = this.host;
    const download = notice.offers.map((offer, index) =>
      textButton(
        `${texts.download} ${offer.label}`,
        index > 0,
        () => this.host.send({ type: 'download', model: offer.id }),
        offer.detail,
      ),
    );
    return [...download, textButton(texts.otherModels, true, () => this.host.send({ type: 'pick-model' }))];
  }

  private remedies(notice: Extract<Notice, { kind: 'problem' }>): HTMLElement[] {
    return notice.actions.map((action, index) =>
      textButton(this.host.texts.actions[action], index > 0, () => this.host.send({ type: 'action', action })),
    );
  }
}

function label(control: HTMLElement, text: string, title: string, name: string): void {
  const span = control.querySelector('.control-label');
  if (span !== null) span.textContent = text;
  control.title = title;
  control.setAttribute('aria-label', name);
}

function meterOrSweep(share: number | undefined, name: string): HTMLElement {
  const bar = meter(share ?? 0, name);
  bar.classList.toggle('sweep', share === undefined);
  return bar;
}
