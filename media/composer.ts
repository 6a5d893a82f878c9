import type { Chip, Context, Controls, Draft, Notice, Suggestion } from '../extension/messages.ts';
import { ContextChips } from './chips.ts';
import { drawIcon, element, fill, iconButton, meter, textButton } from './dom.ts';
import type { Host } from './host.ts';
import { MentionMenu } from './mentions.ts';

/** A pasted text with at least this many lines becomes an attachment. */
const longLines = 40;

/** Most addresses of dropped files that are sent. */
const maxDropped = 50;

/** Debounce of draft reports to the extension. */
const draftMs = 150;

/** The question box with attachments, model, thinking switch, and send or stop. */
export class Composer {
  readonly element: HTMLElement;
  readonly #host: Host;
  readonly #notice: HTMLElement;
  readonly #restricted: HTMLElement;
  /** Says why a pasted or dropped item was not attached. */
  readonly #refused: HTMLElement;
  readonly #chips: ContextChips;
  readonly #mentions: MentionMenu;
  readonly #usage: UsageMeter;
  readonly #box: HTMLTextAreaElement;
  readonly #sendButton: HTMLButtonElement;
  readonly #stopButton: HTMLButtonElement;
  readonly #model: HTMLButtonElement;
  readonly #thinking: HTMLButtonElement;
  readonly #agent: HTMLButtonElement;
  #running = false;
  #contextTokens = 0;
  #usedTokens = 0;
  #pinnedTokens = 0;
  #sentDraft = JSON.stringify({ text: '', start: 0, end: 0 });
  #draftTimer: ReturnType<typeof setTimeout> | undefined;
  #shownNotice = '';
  /** The text that the Up key restores in an empty box. */
  recall: () => string | undefined = () => undefined;

