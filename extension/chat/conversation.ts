import { isDeepStrictEqual } from 'node:util';
import * as z from 'zod';
import { citing, quote, title } from '../../engine/index/question/planner.ts';
import type { ChatMessage } from '../../engine/protocol/engineProtocol.ts';
import type { ModelCard } from '../../engine/protocol/models.ts';
import { limits } from '../limits.ts';
import { applyEvent, type Chip, chip, type Turn, turnEvent } from '../messages.ts';

/** A chip with the text that was sent to the model. */
export const attachment = chip.extend({
  path: z.string(),
  languageId: z.string(),
  text: z.string(),
  /** First line in its file, from 1; 0 if it is not part of a file or the journal is older than this field. */
  firstLine: z.number().default(0),
  /** First lines of the enclosing definitions, if they are not part of it. */
  within: z.string().optional(),
});
export type Attachment = z.infer<typeof attachment>;

/** Id prefix of the repository's rules. */
export const rulesId = 'rules:';

export const chipOf = ({ id, label, detail, tokens }: Attachment): Chip => ({ id, label, detail, tokens });

/** A stored turn: what the page shows and what the model received. */
export interface StoredTurn {
  view: Turn;
  attachments: Attachment[];
}

export interface Conversation {
  id: string;
  /** Set by the user; if empty, the first question is the title. */
  title: string;
  /** Queued turns come last. */
  turns: StoredTurn[];
  /** Mentions that are attached to every question. */
  pins: string[];
}

/** A new question, or the edited question of a queued turn. */
const asked = z.object({
  type: z.literal('ask'),
  turn: z.string(),
  at: z.number(),
  kind: z.enum(['chat', 'summary']),
  question: z.string(),
  attachments: z.array(attachment),
  /** Labels of attachments that were left out. */
  omitted: z.array(z.string()).default([]),
  queued: z.boolean().optional(),
});
export type Asked = z.infer<typeof asked>;

/** Events of a conversation, one journal line each. Events name their turn, so lines may interleave. */
export const journalRecord = z.discriminatedUnion('type', [
  z.object({ type: z.literal('chat'), version: z.literal(1), id: z.string(), at: z.number() }),
  z.object({ type: z.literal('title'), title: z.string() }),
  z.object({ type: z.literal('pin'), mention: z.string(), isPinned: z.boolean() }),
  asked,
  turnEvent,
]);
export type JournalRecord = z.infer<typeof journalRecord>;

export const emptyConversation = (id: string): Conversation => ({ id, title: '', turns: [], pins: [] });

const isRunning = (turn: StoredTurn): boolean => turn.view.outcome.kind === 'running';
export const isQueued = (turn: StoredTurn): boolean => turn.view.outcome.kind === 'queued';

export const findTurn = (conversation: Conversation, id: string): StoredTurn | undefined =>
  conversation.turns.find((turn) => turn.view.id === id);

/** Applies one event to a conversation. Ignores events of unknown turns. */
export function apply(conversation: Conversation, record: JournalRecord): void {
  if (record.type === 'chat') return;
  if (record.type === 'title') {
    conversation.title = record.title;
    return;
  }
  if (record.type === 'pin') {
    const others = conversation.pins.filter((mention) => mention !== record.mention);
    conversation.pins = record.isPinned ? [...others, record.mention] : others;
    return;
  }
  const known = findTurn(conversation, record.turn);
  if (record.type === 'ask') {
    if (known === undefined) place(conversation, turnOf(record));
    else if (isQueued(known)) edit(known, turnOf(record));
    return;
  }
  if (known === undefined) return;
  applyEvent(known.view, record);
  if (record.type === 'drop' || record.type === 'start') conversation.turns = without(conversation, known);
  if (record.type === 'start') place(conversation, known);
}

const without = ({ turns }: Conversation, turn: StoredTurn): StoredTurn[] => turns.filter((other) => other !== turn);

/** Puts a turn at the end, or before the queued ones if it is not queued itself. */
function place({ turns }: Conversation, turn: StoredTurn): void {
  const queue = isQueued(turn) ? -1 : turns.findIndex(isQueued);
  turns.splice(queue < 0 ? turns.length : queue, 0, turn);
}

function edit(turn: StoredTurn, { view, attachments }: StoredTurn): void {
  turn.attachments = attachments;
  turn.view = { ...view, outcome: turn.view.outcome };
}

