import type { ChangedFile, Changes, ChangesAct } from '../extension/messages.ts';
import { element, fill, type Icon, iconButton, textButton } from './dom.ts';
import type { Host } from './host.ts';

/** The changes of an answer: its files with line counts, each of which opens its diff, and buttons to decide. */
export function changesCard(turn: string, { files, isRestorable }: Changes, host: Host): HTMLElement {
  const { texts } = host;
  const act = (name: ChangesAct, file?: string) =>
    host.send({ type: 'changes', turn, act: name, ...(file !== undefined && { file }) });
  const isOpen = files.some(({ state }) => state === 'proposed');
  const button = (text: string, isSecondary: boolean, name: ChangesAct) => {
    const made = textButton(text, isSecondary, () => act(name));
    made.dataset['act'] = name;
    return made;
  };
  const buttons = [
    ...(isOpen ? [button(texts.acceptAll, false, 'accept'), button(texts.rejectAll, true, 'reject')] : []),
    ...(isRestorable ? [button(texts.restore, true, 'restore')] : []),
  ];
  const sum = (of: (file: ChangedFile) => number) => files.reduce((total, file) => total + of(file), 0);
  const counts = countsOf(
    sum(({ added }) => added),
    sum(({ removed }) => removed),
    host,
  );
  const title = element('span', { class: 'changes-title', text: fill(texts.changes, files.length) });
  return element(
    'section',
    { class: 'card changes', attributes: { 'aria-label': fill(texts.changes, files.length) } },
    [
      element('div', { class: 'changes-head' }, [title, counts]),
      element(
        'ul',
        { class: 'changed-files' },
        files.map((file) => fileRow(file, host, (name) => act(name, file.id))),
      ),
      ...(buttons.length > 0 ? [element('div', { class: 'card-actions' }, buttons)] : []),
    ],
  );
}

const marks: Readonly<Record<ChangedFile['kind'], string>> = { change: 'M', create: 'A', delete: 'D', rename: 'R' };

function fileRow(file: ChangedFile, host: Host, act: (name: ChangesAct) => void): HTMLElement {
  const { texts } = host;
  const { kind, path, to, added, removed, state } = file;
  const words = { change: '', create: texts.newFile, delete: texts.deletedFile, rename: texts.renamedFile };
  const name = to === undefined ? path : `${path} → ${to}`;
  const show = element('button', {
    class: 'changed-file',
    title: fill(texts.showChange, name),
    attributes: { type: 'button', 'aria-label': `${fill(texts.showChange, name)} ${words[kind]}`.trim() },
    onClick: () => act('show'),
  });
  const mark = element('span', { class: 'changed-mark', text: marks[kind], attributes: { 'aria-hidden': 'true' } });
  show.append(mark, element('span', { class: 'changed-path', text: name }));
  if (words[kind] !== '') show.append(element('span', { class: 'changed-kind', text: words[kind] }));
  const icon = (image: Icon, text: string, of: ChangesAct) => {
    const made = iconButton(image, fill(text, name), () => act(of));
    made.dataset['act'] = of;
    return made;
  };
  const decided = state === 'accepted' ? texts.accepted : texts.rejected;
  return element('li', { attributes: { 'data-kind': kind, 'data-state': state, 'data-path': path } }, [
    show,
    ...(added + removed > 0 ? [countsOf(added, removed, host)] : []),
    ...(state === 'proposed'
      ? [icon('check', texts.acceptChange, 'accept'), icon('close', texts.rejectChange, 'reject')]
      : [element('span', { class: 'changed-state', text: decided })]),
  ]);
}

function countsOf(added: number, removed: number, { texts }: Host): HTMLElement {
  const label = fill(texts.lineCounts, added, removed);
  return element('span', { class: 'counts', title: label, attributes: { role: 'img', 'aria-label': label } }, [
    element('span', { class: 'count-added', text: `+${added}` }),
    element('span', { class: 'count-removed', text: `−${removed}` }),
  ]);
}
