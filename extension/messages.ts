/**
 * Messages between the extension and the chat page. Both sides validate what they receive. Of the
 * extension, the page (media/) imports only this file and answerMarkup.ts.
 */
import * as z from 'zod';
import { limits } from './limits.ts';

// ---- Shared shapes ----

/** A file or selection that goes with a question. Its text stays in the extension. */
export const chip = z.object({
  id: z.string(),
  label: z.string(),
  /** Line range, and whether lines were left out. */
  detail: z.string(),
  /** Estimated; 0 if unknown before sending. */
  tokens: z.number(),
  /** The mention as written in the question. Absent if the chip is not a mention. */
  mention: z.string().optional(),
  /** The mention that pins it to the chat. Absent if it can't be pinned. */
  pin: z.string().optional(),
  isPinned: z.boolean().optional(),
});
export type Chip = z.infer<typeof chip>;

/** Action of a button on the page, carried out by the extension. */
export const action = z.enum([
  ...['retry', 'restart', 'choose-model', 'show-log', 'new-chat', 'settings', 'trust'],
  /** During an answer. */
  ...['stop', 'answer-now'],
  /** A new chat with the turns up to this one. */
  'fork',
  /** For a queued question. */
  ...['send', 'remove'],
  /** Opens the picker. */
  'thinking',
  /** Switches the agent of this chat on or off. */
  'agent',
] as const);
export type Action = z.infer<typeof action>;

export const figures = z.object({
  promptTokens: z.number(),
  cachedTokens: z.number(),
  generatedTokens: z.number(),
  timeToFirstTokenMs: z.number(),
  tokensPerSecond: z.number(),
});
export type Figures = z.infer<typeof figures>;

export const outcome = z.discriminatedUnion('kind', [
  /** Waits for the answers before it; `held`: waits until the user sends it. */
  z.object({ kind: z.literal('queued'), held: z.boolean() }),
  /** `note`: progress before the first text. `share`: 0 to 1, if known. */
  z.object({ kind: z.literal('running'), note: z.string(), share: z.number().optional() }),
  /** `length`: the limit on answers; `context`: the model's context is full. */
  z.object({
    kind: z.literal('done'),
    reason: z.enum(['stop', 'length', 'context', 'repetition']),
    figures,
    /** Number of early messages dropped from the full context. */
    dropped: z.number(),
  }),
  /** Stopped by the user. */
  z.object({ kind: z.literal('stopped'), figures: figures.optional() }),
  /** The window closed or the computer stopped during the answer. */
  z.object({ kind: z.literal('interrupted') }),
  z.object({ kind: z.literal('failed'), message: z.string(), actions: z.array(action) }),
]);
export type Outcome = z.infer<typeof outcome>;

/** A place in the workspace that an answer names. */
export const citation = z.object({
  /** Text of the citation in the answer. */
  text: z.string(),
  path: z.string(),
  /** From 1, end inclusive. */
  line: z.number(),
  endLine: z.number(),
});
export type Citation = z.infer<typeof citation>;

/** A step of the agent: done, running, or waiting for permission. */
export const step = z.object({
  id: z.string(),
  title: z.string(),
  /** All that the user must read before allowing it; '' if it asks for nothing. */
  text: z.string(),
  state: z.enum(['running', 'asks', 'done', 'refused', 'failed']),
  /** Shortened. */
  result: z.string(),
});
export type Step = z.infer<typeof step>;

/** Allowed once, allowed for this chat, or refused for this chat. */
export const permission = z.enum(['once', 'chat', 'never']);
export type Permission = z.infer<typeof permission>;

/** One question and its answer. */
export const turn = z.object({
  id: z.string(),
  kind: z.enum(['chat', 'summary']),
  question: z.string(),
  chips: z.array(chip),
  /** Labels of attachments that were left out. */
  omitted: z.array(z.string()),
  thinking: z.string(),
  answer: z.string(),
  /** Steps of the agent. Older journals have none. */
  steps: z.array(step).default([]),
  /** Name of the model that answered. */
  model: z.string(),
  /** Citations that exist. */
  citations: z.array(citation),
  /** Citations of places that do not exist, as written in the answer. */
  missing: z.array(z.string()),
  outcome,
});
export type Turn = z.infer<typeof turn>;

