/** Decorates rendered Markdown: buttons on code, links on citations. */
import { placeBorders } from '../extension/answerMarkup.ts';
import type { Citation } from '../extension/messages.ts';
import { showDiagram } from './diagram.ts';
import { asLink, confirmed, element, iconButton } from './dom.ts';
import type { Host } from './host.ts';
import { targetOf } from './markdown.ts';

const shells = new Set('sh bash zsh shell console terminal fish powershell ps1 pwsh bat cmd'.split(' '));

/** Adds a header with the language to code blocks, and buttons once the code is complete. */
export function decorateCode(block: HTMLElement, open: boolean, turn: string, host: Host): void {
  for (const pre of block.querySelectorAll('pre')) {
    const code = pre.querySelector('code');
    if (code === null) continue;
    const language =
      [...code.classList].find((name) => name.startsWith('language-'))?.slice('language-'.length) ?? 'text';
    const head = element('div', { class: 'code-head' }, [element('span', { class: 'code-language', text: language })]);
    if (!open) head.append(...codeButtons(code, language, turn, host));
    const wrapper = element('div', { class: 'code' });
    pre.tabIndex = 0;
    pre.replaceWith(wrapper);
    wrapper.append(head, pre);
    if (!open && language === 'mermaid') showDiagram(code, head, pre, host);
  }
  for (const table of block.querySelectorAll('table')) {
    const scroller = element('div', { class: 'table-scroll' });
    table.replaceWith(scroller);
    scroller.append(table);
  }
}

function codeButtons(code: HTMLElement, language: string, turn: string, host: Host): HTMLElement[] {
  const { texts } = host;
  const text = () => (code.textContent ?? '').replace(/\n$/, '');
  const copy = iconButton('copy', texts.copy, () => {
    host.send({ type: 'copy', text: text() });
    confirmed(copy, texts.copied);
  });
  copy.dataset['action'] = 'copy';
  const insert = iconButton('insert', texts.insert, () => host.send({ type: 'insert', text: text() }));
  insert.dataset['action'] = 'insert';
  const apply = iconButton('diff', texts.apply, () => host.send({ type: 'apply', turn, text: text() }));
  apply.dataset['action'] = 'apply';
  if (!shells.has(language)) return [apply, insert, copy];
  const run = iconButton('terminal', texts.run, () => host.send({ type: 'run', text: text() }));
  run.dataset['action'] = 'run';
  return [run, apply, insert, copy];
}

export interface CheckedPlaces {
  citations: readonly Citation[];
  /** Citations of places that do not exist. */
  missing: readonly string[];
  /** Tooltip of a missing place. */
  missingLabel: string;
  open(citation: Citation): void;
}

/**
 * Links existing citations to the editor and marks missing ones. Leaves code blocks unchanged, and code spans that contain
 * more than a citation.
 */
export function linkCitations(root: HTMLElement, places: CheckedPlaces): void {
  const known = new Map(places.citations.map((citation) => [citation.text, citation]));
  const texts = [...known.keys(), ...places.missing];
  if (texts.length === 0) return;
  for (const link of root.querySelectorAll('span')) {
    const target = targetOf(link);
    if (target !== undefined && texts.includes(target)) markPlace(link, target, known.get(target), places);
  }
  const pattern = anyOf(texts);
  for (const node of proseNodes(root)) {
    if (node.parentElement?.closest('code') == null) markIn(node, pattern, known, places);
    else if (texts.includes(node.data)) markPlace(wrapped(node), node.data, known.get(node.data), places);
  }
}

/** Longest first, because `a.ts:1-2` starts with `a.ts:1`. */
function anyOf(texts: readonly string[]): RegExp {
  const longest = [...texts].sort((a, b) => b.length - a.length);
  const escaped = longest.map((text) => text.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`));
  return new RegExp(`${placeBorders.before}(?:${escaped.join('|')})${placeBorders.after}`, 'g');
}

function proseNodes(root: HTMLElement): Text[] {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const nodes: Text[] = [];
  for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
    if (node instanceof Text && node.parentElement?.closest('pre, .link, .missing-place, .formula, button') === null)
      nodes.push(node);
  }
  return nodes;
}

function markIn(node: Text, pattern: RegExp, known: ReadonlyMap<string, Citation>, places: CheckedPlaces): void {
  // From last to first, so that earlier offsets stay valid.
  for (const { 0: text, index } of [...node.data.matchAll(pattern)].reverse()) {
    const rest = node.splitText(index);
    rest.splitText(text.length);
    markPlace(wrapped(rest), text, known.get(text), places);
  }
}

function wrapped(node: Text): HTMLElement {
  const span = document.createElement('span');
  node.replaceWith(span);
  span.append(node);
  return span;
}

function markPlace(
  element: HTMLElement,
  text: string,
  citation: Citation | undefined,
  { open, missingLabel }: CheckedPlaces,
): void {
  if (citation === undefined) {
    element.classList.add('missing-place');
    element.title = missingLabel.replace('{0}', () => text);
    return;
  }
  asLink(element, citation.path, () => open(citation)).classList.add('citation');
}
