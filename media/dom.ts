type Child = Node | string;
interface Properties {
  class?: string;
  id?: string;
  text?: string;
  title?: string;
  attributes?: Readonly<Record<string, string>>;
  onClick?: (event: MouseEvent) => void;
}

/** Creates an element. Only markdown.ts sets markup. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  children: readonly Child[] = [],
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (properties.class !== undefined) made.className = properties.class;
  if (properties.id !== undefined) made.id = properties.id;
  if (properties.text !== undefined) made.textContent = properties.text;
  if (properties.title !== undefined) made.title = properties.title;
  for (const [name, value] of Object.entries(properties.attributes ?? {})) made.setAttribute(name, value);
  const { onClick } = properties;
  if (onClick !== undefined) made.addEventListener('click', (event) => onClick(event as MouseEvent));
  made.append(...children);
  return made;
}

/** A button with an icon, named for screen readers by its tooltip. */
export function iconButton(icon: Icon, title: string, onClick: () => void, className = ''): HTMLButtonElement {
  const attributes = { type: 'button', 'aria-label': title };
  return element('button', { class: `icon-button ${className}`.trim(), title, attributes, onClick }, [drawIcon(icon)]);
}

export function textButton(text: string, secondary: boolean, onClick: () => void, title?: string): HTMLButtonElement {
  return element('button', {
    class: secondary ? 'button secondary' : 'button',
    text,
    attributes: { type: 'button' },
    onClick,
    ...(title === undefined ? {} : { title }),
  });
}

/** Makes an element a link. Not an anchor, because the browser would prefetch, drag or follow it; not a button, because it would not wrap. */
export function asLink(link: HTMLElement, title: string, onOpen: () => void): HTMLElement {
  link.className = 'link';
  link.title = title;
  link.tabIndex = 0;
  link.setAttribute('role', 'link');
  link.addEventListener('click', onOpen);
  link.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') onOpen();
  });
  return link;
}

/** Briefly shows on a copy button that the text was copied. */
export function confirmed(button: HTMLButtonElement, done: string): void {
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

export function meter(share: number, label: string): HTMLElement {
  const bar = element('div', { class: 'meter-bar' });
  bar.style.width = `${Math.round(share * 100)}%`;
  const now = String(Math.round(share * 100));
  const range = { 'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-valuenow': now };
  return element('div', { class: 'meter', attributes: { role: 'progressbar', 'aria-label': label, ...range } }, [bar]);
}

/** Stroked paths on a 16 by 16 grid. */
const icons = {
  send: 'M8 13.5V2.5M3.5 7 8 2.5 12.5 7',
  stop: 'M4.5 4.5h7v7h-7z',
  copy: 'M5.5 5.5h7.5v8H5.5zM3 10.5v-8h7.5',
  pin: 'M5.5 2.5h5M6.5 2.5v4L4.5 9h7l-2-2.5v-4M8 9v4.5',
  fork: 'M5 5.5v5M5 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM5 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM11 6.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM11 6.5c0 3-3 2.5-6 4',
  check: 'M3 8.5 6.5 12 13 4.5',
  insert: 'M2.5 3.5h11M2.5 12.5h11M6 8h7.5M2.5 6 4.5 8l-2 2',
  close: 'M4 4l8 8M12 4l-8 8',
  add: 'M8 3v10M3 8h10',
  edit: 'M3 13l.7-2.9 7-7 2.2 2.2-7 7zM9.3 4.5l2.2 2.2',
  again: 'M12.8 6.2A5 5 0 1 0 13 9M13 3v3.4H9.6',
  down: 'M8 3v10M3.5 8.5 8 13l4.5-4.5',
  chevron: 'M6 4l4 4-4 4',
  file: 'M4 2h5.5L12.5 5v9H4zM9 2.5V5.5h3',
  folder: 'M1.8 12.5v-9h4.4l1.4 1.7h6.6v7.3z',
  symbol: 'M8 2 13 4.8v6.4L8 14l-5-2.8V4.8zM3 4.8 8 7.6l5-2.8',
  selection: 'M2.5 4V2.5H4M12 2.5h1.5V4M13.5 12v1.5H12M4 13.5H2.5V12M5 6h6M5 8h6M5 10h4',
  diff: 'M8 2.5v7M4.5 6h7M4.5 13h7',
  terminal: 'M2.5 3h11v10h-11zM5 6l2 2-2 2M8.5 10H11',
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3 14 14',
  map: 'M2 4l4-1.5 4 1.5 4-1.5V12l-4 1.5L6 12l-4 1.5zM6 2.5V12M10 4v9.5',
  tools:
    'M9.6 2.6a3.4 3.4 0 0 0-3 5L2.6 11.6v1.8h1.8l4-4a3.4 3.4 0 0 0 4.6-4.3L10.9 7.2 8.8 5.1l2.1-2.1a3.4 3.4 0 0 0-1.3-.4z',
  bulb: 'M6 12h4M6.5 14h3M8 2a4 4 0 0 0-2.4 7.2c.4.3.6.7.6 1.3h3.6c0-.6.2-1 .6-1.3A4 4 0 0 0 8 2z',
  model: 'M8 2 13.5 5v6L8 14 2.5 11V5zM2.5 5 8 8l5.5-3M8 8v6',
  warning: 'M8 2.5 14.5 13.5h-13zM8 6.5v3.5M8 11.8v.4',
  arch: 'M3.2 13.3V7.5a4.8 4.8 0 0 1 9.6 0v5.8M1.7 13.5h12.6',
  flame: 'M8.2 5.2c.4 1.8 2.3 2.7 2.3 4.7a2.5 2.5 0 0 1-5 0c0-1.1.5-1.8 1.1-2.3.1.7.3 1.2.8 1.4-.2-1.3.1-2.6.8-3.8z',
} as const;
export type Icon = keyof typeof icons;

export function drawIcon(icon: Icon): SVGSVGElement {
  const namespace = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(namespace, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('aria-hidden', 'true');
  svg.classList.add('icon', `icon-${icon}`);
  const path = document.createElementNS(namespace, 'path');
  path.setAttribute('d', icons[icon]);
  svg.append(path);
  return svg;
}

/** Fills in `{0}` and `{1}`. */
export function fill(text: string, ...values: (string | number)[]): string {
  return text.replace(/\{(\d)\}/g, (whole, index: string) => String(values[Number(index)] ?? whole));
}