/** A proposed or accepted change of a file. */
export const changedFile = z.object({
  id: z.string(),
  kind: z.enum(['change', 'create', 'delete', 'rename']),
  path: z.string(),
  /** The new path of a renamed file. */
  to: z.string().optional(),
  /** Lines. */
  added: z.number(),
  removed: z.number(),
  state: z.enum(['proposed', 'accepted', 'rejected']),
});
export type ChangedFile = z.infer<typeof changedFile>;

/** All changes that an answer proposes. */
export const changes = z.object({ files: z.array(changedFile), isRestorable: z.boolean() });
export type Changes = z.infer<typeof changes>;

/** Notice above the question box when the engine cannot answer yet. */
export const notice = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('none') }),
  z.object({ kind: z.literal('progress'), text: z.string(), share: z.number().optional() }),
  z.object({
    kind: z.literal('no-model'),
    text: z.string(),
    /** `text` says why the download of the first offer failed. */
    failed: z.boolean().optional(),
    offers: z.array(z.object({ id: z.string(), label: z.string(), detail: z.string() })),
  }),
  z.object({ kind: z.literal('problem'), text: z.string(), actions: z.array(action) }),
]);
export type Notice = z.infer<typeof notice>;

/** The controls below the question box. */
export const controls = z.object({
  model: z.string(),
  modelDetail: z.string(),
  /** Label of the thinking mode. */
  thinking: z.string(),
  thinkingOn: z.boolean(),
  canThink: z.boolean(),
  /** Whether questions are answered with tools. `unavailable`: the model can't, or the folder is not trusted. */
  agent: z.enum(['on', 'off', 'unavailable']),
  /** Tokens of the model's window; 0 while none is loaded. */
  contextTokens: z.number(),
});
export type Controls = z.infer<typeof controls>;

export const context = z.object({
  chips: z.array(chip),
  /** The attachment that the active editor could add after its chip was removed. */
  addable: z.string().optional(),
  /** The folder is not trusted, so it is not searched. */
  restricted: z.boolean(),
  /** Estimated tokens of pins that are not in the conversation yet. */
  pinnedTokens: z.number(),
});
export type Context = z.infer<typeof context>;

export const mentionKinds = [
  'file',
  'folder',
  'symbol',
  'selection',
  'problems',
  'diff',
  'terminal',
  'failure',
  'repository',
] as const;

/** A suggestion for the mention, or for the name of a prompt, that is being typed. */
export const suggestion = z.object({
  kind: z.enum([...mentionKinds, 'prompt']),
  label: z.string(),
  detail: z.string(),
  /** Replaces the typed text. */
  text: z.string(),
  /** A value must follow. */
  open: z.boolean(),
});
export type Suggestion = z.infer<typeof suggestion>;

/** Text and selection of the question box. */
export const draft = z.object({
  text: z.string().max(limits.chat.questionChars),
  start: z.number().int().nonnegative(),
  end: z.number().int().nonnegative(),
});
export type Draft = z.infer<typeof draft>;

// ---- Events of a turn ----

const id = z.string();
/** Everything that happens to a turn. The journal keeps these events and the page shows them. */
export const turnEvent = z.discriminatedUnion('type', [
  /** A queued turn's answer begins; the turn moves before those that are still queued. */
  z.object({ type: z.literal('start'), turn: id }),
  z.object({ type: z.literal('queue'), turn: id, held: z.boolean() }),
  /** Before the first token. Not journaled. */
  z.object({ type: z.literal('progress'), turn: id, note: z.string(), share: z.number().optional() }),
  z.object({ type: z.literal('begin'), turn: id, model: z.string() }),
  z.object({
    type: z.literal('delta'),
    turn: id,
    kind: z.enum(['text', 'thinking']),
    text: z.string(),
    /** Tokens of the answer so far. Not journaled. */
    tokens: z.number().optional(),
  }),
  /** A new step, or an update of one. */
  z.object({ type: z.literal('step'), turn: id, step }),
  /** The final text, if it differs from the sum of the deltas. */
  z.object({ type: z.literal('text'), turn: id, thinking: z.string(), answer: z.string() }),
  /** Citations that exist and those that do not. Older journals lack the latter. */
  z.object({
    type: z.literal('cited'),
    turn: id,
    citations: z.array(citation),
    missing: z.array(z.string()).default([]),
  }),
  z.object({ type: z.literal('end'), turn: id, outcome }),
  /** The user removed or replaced the turn. */
  z.object({ type: z.literal('drop'), turn: id }),
]);
export type TurnEvent = z.infer<typeof turnEvent>;

