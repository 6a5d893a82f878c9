import * as z from 'zod';
import { type Chip, chip, citation, type Outcome, outcome, type Turn } from '../messages.ts';
import { distinctLabels } from './labels.ts';

/** A chip with the text that the model got. */
export const attachment = chip.extend({
  path: z.string(),
  languageId: z.string(),
  text: z.string(),
  /** First line in its file, from 1; 0 if it is not part of a file or the journal is older than this field. */
  firstLine: z.number().default(0),
  /** First lines of the definitions that enclose it, which it doesn't show. */
  within: z.string().optional(),
});
export type Attachment = z.infer<typeof attachment>;

export const chipOf = ({ id, label, detail, tokens }: Attachment): Chip => ({ id, label, detail, tokens });

/** A stored turn: what the page shows and what the model received. */
export interface StoredTurn {
  view: Turn;
  attachments: Attachment[];
}

export interface Conversation {
  id: string;
  /** Given by the user; if empty, the first question is the title. */
  title: string;
  turns: StoredTurn[];
}

/** Events of a conversation, one journal line each. Events name their turn, so lines may interleave. */
export const journalRecord = z.discriminatedUnion('type', [
  z.object({ type: z.literal('chat'), version: z.literal(1), id: z.string(), at: z.number() }),
  z.object({
    type: z.literal('ask'),
    turn: z.string(),
    at: z.number(),
    kind: z.enum(['chat', 'summary']),
    question: z.string(),
    attachments: z.array(attachment),
    /** Labels of attachments that were left out. */
    omitted: z.array(z.string()).default([]),
  }),
  z.object({ type: z.literal('begin'), turn: z.string(), model: z.string() }),
  z.object({ type: z.literal('delta'), turn: z.string(), kind: z.enum(['text', 'thinking']), text: z.string() }),
  /** The final text, if it differs from the sum of the deltas. */
  z.object({ type: z.literal('text'), turn: z.string(), thinking: z.string(), answer: z.string() }),
  /** Citations that exist and those that do not. Older journals lack the latter. */
  z.object({
    type: z.literal('cited'),
    turn: z.string(),
    citations: z.array(citation),
    missing: z.array(z.string()).default([]),
  }),
  z.object({ type: z.literal('end'), turn: z.string(), outcome }),
  /** A turn that the user replaced. */
  z.object({ type: z.literal('drop'), turn: z.string() }),
  z.object({ type: z.literal('title'), title: z.string() }),
]);
export type JournalRecord = z.infer<typeof journalRecord>;

export const emptyConversation = (id: string): Conversation => ({ id, title: '', turns: [] });

export const isRunning = (turn: StoredTurn): boolean => turn.view.outcome.kind === 'running';

export const findTurn = (conversation: Conversation, id: string): StoredTurn | undefined =>
  conversation.turns.find((turn) => turn.view.id === id);

/** Applies one event to a conversation. Ignores events of unknown turns. */
export function apply(conversation: Conversation, record: JournalRecord): void {
  if (record.type === 'chat') return;
  if (record.type === 'title') {
    conversation.title = record.title;
    return;
  }
  if (record.type === 'ask') {
    if (findTurn(conversation, record.turn) === undefined) conversation.turns.push(asked(record));
    return;
  }
  if (record.type === 'drop') {
    conversation.turns = conversation.turns.filter((turn) => turn.view.id !== record.turn);
    return;
  }
  const turn = findTurn(conversation, record.turn)?.view;
  if (turn !== undefined) applyToTurn(turn, record);
}

type TurnRecord = Exclude<JournalRecord, { type: 'chat' | 'ask' | 'drop' | 'title' }>;

function applyToTurn(turn: Turn, record: TurnRecord): void {
  if (record.type === 'begin') turn.model = record.model;
  else if (record.type === 'end') turn.outcome = record.outcome;
  else if (record.type === 'cited') {
    turn.citations = record.citations;
    turn.missing = record.missing;
  } else if (record.type === 'text') {
    turn.thinking = record.thinking;
    turn.answer = record.answer;
  } else if (record.kind === 'thinking') turn.thinking += record.text;
  else turn.answer += record.text;
}

function asked(record: Extract<JournalRecord, { type: 'ask' }>): StoredTurn {
  const running: Outcome = { kind: 'running', note: '' };
  return {
    view: {
      id: record.turn,
      kind: record.kind,
      question: record.question,
      chips: distinctLabels(record.attachments).map(chipOf),
      omitted: record.omitted,
      thinking: '',
      answer: '',
      model: '',
      citations: [],
      missing: [],
      outcome: running,
    },
    attachments: record.attachments,
  };
}

/** Context window tokens in use, as the engine counted them for the last answer. */
export function filledTokens(conversation: Conversation): number {
  const chats = conversation.turns.flatMap(({ view }) => (view.kind === 'chat' ? [view.outcome] : []));
  const figures = chats.flatMap((of) => ('figures' in of && of.figures !== undefined ? [of.figures] : [])).at(-1);
  return figures === undefined ? 0 : figures.promptTokens + figures.generatedTokens;
}

/** Replays a journal. Marks a turn without an end as interrupted. */
export function replay(id: string, records: Iterable<JournalRecord>): Conversation {
  const conversation = emptyConversation(id);
  for (const record of records) apply(conversation, record);
  for (const turn of conversation.turns) if (isRunning(turn)) turn.view.outcome = { kind: 'interrupted' };
  return conversation;
}