function turnOf({ turn, kind, question, attachments, omitted, queued = false }: Asked): StoredTurn {
  return {
    view: {
      id: turn,
      kind,
      question,
      chips: distinctLabels(attachments).map(chipOf),
      omitted,
      thinking: '',
      answer: '',
      steps: [],
      model: '',
      citations: [],
      missing: [],
      outcome: queued ? { kind: 'queued', held: false } : { kind: 'running', note: '' },
    },
    attachments,
  };
}

/** Events that recreate the conversation up to a turn, without queued questions. */
export function recordsUpTo({ turns, pins }: Conversation, id: string): JournalRecord[] {
  const asked = turns.filter((turn) => !isQueued(turn));
  const end = asked.findIndex(({ view }) => view.id === id) + 1;
  return [...asked.slice(0, end).flatMap(recordsOf), ...pins.map(pinned)];
}

/** Events that recreate the whole conversation, followed by the turns that only its journal has (another window's). */
export function wholeRecords(conversation: Conversation, stored: readonly JournalRecord[]): JournalRecord[] {
  const { id, title, turns, pins } = conversation;
  const made = applied(id, stored);
  const others = made.turns.filter(({ view }) => findTurn(conversation, view.id) === undefined);
  return [
    { type: 'chat', version: 1, id, at: Date.now() },
    ...(title === '' ? [] : [{ type: 'title', title } as const]),
    ...pins.map(pinned),
    ...[...turns.map((turn) => further(turn, findTurn(made, turn.view.id))), ...others].flatMap(recordsOf),
  ];
}

/** Whether events recreate a conversation. They may contain more: another window's turns, pins and title. */
export function isWhole({ id, title, turns, pins }: Conversation, records: readonly JournalRecord[]): boolean {
  const made = applied(id, records);
  const timeless = (turn: StoredTurn) => recordsOf(turn).map((record) => ({ ...record, at: 0 }));
  const hasTurn = (turn: StoredTurn): boolean => {
    const stored = findTurn(made, turn.view.id);
    return stored !== undefined && isDeepStrictEqual(timeless(stored), timeless(further(turn, stored)));
  };
  const isNamed = (mention: string): boolean => records.some((each) => each.type === 'pin' && each.mention === mention);
  return (title === '' || made.title !== '') && pins.every(isNamed) && turns.every(hasTurn);
}

/** A turn; if this window found it unfinished, what its journal has of it, because another window may have continued it. */
function further(turn: StoredTurn, stored: StoredTurn | undefined): StoredTurn {
  const { outcome } = turn.view;
  const wasFound = outcome.kind === 'interrupted' || (outcome.kind === 'queued' && outcome.held);
  const length = ({ view }: StoredTurn): number => view.thinking.length + view.answer.length;
  return wasFound && stored !== undefined && length(stored) >= length(turn) ? stored : turn;
}

const pinned = (mention: string): JournalRecord => ({ type: 'pin', mention, isPinned: true });

function recordsOf({ view, attachments }: StoredTurn): JournalRecord[] {
  const { id: turn, kind, question, omitted, model, thinking, answer, steps, citations, missing, outcome } = view;
  const asked = { type: 'ask', turn, at: Date.now(), kind, question, attachments, omitted } as const;
  if (outcome.kind === 'queued') return [{ ...asked, queued: true }];
  return [
    asked,
    ...(model === '' ? [] : [{ type: 'begin', turn, model } as const]),
    ...steps.map((step) => ({ type: 'step', turn, step }) as const),
    { type: 'text', turn, thinking, answer },
    { type: 'cited', turn, citations, missing },
    ...(outcome.kind === 'running' ? [] : [{ type: 'end', turn, outcome } as const]),
  ];
}

/** The user's title, or the beginning of the first question. */
export function titleOf({ title, turns }: Conversation): string {
  if (title !== '') return title;
  const [line = ''] = (turns[0]?.view.question ?? '').trim().split('\n', 1);
  const { titleChars } = limits.chat;
  return line.length > titleChars ? `${line.slice(0, titleChars)}…` : line;
}

/** Context window tokens in use, as the engine counted them for the last answer. */
export function filledTokens(conversation: Conversation): number {
  const chats = conversation.turns.flatMap(({ view }) => (view.kind === 'chat' ? [view.outcome] : []));
  const figures = chats.flatMap((of) => ('figures' in of && of.figures !== undefined ? [of.figures] : [])).at(-1);
  return figures === undefined ? 0 : figures.promptTokens + figures.generatedTokens;
}

function applied(id: string, records: Iterable<JournalRecord>): Conversation {
  const conversation = emptyConversation(id);
  for (const record of records) apply(conversation, record);
  return conversation;
}