/** Applies an event to its turn. */
export function applyEvent(turn: Turn, event: TurnEvent): void {
  switch (event.type) {
    case 'start':
      turn.outcome = { kind: 'running', note: '' };
      return;
    case 'queue':
      turn.outcome = { kind: 'queued', held: event.held };
      return;
    case 'progress': {
      const { note, share } = event;
      turn.outcome = { kind: 'running', note, ...(share !== undefined && { share }) };
      return;
    }
    case 'begin':
      turn.model = event.model;
      return;
    case 'delta':
      if (event.kind === 'thinking') turn.thinking += event.text;
      else turn.answer += event.text;
      return;
    case 'text':
      turn.thinking = event.thinking;
      turn.answer = event.answer;
      return;
    case 'step': {
      const at = turn.steps.findIndex((known) => known.id === event.step.id);
      turn.steps.splice(at < 0 ? turn.steps.length : at, 1, event.step);
      return;
    }
    case 'cited':
      turn.citations = event.citations;
      turn.missing = event.missing;
      return;
    case 'end':
      turn.outcome = event.outcome;
      return;
    case 'drop':
  }
}

// ---- Extension to page ----

export const toPage = z.discriminatedUnion('type', [
  /** The whole conversation: first, and whenever another one is shown. */
  z.object({ type: z.literal('conversation'), turns: z.array(turn) }),
  /** A new turn, or a queued one whose question was edited. */
  z.object({ type: z.literal('turn'), turn }),
  turnEvent,
  /** The changes that a turn proposes; sent after the conversation. */
  z.object({ type: z.literal('changes'), turn: id, changes }),
  z.object({ type: z.literal('notice'), notice }),
  z.object({ type: z.literal('controls'), controls }),
  z.object({ type: z.literal('context'), context }),
  /** The answer to `suggest`, with its query. */
  z.object({ type: z.literal('suggestions'), query: z.string(), items: z.array(suggestion) }),
  /** The draft when the page or the window closed. */
  z.object({ type: z.literal('draft'), draft }),
  /** The draft as it is typed in the chat's other page. */
  z.object({ type: z.literal('mirror'), draft }),
  /** Mentions of the dropped files, for the box, and the names of those that cannot be attached. */
  z.object({ type: z.literal('dropped'), text: z.string(), refused: z.array(z.string()) }),
  z.object({ type: z.literal('focus') }),
]);
export type ToPage = z.infer<typeof toPage>;

// ---- Page to extension ----

