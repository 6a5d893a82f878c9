import * as vscode from 'vscode';
import {
  type Chosen,
  contextBudget,
  estimatedTokens,
  isAboutOpenFile,
  mapId,
  plan,
  repositorySources,
  type Source,
} from '../../engine/index/question/planner.ts';
import { type Attachment, type Conversation, chipOf, filledTokens } from '../chat/conversation.ts';
import { withTimeout } from '../client/connection.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import type { Chip } from '../messages.ts';
import type { RepositoryIndex } from '../repository/repositoryIndex.ts';
import { type ChatSettings, chatSettings } from '../settings.ts';
import type { FailureWatch } from '../terminal.ts';
import { type Mention, mentionText, parseMentions, pinOf } from './mentions.ts';
import { focusSource, mentionSources, promptSource, ruleSources, textSource } from './sources.ts';
import type { ContextTracker, Focus, Pasted } from './tracker.ts';

/** Counted by the loaded model; estimated conservatively without one. */
export async function countTokens(engine: EngineHost, texts: readonly string[]): Promise<number[]> {
  const client = engine.current;
  if (texts.length === 0) return [];
  if (client?.warmModel === undefined) return texts.map(estimatedTokens);
  // Even if counting fails, the engine can still answer.
  return client.countTokens([...texts]).catch(() => texts.map(estimatedTokens));
}

/** The part of the workspace's index that a question needs. */
export type Repository = Pick<RepositoryIndex, 'available' | 'searchByMeaning' | 'symbols' | 'outline' | 'map'>;

/** Attachments of a question, and labels of what was left out. */
export interface Gathered {
  attachments: Attachment[];
  omitted: string[];
}

/** Collects context for a question and lets the planner choose. */
export class ContextGatherer {
  readonly #engine: EngineHost;
  readonly #tracker: ContextTracker;
  readonly #repository: Repository | undefined;
  readonly #failures: Pick<FailureWatch, 'last'> | undefined;
  readonly #pinTokens = new Map<string, number>();

  constructor(
    engine: EngineHost,
    tracker: ContextTracker,
    repository: Repository | undefined,
    failures?: Pick<FailureWatch, 'last'>,
  ) {
    this.#failures = failures;
    this.#engine = engine;
    this.#tracker = tracker;
    this.#repository = repository;
  }

