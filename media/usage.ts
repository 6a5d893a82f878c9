import { element, fill } from './dom.ts';
import type { Host } from './host.ts';

/** Beyond this share the beginning of the conversation is about to be left out. */
const nearlyFull = 0.75;

/** How full the model's window is, as a ring; the numbers stand in its title and are read out. */
export class UsageMeter {
  readonly element: HTMLElement;
  private readonly host: Host;

  constructor(host: Host) {
    this.host = host;
    this.element = element('span', { class: 'usage', id: 'usage', attributes: { role: 'img' } });
    this.element.hidden = true;
  }

  show(usedTokens: number, contextTokens: number): void {
    this.element.hidden = usedTokens === 0 || contextTokens === 0;
    if (this.element.hidden) return;
    const share = Math.min(1, usedTokens / contextTokens);
    const percent = Math.round(share * 100);
    const text = fill(this.host.texts.usage, usedTokens.toLocaleString(), contextTokens.toLocaleString(), percent);
    this.element.title = text;
    this.element.setAttribute('aria-label', text);
    this.element.classList.toggle('nearly-full', share >= nearlyFull);
    this.element.style.setProperty('--share', String(share));
    this.element.replaceChildren(element('span', { class: 'usage-ring' }), `${percent}%`);
  }
}