const code = z.string().max(limits.webview.codeChars);
const name = z.string().max(limits.webview.nameChars);
export const changesAct = z.enum(['show', 'accept', 'reject', 'restore']);
export type ChangesAct = z.infer<typeof changesAct>;
export const toHost = z.discriminatedUnion('type', [
  /** The page is loaded. */
  z.object({ type: z.literal('ready') }),
  z.object({ type: z.literal('send'), text: z.string().min(1).max(limits.chat.questionChars) }),
  /** With the same text or a new one: replaces that turn and all later ones, or edits a queued question. */
  z.object({ type: z.literal('resend'), turn: name, text: z.string().min(1).max(limits.chat.questionChars) }),
  z.object({ type: z.literal('copy'), text: code }),
  z.object({ type: z.literal('insert'), text: code }),
  /** Shows the code as a change of the file that the turn is about. */
  z.object({ type: z.literal('apply'), turn: name, text: code }),
  /** The user's answer to a step that asks for permission. */
  z.object({ type: z.literal('permit'), turn: name, step: name, answer: permission }),
  /** Acts on one of the turn's changes, or on all. */
  z.object({ type: z.literal('changes'), turn: name, act: changesAct, file: name.optional() }),
  /** Puts a command into the terminal, without running it. */
  z.object({ type: z.literal('run'), text: code }),
  /** The draft: its mentions become chips, and the next page restores it. */
  z.object({ type: z.literal('draft'), draft }),
  /** The text after `@` or `#`. */
  z.object({ type: z.literal('suggest'), query: name }),
  /** Opens a citation of that turn by its text, or an attachment by its chip. */
  z.object({ type: z.literal('open-citation'), turn: name, text: name }),
  z.object({ type: z.literal('open-chip'), turn: name, id: name }),
  z.object({ type: z.literal('open-link'), href: z.string().max(limits.webview.linkChars) }),
  /** A long text that was pasted into the box: it becomes an attachment. */
  z.object({ type: z.literal('paste'), text: code }),
  /** Addresses of files and folders that were dropped into the box. */
  z.object({ type: z.literal('drop'), uris: z.array(name).max(limits.webview.droppedFiles) }),
  z.object({ type: z.literal('remove-chip'), id: name }),
  /** Pins a mention to the chat, or unpins it. */
  z.object({ type: z.literal('pin'), mention: name, isPinned: z.boolean() }),
  z.object({ type: z.literal('add-context') }),
  z.object({ type: z.literal('download'), model: name }),
  z.object({ type: z.literal('action'), action, turn: name.optional() }),
  /** An error in the page, for the log. */
  z.object({ type: z.literal('page-error'), message: name }),
]);
export type ToHost = z.infer<typeof toHost>;

// ---- Texts ----

/** The page's fixed texts, translated by the extension. `{0}` is filled in by the page. */
export const texts = z.object({
  conversation: z.string(),
  you: z.string(),
  answer: z.string(),
  emptyTitle: z.string(),
  emptyText: z.string(),
  examples: z.array(z.string()).length(3),
  examplesLabel: z.string(),
  placeholder: z.string(),
  send: z.string(),
  queue: z.string(),
  queued: z.string(),
  held: z.string(),
  copy: z.string(),
  copied: z.string(),
  insert: z.string(),
  apply: z.string(),
  run: z.string(),
  changes: z.string(),
  newFile: z.string(),
  deletedFile: z.string(),
  renamedFile: z.string(),
  lineCounts: z.string(),
  showChange: z.string(),
  acceptChange: z.string(),
  rejectChange: z.string(),
  acceptAll: z.string(),
  rejectAll: z.string(),
  accepted: z.string(),
  rejected: z.string(),
  restore: z.string(),
  steps: z.string(),
  allowOnce: z.string(),
  allowChat: z.string(),
  never: z.string(),
  asks: z.string(),
  refused: z.string(),
  failed: z.string(),
  agentOn: z.string(),
  agentOff: z.string(),
  agentUnavailable: z.string(),
  copyAnswer: z.string(),
  edit: z.string(),
  editNote: z.string(),
  cancel: z.string(),
  regenerate: z.string(),
  thinking: z.string(),
  thoughts: z.string(),
  thinkingMode: z.string(),
  cannotAttach: z.string(),
  pictureName: z.string(),
  cannotThink: z.string(),
  chooseModel: z.string(),
  contextLabel: z.string(),
  sentLabel: z.string(),
  passages: z.string(),
  restricted: z.string(),
  omitted: z.string(),
  mentions: z.string(),
  usage: z.string(),
  missingPlace: z.string(),
  removeChip: z.string(),
  addChip: z.string(),
  pin: z.string(),
  unpin: z.string(),
  chipTokens: z.string(),
  stopped: z.string(),
  interrupted: z.string(),
  cutByLength: z.string(),
  cutByContext: z.string(),
  cutByRepetition: z.string(),
  dropped: z.string(),
  speed: z.string(),
  promptTokens: z.string(),
  figuresDetail: z.string(),
  image: z.string(),
  diagram: z.string(),
  diagramFailed: z.string(),
  diagramSlow: z.string(),
  diagramLong: z.string(),
  showSource: z.string(),
  answered: z.string(),
  scrollDown: z.string(),
  download: z.string(),
  otherModels: z.string(),
  actions: z.record(action, z.string()),
});
export type Texts = z.infer<typeof texts>;