/** Replays a journal. Marks an unfinished turn as interrupted and holds queued ones. */
export function replay(id: string, records: Iterable<JournalRecord>): Conversation {
  const conversation = applied(id, records);
  for (const turn of conversation.turns) {
    if (isRunning(turn)) turn.view.outcome = { kind: 'interrupted' };
    if (isQueued(turn)) turn.view.outcome = { kind: 'queued', held: true };
  }
  return conversation;
}

/** Adds folders to files of the same name until their labels differ: `a/index.ts:1–9` and `b/index.ts:1–9`. */
export function distinctLabels<T extends { readonly label: string; readonly path: string }>(items: readonly T[]): T[] {
  const segments = (path: string, count: number): string => path.split('/').slice(-count).join('/');
  const paths = [...new Set(items.map(({ path }) => path))];
  return items.map((item) => {
    const name = segments(item.path, 1);
    // Labels of symbols and maps are not file names.
    if (!item.label.startsWith(name)) return item;
    const isShared = (count: number) =>
      paths.some((path) => path !== item.path && segments(path, count) === segments(item.path, count));
    let count = 1;
    while (count < item.path.split('/').length && isShared(count)) count++;
    return { ...item, label: segments(item.path, count) + item.label.slice(name.length) };
  });
}

/** Constant for all turns, so that the prefix cache applies. */
const system = [
  "You are Hearth, a coding assistant that runs on the user's own computer.",
  'Answer briefly and precisely, in Markdown. Put code into fenced blocks that name their language.',
].join(' ');
/** Only for larger models: smaller ones ignore it and write longer answers. */
const pathsRule = ' Above each block that changes a file, name the path of the file.';
const leastParameters = 1e9;

/** The model that is asked. */
type AskedModel = Pick<ModelCard, 'parameters'>;

const systemOf = ({ parameters }: AskedModel): string => (parameters < leastParameters ? system : system + pathsRule);

/**
 * Builds the prompt of the last turn: earlier turns first, exactly as sent before. Leaves out turns
 * without an answer, because many templates require that question and answer alternate, and queued ones.
 */
export function promptMessages(all: readonly StoredTurn[], instructions: string, model: AskedModel): ChatMessage[] {
  const turns = all.filter((turn) => !isQueued(turn));
  const content = instructions === '' ? systemOf(model) : `${systemOf(model)}\n\n${instructions}`;
  const messages: ChatMessage[] = [{ role: 'system', content }];
  const sent = new Set<string>();
  const forgetful = turns.some(({ view }) => view.outcome.kind === 'done' && view.outcome.dropped > 0);
  const last = turns.length - 1;
  turns.forEach((turn, index) => {
    const answer = turn.view.answer.trim();
    if (index < last && answer === '') return;
    // "As above" may point to a message that was dropped from the context window.
    const known = forgetful && index === last ? new Set<string>() : sent;
    messages.push({ role: 'user', content: question(turn, known) });
    if (index < last) messages.push({ role: 'assistant', content: answer });
  });
  return messages;
}

/** The prompt up to the next question, for warm-up. */
export function beforeQuestion(turns: readonly StoredTurn[], instructions: string, model: AskedModel): ChatMessage[] {
  const conversation: Conversation = { ...emptyConversation(''), turns: [...turns] };
  apply(conversation, { type: 'ask', turn: '', at: 0, kind: 'chat', question: '', attachments: [], omitted: [] });
  return promptMessages(conversation.turns, instructions, model);
}

const ruleTitle = (path: string): string => `Follow what the repository says in ${path}:`;

/** Includes an attachment's text once; a repeated attachment is only named. */
function question(turn: StoredTurn, sent: Set<string>): string {
  const parts = turn.attachments
    .filter((attached) => attached.text !== '')
    .map((attached) => {
      const key = `${attached.path}\n${attached.detail}\n${attached.text}`;
      const quoted = { ...attached, whole: attached.detail === '' };
      const known = sent.has(key);
      sent.add(key);
      if (attached.id.startsWith(rulesId)) return known ? '' : `${ruleTitle(attached.path)}\n\n${attached.text}`;
      return known ? `${title(quoted)}, as above.` : quote(quoted);
    });
  const citable = turn.attachments.some(({ firstLine, text }) => firstLine > 0 && text !== '');
  return [...parts.filter((part) => part !== ''), ...(citable ? [citing] : []), turn.view.question].join('\n\n');
}