  constructor(host: Host) {
    this.#host = host;
    const { texts } = host;
    this.#notice = element('div', { id: 'notice', attributes: { 'aria-live': 'polite' } });
    this.#restricted = element('div', { id: 'restricted' }, [
      element('span', { text: texts.restricted }),
      textButton(texts.actions.trust, true, () => host.act('trust')),
    ]);
    this.#restricted.hidden = true;
    this.#chips = new ContextChips(host, (chip) => this.#removeChip(chip));
    this.#usage = new UsageMeter(host);
    const names = { 'aria-label': texts.placeholder, placeholder: texts.placeholder, rows: '1' };
    this.#box = element('textarea', { id: 'question', attributes: names });
    this.#mentions = new MentionMenu(host, this.#box);
    this.#sendButton = iconButton('send', texts.send, () => this.#submit(), 'send');
    this.#sendButton.id = 'send';
    this.#stopButton = iconButton('stop', texts.actions.stop, () => host.act('stop'), 'stop');
    this.#stopButton.id = 'stop';
    this.#model = this.#control('model', 'model', texts.chooseModel, () => host.act('choose-model'));
    this.#thinking = this.#control('thinking', 'bulb', texts.cannotThink, () => host.act('thinking'));
    this.#agent = this.#control('agent', 'tools', texts.agentUnavailable, () => this.#toggleAgent());
    // Until the extension reports the model's abilities.
    this.#showAgent('unavailable');
    const controls = [
      this.#model,
      this.#thinking,
      this.#agent,
      element('span', { class: 'spacer' }),
      this.#usage.element,
      this.#sendButton,
      this.#stopButton,
    ];
    const frame = element('div', { class: 'composer' }, [
      this.#mentions.element,
      this.#chips.element,
      this.#box,
      element('div', { class: 'composer-controls' }, controls),
    ]);
    this.#refused = element('p', { id: 'refused', attributes: { role: 'status' } });
    this.element = element('form', { class: 'composer-area' }, [this.#notice, this.#restricted, frame, this.#refused]);
    this.element.addEventListener('submit', (event) => event.preventDefault());
    this.#listen();
    this.#onInput();
  }

  focus(): void {
    this.#box.focus();
  }

  setText(text: string): void {
    this.#box.value = text;
    this.#onInput();
  }

  /** Does nothing if the user has already typed something. */
  restore({ text, start, end }: Draft): void {
    if (this.#box.value !== '') return;
    this.setText(text);
    this.#box.setSelectionRange(start, end);
  }

  /** Shows the draft of the other page. Not reported, because that would send it back while the user types. */
  mirror(draft: Draft): void {
    if (document.hasFocus() && document.activeElement === this.#box) return;
    this.#box.value = draft.text;
    this.#box.setSelectionRange(draft.start, draft.end);
    this.#sentDraft = JSON.stringify(draft);
    this.#showButtons();
  }

  setRunning(running: boolean): void {
    if (running === this.#running) return;
    const hadFocus = document.activeElement === this.#sendButton || document.activeElement === this.#stopButton;
    this.#running = running;
    this.#showButtons();
    if (hadFocus) this.#box.focus();
  }

  /** While an answer runs, a question can be queued. */
  #showButtons(): void {
    const { texts } = this.#host;
    const empty = this.#box.value.trim() === '';
    this.#stopButton.hidden = !this.#running;
    this.#sendButton.hidden = this.#running && empty;
    this.#sendButton.disabled = empty;
    this.#sendButton.title = this.#running ? texts.queue : texts.send;
    this.#sendButton.setAttribute('aria-label', this.#sendButton.title);
  }

  showControls(controls: Controls): void {
    const { texts } = this.#host;
    label(
      this.#model,
      controls.model,
      `${texts.chooseModel}\n${controls.modelDetail}`.trim(),
      `${texts.chooseModel}: ${controls.model}`,
    );
    const mode = fill(texts.thinkingMode, controls.thinking);
    const title = controls.canThink ? mode : texts.cannotThink;
    label(this.#thinking, controls.canThink ? controls.thinking : '', title, title);
    this.#thinking.setAttribute('aria-pressed', String(controls.thinkingOn));
    this.#thinking.classList.toggle('unavailable', !controls.canThink);
    this.#showAgent(controls.agent);
    this.#contextTokens = controls.contextTokens;
    this.showUsage(this.#usedTokens);
  }

  #toggleAgent(): void {
    if (!this.#agent.classList.contains('unavailable')) this.#host.act('agent');
  }

  #showAgent(agent: Controls['agent']): void {
    const { texts } = this.#host;
    const titles = { on: texts.agentOn, off: texts.agentOff, unavailable: texts.agentUnavailable };
    label(this.#agent, agent === 'on' ? texts.actions.agent : '', titles[agent], titles[agent]);
    this.#agent.setAttribute('aria-pressed', String(agent === 'on'));
    this.#agent.classList.toggle('unavailable', agent === 'unavailable');
  }

  showContext(context: Context): void {
    this.#chips.show(context);
    this.#restricted.hidden = !context.restricted;
    this.#pinnedTokens = context.pinnedTokens;
    this.showUsage(this.#usedTokens);
  }

  showSuggestions(query: string, items: readonly Suggestion[]): void {
    this.#mentions.show(query, items);
  }

  /** Context window use after the last answer, plus the pins for the next question. */
  showUsage(usedTokens: number): void {
    this.#usage.show(usedTokens + this.#pinnedTokens, this.#contextTokens);
    this.#usedTokens = usedTokens;
  }

  showNotice(notice: Notice): void {
    // Downloads and loads report many times a second. An unchanged notice keeps its elements and the focus.
    const key = notice.kind === 'progress' ? 'progress' : JSON.stringify(notice);
    if (key === this.#shownNotice && notice.kind !== 'progress') return;
    this.#shownNotice = key;
    this.#notice.dataset['kind'] = notice.kind;
    this.#notice.replaceChildren(...this.#noticeParts(notice));
  }

  #control(id: string, icon: 'model' | 'bulb' | 'tools', name: string, onClick: () => void): HTMLButtonElement {
    const button = element('button', {
      id,
      class: 'control',
      attributes: { type: 'button', 'aria-label': name },
      onClick,
    });
    button.append(drawIcon(icon), element('span', { class: 'control-label' }));
    return button;
  }

  #listen(): void {
    this.#box.addEventListener('paste', (event) => {
      this.#refuseFiles(event, event.clipboardData);
      this.#attachLongText(event);
    });
    this.element.addEventListener('dragover', (event) => event.preventDefault());
    this.element.addEventListener('drop', (event) => this.#drop(event));
    this.#box.addEventListener('input', () => {
      this.#refused.textContent = '';
      this.#onInput();
      this.#mentions.update();
    });
    this.#box.addEventListener('click', () => this.#mentions.update());
    this.#box.addEventListener('selectionchange', () => this.#reportSoon());
    this.#box.addEventListener('blur', () => this.#report());
    this.#box.addEventListener('keydown', (event) => {
      if (event.isComposing || this.#mentions.onKey(event)) return;
      if (event.key === 'Enter' && !event.shiftKey) {
        event.preventDefault();
        this.#submit();
      } else if (event.key === 'ArrowUp' && this.#box.value === '') this.#bringBack(event);
    });
  }

  /** Tells the user that an image from the clipboard, or a file from outside VS Code (which has no path here), can't be attached. */
  #refuseFiles(event: Event, data: DataTransfer | null): void {
    const items = [...(data?.items ?? [])].filter(({ kind }) => kind === 'file');
    const names = [...(data?.files ?? [])].map(({ name }) => name);
    if (items.length + names.length === 0) return;
    event.preventDefault();
    this.#refuse(names.length > 0 ? names : [this.#host.texts.pictureName]);
  }

  #refuse(names: readonly string[]): void {
    this.#refused.textContent = fill(this.#host.texts.cannotAttach, names.join(', '));
  }

  /** Files and folders of the editor's Explorer and tabs become mentions. */
  #drop(event: DragEvent): void {
    const data = event.dataTransfer;
    const list = data?.getData('application/vnd.code.uri-list') || data?.getData('text/uri-list') || '';
    const uris = list.split(/\r?\n/).filter((line) => line !== '' && !line.startsWith('#'));
    if (uris.length === 0) this.#refuseFiles(event, data);
    else {
      event.preventDefault();
      this.#host.send({ type: 'drop', uris: uris.slice(0, maxDropped) });
    }
  }

  /** Inserts mentions at the cursor, separated from other words. */
  insertDropped(text: string, refused: readonly string[]): void {
    const box = this.#box;
    if (text !== '') {
      const before = box.value.slice(0, box.selectionStart);
      box.setRangeText(`${/\S$/.test(before) ? ' ' : ''}${text} `, box.selectionStart, box.selectionEnd, 'end');
      box.dispatchEvent(new Event('input', { bubbles: true }));
      box.focus();
    }
    if (refused.length > 0) this.#refuse(refused);
  }

  /** Attaches a long pasted text, which would hide the question. */
  #attachLongText(event: ClipboardEvent): void {
    const text = (event.clipboardData?.getData('text/plain') ?? '').replaceAll('\r\n', '\n');
    if (event.defaultPrevented || text.split('\n').length < longLines) return;
    event.preventDefault();
    this.#host.send({ type: 'paste', text });
  }

  #bringBack(event: KeyboardEvent): void {
    const last = this.recall();
    if (last === undefined) return;
    event.preventDefault();
    this.setText(last);
  }

  #onInput(): void {
    this.#showButtons();
    this.#reportSoon();
  }

  #reportSoon(): void {
    clearTimeout(this.#draftTimer);
    this.#draftTimer = setTimeout(() => this.#report(), draftMs);
  }

  /** The extension saves the draft and shows chips for its mentions. */
  #report(): void {
    clearTimeout(this.#draftTimer);
    const { value: text, selectionStart: start, selectionEnd: end } = this.#box;
    const draft = { text, start, end };
    const key = JSON.stringify(draft);
    if (key === this.#sentDraft) return;
    this.#sentDraft = key;
    this.#host.send({ type: 'draft', draft });
  }

  #submit(): void {
    const text = this.#box.value.trim();
    if (text === '') return;
    this.#mentions.close();
    this.#host.send({ type: 'send', text });
    this.setText('');
    this.#report();
  }

  /** Removes a mention from the text. The extension tracks other attachments. */
  #removeChip({ id, mention }: Chip): void {
    if (mention === undefined) this.#host.send({ type: 'remove-chip', id });
    else this.setText(this.#box.value.replace(mention, '').replace(/ {2,}/g, ' ').trimStart());
    this.#box.focus();
  }

  #noticeParts(notice: Notice): HTMLElement[] {
    if (notice.kind === 'none') return [];
    const text = element('p', { text: notice.text });
    if (notice.kind === 'progress') return [text, meterOrSweep(notice.share, notice.text)];
    const buttons = notice.kind === 'no-model' ? this.#offers(notice) : this.#remedies(notice);
    const body = element('div', { class: 'card-body' }, [text, element('div', { class: 'card-actions' }, buttons)]);
    const problem = notice.kind === 'problem' || notice.failed === true;
    const icon = drawIcon(problem ? 'warning' : 'model');
    return [element('div', { class: problem ? 'card error' : 'card' }, [icon, body])];
  }

  #offers(notice: Extract<Notice, { kind: 'no-model' }>): HTMLElement[] {
    const { texts } = this.#host;
    const download = notice.offers.map((offer, index) =>
      textButton(
        index === 0 && notice.failed === true ? texts.actions.retry : `${texts.download} ${offer.label}`,
        index > 0,
        () => this.#host.send({ type: 'download', model: offer.id }),
        offer.detail,
      ),
    );
    return [...download, textButton(texts.otherModels, true, () => this.#host.act('choose-model'))];
  }

  #remedies(notice: Extract<Notice, { kind: 'problem' }>): HTMLElement[] {
    return notice.actions.map((action, index) =>
      textButton(this.#host.texts.actions[action], index > 0, () => this.#host.act(action)),
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

/** Above this share, early messages will soon be dropped. */
const nearlyFull = 0.75;

/** Context window use as a ring. Its title has the numbers, which screen readers announce. */
class UsageMeter {
  readonly element: HTMLElement;
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
    this.element = element('span', { class: 'usage', id: 'usage', attributes: { role: 'img' } });
    this.element.hidden = true;
  }

  show(usedTokens: number, contextTokens: number): void {
    this.element.hidden = usedTokens === 0 || contextTokens === 0;
    if (this.element.hidden) return;
    const share = Math.min(1, usedTokens / contextTokens);
    const percent = Math.round(share * 100);
    const text = fill(this.#host.texts.usage, usedTokens.toLocaleString(), contextTokens.toLocaleString(), percent);
    this.element.title = text;
    this.element.setAttribute('aria-label', text);
    this.element.classList.toggle('nearly-full', share >= nearlyFull);
    this.element.style.setProperty('--share', String(share));
    this.element.replaceChildren(element('span', { class: 'usage-ring' }), `${percent}%`);
  }
}
