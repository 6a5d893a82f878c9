import type { Chip, Context, Suggestion } from '../extension/messages.ts';
import { drawIcon, element, fill, type Icon, iconButton } from './dom.ts';
import type { Host } from './host.ts';

/** Icons of mentions and of attachments that the planner adds. */
const icons: Readonly<Record<Exclude<Suggestion['kind'], 'prompt'> | 'found' | 'map', Icon>> = {
  file: 'file',
  folder: 'folder',
  symbol: 'symbol',
  selection: 'selection',
  problems: 'warning',
  diff: 'diff',
  terminal: 'terminal',
  failure: 'terminal',
  repository: 'search',
  found: 'search',
  map: 'map',
};
const known: ReadonlyMap<string, Icon> = new Map(Object.entries(icons));

export const contextIcon = (kind: string): Icon => known.get(kind) ?? icons.file;

/** Attachments of the next question, each with a remove button. */
export class ContextChips {
  readonly element: HTMLElement;
  readonly #host: Host;
  readonly #onRemove: (chip: Chip) => void;

  constructor(host: Host, onRemove: (chip: Chip) => void) {
    this.#host = host;
    this.#onRemove = onRemove;
    const attributes = { 'aria-label': host.texts.contextLabel };
    this.element = element('ul', { class: 'chips', id: 'chips', attributes });
  }

  show({ chips, addable }: Context): void {
    const items = chips.map((chip) => this.#chip(chip));
    if (addable !== undefined) items.push(this.#addChip(addable));
    this.element.replaceChildren(...items);
    this.element.hidden = items.length === 0;
  }

  #chip(chip: Chip): HTMLElement {
    const { texts } = this.#host;
    const { pin, isPinned = false } = chip;
    const remove = iconButton('close', fill(texts.removeChip, chip.label), () => this.#onRemove(chip));
    const pinning =
      pin === undefined
        ? []
        : [
            iconButton('pin', fill(isPinned ? texts.unpin : texts.pin, chip.label), () =>
              this.#host.send({ type: 'pin', mention: pin, isPinned: !isPinned }),
            ),
          ];
    pinning[0]?.setAttribute('aria-pressed', String(isPinned));
    return element('li', { class: 'chip', title: chipTitle(chip, this.#host), attributes: { 'data-chip': chip.id } }, [
      drawIcon(chipIcon(chip)),
      element('span', { class: 'chip-label', text: chip.label }),
      ...(chip.detail === '' ? [] : [element('span', { class: 'chip-detail', text: chip.detail })]),
      ...pinning,
      // The pin button removes a pinned chip.
      ...(isPinned ? [] : [remove]),
    ]);
  }

  #addChip(name: string): HTMLElement {
    const title = fill(this.#host.texts.addChip, name);
    const attributes = { type: 'button', 'aria-label': title };
    const button = element('button', {
      class: 'chip addable',
      title,
      attributes,
      onClick: () => this.#host.send({ type: 'add-context' }),
    });
    button.append(drawIcon('add'), element('span', { class: 'chip-label', text: name }));
    return element('li', {}, [button]);
  }
}

/** More chips than this are folded, so that question and answer stay together. */
const unfoldedPassages = 3;

/** Attachments of an asked question. A click opens one in the editor. Folds many search results into one line. */
export function sentChips(chips: readonly Chip[], turn: string, host: Host): HTMLElement[] {
  const found = chips.filter(({ id }) => id.startsWith('found:'));
  if (found.length <= unfoldedPassages) return chips.length === 0 ? [] : [sentList(chips, turn, host)];
  const others = chips.filter((chip) => !found.includes(chip));
  const label = element('span', { text: fill(host.texts.passages, found.length) });
  const passages = element('details', { class: 'passages' }, [
    element('summary', {}, [drawIcon('chevron'), drawIcon('search'), label]),
    sentList(found, turn, host),
  ]);
  return others.length === 0 ? [passages] : [sentList(others, turn, host), passages];
}

function sentList(chips: readonly Chip[], turn: string, host: Host): HTMLElement {
  const items = chips.map((chip) => {
    const onClick = () => host.send({ type: 'open-chip', turn, id: chip.id });
    const title = chipTitle(chip, host);
    const button = element('button', { class: 'chip sent', title, attributes: { type: 'button' }, onClick });
    button.append(drawIcon(chipIcon(chip)), element('span', { class: 'chip-label', text: chip.label }));
    return element('li', {}, [button]);
  });
  return element('ul', { class: 'chips', attributes: { 'aria-label': host.texts.sentLabel } }, items);
}

function chipTitle({ label, detail, tokens }: Chip, { texts }: Host): string {
  const size = tokens === 0 ? '' : fill(texts.chipTokens, tokens.toLocaleString());
  return [label, detail, size].filter((part) => part !== '').join('\n');
}

/** The prefix of the id is the kind. */
function chipIcon({ id, mention }: Chip): Icon {
  const kind = (mention ?? id.replace(/^mention:/, '@')).replace(/^[@#]/, '').split(':', 1)[0];
  return contextIcon(kind ?? '');
}