  /** Uses the editor's state at the time of the call, however long the search takes. */
  async gather(question: string, conversation: Conversation, pasted: readonly Pasted[] = []): Promise<Gathered> {
    const settings = chatSettings();
    const mentions = parseMentions(question);
    const pinned = parseMentions(conversation.pins.join(' '));
    const focus = this.#tracker.wanted(settings.includeActiveFile);
    const place = this.#tracker.focus;
    const { sources: asked, missing } = await this.#asked([...pinned, ...mentions], place);
    const own = focus === undefined || asked.some(({ path }) => path === focus.path) ? [] : [focusSource(focus)];
    const found = this.#searches(mentions, focus, settings)
      ? await withTimeout(this.#found(question, mentions, conversation), limits.chat.searchMs)
      : [];
    const sources = distinct([
      ...(await this.#rules(question, place, settings)),
      ...pasted.map(pastedSource),
      ...asked,
      ...own,
      ...(found ?? []),
    ]);
    const counts = await countTokens(
      this.#engine,
      sources.map(({ lines }) => lines.join('\n')),
    );
    const candidates = sources.map((source, index) => ({ ...source, tokens: counts[index] ?? 0 }));
    const budget = contextBudget(this.#engine.current?.warmModel, filledTokens(conversation));
    const { chosen, omitted } = plan(candidates, budget, isAboutOpenFile(question));
    // Search results that don't fit are not reported.
    const noRoom = omitted.filter(({ tier }) => tier === 'asked' || tier === 'editor');
    return {
      attachments: chosen.map(attachmentOf),
      omitted: [
        ...missing.map(({ text }) => vscode.l10n.t('{0}: not found', text)),
        ...noRoom.map(({ label }) => vscode.l10n.t("{0}: doesn't fit", label)),
        ...(found === undefined ? [vscode.l10n.t('Repository: the search took too long')] : []),
      ],
    };
  }

  /** Chips of the current draft, with estimated sizes. */
  chips(draft: string, pins: readonly string[]): Chip[] {
    const settings = chatSettings();
    const mentions = parseMentions(draft);
    const focus = this.#tracker.wanted(settings.includeActiveFile);
    const source = focus && focusSource(focus);
    const candidates = source ? [{ ...source, tokens: estimatedTokens(source.lines.join('\n')) }] : [];
    const budget = contextBudget(this.#engine.current?.warmModel, 0);
    const pin = focus?.selection === undefined ? focus && filePin(focus) : undefined;
    const own = plan(candidates, budget)
      .chosen.filter(() => pin === undefined || !pins.includes(pin))
      .map((chosen) => ({ ...chipOf(attachmentOf(chosen)), ...(pin !== undefined && { pin }) }));
    const pinned = pins.map((text) => {
      const tokens = this.#pinTokens.get(text) ?? 0;
      return { id: text, label: text.slice(1), detail: '', tokens, mention: text, pin: text, isPinned: true };
    });
    const asked = mentions.flatMap(({ text }) => {
      const pin = pinOf(text);
      if (pin !== undefined && pins.includes(pin)) return [];
      return [
        { id: text, label: text.slice(1), detail: '', tokens: 0, mention: text, ...(pin !== undefined && { pin }) },
      ];
    });
    const label = vscode.l10n.t('Repository');
    const found = this.#searches(mentions, focus, settings) && !mentions.some(({ kind }) => kind === 'repository');
    const pasted = this.#tracker.pasted.map(({ id, text }) => {
      const { label: name } = pastedSource({ id, text });
      return { id, label: name, detail: '', tokens: estimatedTokens(text) };
    });
    return [
      ...pinned,
      ...pasted,
      ...asked,
      ...own,
      ...(found ? [{ id: repositoryId, label, detail: '', tokens: 0 }] : []),
    ];
  }

  /** Estimates the tokens of the pins. True if they have changed. */
  async measure(pins: readonly string[]): Promise<boolean> {
    const before = JSON.stringify([...this.#pinTokens]);
    for (const text of pins) {
      const { sources } = await this.#asked(parseMentions(text), this.#tracker.focus);
      const sizes = sources.map(({ lines }) => estimatedTokens(lines.join('\n')));
      const budget = contextBudget(this.#engine.current?.warmModel, 0);
      this.#pinTokens.set(
        text,
        Math.min(
          budget,
          sizes.reduce((sum, size) => sum + size, 0),
        ),
      );
    }
    return JSON.stringify([...this.#pinTokens]) !== before;
  }

  /** Tokens of pins that were not sent with the last question, so that no answer's figures contain them yet. */
  unsentTokens({ pins, turns }: Conversation): number {
    const attachments = turns.findLast(({ view }) => view.kind === 'chat' && view.answer !== '')?.attachments ?? [];
    const labels = attachments.flatMap(({ id, path, label }) => [id.replace(/^mention:/, ''), path, label]);
    const isSent = ({ kind, value }: Mention) => labels.includes(value === '' ? kind : value.replace(/\/+$/, ''));
    const unsent = pins.filter((text) => !parseMentions(text).some((mention) => isSent(mention)));
    return unsent.reduce((sum, text) => sum + (this.#pinTokens.get(text) ?? 0), 0);
  }

  /** The repository's rules for the file in focus, and the prompt that the question names. */
  async #rules(question: string, focus: Focus | undefined, { useRules }: ChatSettings): Promise<Source[]> {
    const prompt = await promptSource(question, focus);
    const rules = useRules ? await ruleSources(focus) : [];
    return [...rules.filter(({ id }) => !this.#tracker.isRemoved(id)), ...(prompt ? [prompt] : [])];
  }

  /** True if the user asks for a search, or gives no other context. */
  #searches(mentions: readonly Mention[], focus: Focus | undefined, { searchWorkspace }: ChatSettings): boolean {
    if (this.#repository?.available !== true) return false;
    if (mentions.some(({ kind }) => kind === 'repository')) return true;
    const particular = mentions.length > 0 || focus?.selection !== undefined;
    return searchWorkspace && !particular && !this.#tracker.isRemoved(repositoryId);
  }

  async #asked(
    mentions: readonly Mention[],
    focus: Focus | undefined,
  ): Promise<{ sources: Source[]; missing: Mention[] }> {
    const sources: Source[] = [];
    const missing: Mention[] = [];
    for (const mention of new Map(mentions.map((each) => [mentionText(each.kind, each.value), each])).values()) {
      if (mention.kind === 'repository') continue;
      const found = await mentionSources(mention, focus, this.#repository, this.#failures?.last);
      if (found.length === 0) missing.push(mention);
      sources.push(...found);
    }
    return { sources, missing };
  }

  async #found(question: string, mentions: readonly Mention[], conversation: Conversation): Promise<Source[]> {
    if (this.#repository === undefined) return [];
    const known = conversation.turns.some(({ attachments }) => attachments.some(({ id }) => id === mapId));
    return repositorySources(this.#repository, {
      text: withoutMentions(question, mentions),
      earlier: conversation.turns.map(({ view }) => view.question),
      explicit: mentions.some(({ kind }) => kind === 'repository'),
      mapLabel: known ? '' : vscode.l10n.t('Repository map'),
    });
  }
}

/** A pin names a file by its path in the workspace. */
const filePin = ({ uri, path }: Focus): string | undefined =>
  vscode.workspace.getWorkspaceFolder(vscode.Uri.parse(uri, true)) && mentionText('file', path);

/** Mentions are not search terms. */
const withoutMentions = (question: string, mentions: readonly Mention[]): string =>
  mentions.reduce((text, mention) => text.replace(mention.text, ''), question).trim();

const pastedSource = ({ id, text }: Pasted): Source => ({
  ...textSource(id, vscode.l10n.t('Pasted text ({0} lines)', text.split('\n').length), text),
  id,
});

const repositoryId = 'repository';

function distinct(sources: readonly Source[]): Source[] {
  return [...new Map(sources.toReversed().map((source) => [source.id, source])).values()].toReversed();
}

export function attachmentOf({ candidate, start, end, tokens, text }: Chosen): Attachment {
  const { id, label, path, languageId, firstLine, fileLines, lines, within } = candidate;
  const whole = start === 0 && end === lines.length - 1 && (firstLine === 0 || lines.length === fileLines);
  return {
    id,
    label,
    detail: whole ? '' : lineRange(Math.max(1, firstLine) + start, Math.max(1, firstLine) + end, fileLines),
    tokens,
    path,
    languageId,
    text,
    firstLine: firstLine === 0 ? 0 : firstLine + start,
    ...(within !== undefined && { within }),
  };
}

/** `of`: number of lines of the whole file; 0: unknown. */
const lineRange = (first: number, last: number, of: number): string =>
  of === 0 ? vscode.l10n.t('lines {0} to {1}', first, last) : vscode.l10n.t('lines {0} to {1} of {2}', first, last, of);
