import { confirmed, element, iconButton } from './dom.ts';
import type { Host } from './host.ts';

const shells = new Set([
  'sh',
  'bash',
  'zsh',
  'shell',
  'console',
  'terminal',
  'fish',
  'powershell',
  'ps1',
  'pwsh',
  'bat',
  'cmd',
]);

/** Gives code blocks a head with the language, and the buttons once the code is complete. */
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
