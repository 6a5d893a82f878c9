/**
 * The chat's files (a journal, an earlier one, the one that names the journal on screen) change while a window is open or
 * between two windows. The next window shows what was on screen; from a journal that changed while no window had it open, only
 * the unreadable part is lost.
 */
import { cpSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { ChatStore } from '../../extension/chat/store.ts';
import type { Log } from '../../extension/parts.ts';
import { asOrdinaryUser, type ChangeFigures, clear, damageBelow } from './damage.ts';

const turns = 12;
/** Changes after which no file can be written to the path. */
const lasting = ['replaced by a folder', 'not readable'];

export function converse(store: ChatStore, from: number, to: number): void {
  for (let i = from; i < to; i++) {
    const turn = `turn${i}`;
    const asked = { kind: 'chat' as const, question: `question ${i}`, attachments: [], omitted: [] };
    store.record({ type: 'ask', turn, at: 1, ...asked });
    store.record({ type: 'begin', turn, model: 'Small' });
    for (const text of ['an ', 'answer, ', String(i)]) store.record({ type: 'delta', turn, kind: 'text', text });
    store.record({ type: 'end', turn, outcome: { kind: 'stopped' } });
  }
}

export const screenOf = (store: ChatStore): string[] =>
  store.conversation.turns.map(({ view }) => `${view.question} ${view.answer} ${view.outcome.kind}`);

export async function restored(folder: string, log: Log): Promise<ChatStore> {
  const store = new ChatStore(folder, log);
  await store.restore();
  return store;
}

/** @param step 1: every change of every file; otherwise one of so many. */
export const changeJournal = (step: number): Promise<ChangeFigures> => asOrdinaryUser(() => changeEach(step));

async function changeEach(step: number): Promise<ChangeFigures> {
  const root = mkdtempSync(join(tmpdir(), 'hearth-journal-'));
  const [sound, folder] = [join(root, 'sound'), join(root, 'chats')];
  const lines: string[] = [];
  const note = (line: string): void => void lines.push(line);
  const log: Log = { error: note, warn: note, info: () => {}, debug: () => {} };
  const first = await restored(sound, log);
  converse(first, 0, turns);
  await first.startNew();
  converse(first, 0, turns);
  await first.close();
  const kinds = damageBelow(sound, folder);
  const moments = ['between two windows', 'before a question', 'in the middle of an answer'] as const;
  const all = kinds.flatMap((kind) => moments.map((moment) => ({ ...kind, moment })));
  const chosen = all.filter((_, number) => number % step === 0);
  const problems: string[] = [];
  let [same, refused] = [0, 0];
  for (const { path, name, change, moment } of chosen) {
    const what = `${relative(root, path)} ${name} ${moment}`;
    clear(folder);
    cpSync(sound, folder, { recursive: true });
    lines.length = 0;
    try {
      if (moment === 'between two windows') change(path);
      const store = await restored(folder, log);
      if (moment === 'before a question') change(path);
      converse(store, turns, turns + 2);
      store.record({ type: 'ask', turn: 'last', at: 1, kind: 'chat', question: 'last?', attachments: [], omitted: [] });
      store.record({ type: 'delta', turn: 'last', kind: 'text', text: 'The beginning' });
      await store.flush();
      if (moment === 'in the middle of an answer') change(path);
      store.record({ type: 'delta', turn: 'last', kind: 'text', text: ' and the end.' });
      store.record({ type: 'end', turn: 'last', outcome: { kind: 'stopped' } });
      await store.close();
      const shown = screenOf(store);
      const next = new ChatStore(folder, log);
      await next.open(store.conversation.id);
      await next.close();
      const isSame = JSON.stringify(screenOf(next)) === JSON.stringify(shown);
      await next.list();
      if (isSame) same++;
      else if (lasting.includes(name) && path === join(folder, `${store.conversation.id}.jsonl`) && lines.length > 0)
        refused++;
      else if (name === 'not writable' && lines.length > 0) refused++;
      else problems.push(`${what}: ${shown.length} turns on screen, ${screenOf(next).length} on the disk`);
      if (moment !== 'between two windows' && shown.length < turns + 3)
        problems.push(`${what}: ${shown.length} turns on screen`);
    } catch (error) {
      problems.push(`${what}: ${error instanceof Error ? error.stack : error}`);
    }
    if (lines.some((line) => line.includes('\n'))) problems.push(`${what}: ${lines.join(' | ')}`);
  }
  clear(root);
  return { changes: chosen.length, same, refused, problems };
}
