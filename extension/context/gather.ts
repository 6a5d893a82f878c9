import * as vscode from 'vscode';
import { isAboutOpenFile } from '../../engine/index/question/about.ts';
import {
  type Chosen,
  contextBudget,
  estimatedTokens,
  mapId,
  plan,
  repositorySources,
  type Source,
} from '../../engine/index/question/planner.ts';
import { type Attachment, type Conversation, chipOf, filledTokens } from '../chat/conversation.ts';
import type { EngineHost } from '../client/host.ts';
import type { Chip } from '../messages.ts';
import type { RepositoryIndex } from '../repository/repositoryIndex.ts';
import { chatSettings } from '../settings.ts';
import { type Mention, parseMentions } from './mentions.ts';
import { promptSource, ruleSources } from './rules.ts';
import { focusSource, mentionSources, textSource } from './sources.ts';
import type { ContextTracker, Focus, Pasted } from './tracker.ts';

/** Counted by the loaded model; estimated conservatively without one. */
export async function countTokens(engine: EngineHost, texts: readonly string[]): Promise<number[]> {
  const client = engine.current;
  if (texts.length === 0) return [];
  if (client?.warmModel === undefined) return texts.map(estimatedTokens);
  // An engine that cannot count can still answer.
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
  private readonly engine: EngineHost;
  private readonly tracker: ContextTracker;
  private readonly repository: Repository | undefined;

  constructor(engine: EngineHost, tracker: ContextTracker, repository: Repository | undefined) {
    this.engine = engine;
    this.tracker = tracker;
    this.repository = repository;
  }

  /** Uses the editor's state at the call, however long the search takes. */
  async gather(question: string, conversation: Conversation, pasted: readonly Pasted[] = []): Promise<Gathered> {
    const mentions = parseMentions(question);
    const focus = this.tracker.wanted(chatSettings().includeActiveFile);
    const place = this.tracker.focus;
    const { sources: asked, missing } = await this.asked(mentions, place);
    const own = focus === undefined || asked.some(({ path }) => path === focus.path) ? [] : [focusSource(focus)];
    const found = await this.found(question, mentions, focus, conversation);
    const sources = distinct([
      ...(await this.rules(question, place)),
      ...pasted.map(pastedSource),
      ...asked,
      ...own,
      ...found,
    ]);
    const counts = await countTokens(
      this.engine,
      sources.map(({ lines }) => lines.join('\n')),
    );
    const candidates = sources.map((source, index) => ({ ...source, tokens: counts[index] ?? 0 }));
    const budget = contextBudget(this.engine.current?.warmModel, filledTokens(conversation));
    const { chosen, omitted } = plan(candidates, budget, isAboutOpenFile(question));
    // Search results that don't fit are not reported.
    const noRoom = omitted.filter(({ tier }) => tier === 'asked' || tier === 'editor');
    return {
      attachments: chosen.map(attachmentOf),
      omitted: [
        ...missing.map(({ text }) => vscode.l10n.t('{0}: not found', text)),
        ...noRoom.map(({ label }) => vscode.l10n.t("{0}: doesn't fit", label)),
      ],
    };
  }

  /** Chips of the current draft, with estimated sizes. */
  chips(draft: string): Chip[] {
    const mentions = parseMentions(draft);
    const focus = this.tracker.wanted(chatSettings().includeActiveFile);
    const source = focus && focusSource(focus);
    const candidates = source ? [{ ...source, tokens: estimatedTokens(source.lines.join('\n')) }] : [];
    const budget = contextBudget(this.engine.current?.warmModel, 0);
    const own = plan(candidates, budget).chosen.map((chosen) => chipOf(attachmentOf(chosen)));
    const asked = mentions.map(({ text }) => ({
      id: text,
      label: text.slice(1),
      detail: '',
      tokens: 0,
      mention: text,
    }));
    const label = vscode.l10n.t('Repository');
    const found = this.searches(mentions, focus) && !mentions.some(({ kind }) => kind === 'repository');
    const pasted = this.tracker.pasted.map(({ id, text }) => {
      const { label: name } = pastedSource({ id, text });
      return { id, label: name, detail: '', tokens: estimatedTokens(text) };
    });
    return [...pasted, ...asked, ...own, ...(found ? [{ id: repositoryId, label, detail: '', tokens: 0 }] : [])];
  }

  /** The repository's rules for the file in focus, and its prompt that the question names. */
  private async rules(question: string, focus: Focus | undefined): Promise<Source[]> {
    const prompt = await promptSource(question, focus);
    const rules = chatSettings().useRules ? await ruleSources(focus) : [];
    return [...rules.filter(({ id }) => !this.tracker.isRemoved(id)), ...(prompt ? [prompt] : [])];
  }

  /** True if the user asks for a search, or gives no other context. */
  private searches(mentions: readonly Mention[], focus: Focus | undefined): boolean {
    if (this.repository?.available !== true) return false;
    if (mentions.some(({ kind }) => kind === 'repository')) return true;
    const particular = mentions.length > 0 || focus?.selection !== undefined;
    return chatSettings().searchWorkspace && !particular && !this.tracker.isRemoved(repositoryId);
  }

  private async asked(
    mentions: readonly Mention[],
    focus: Focus | undefined,
  ): Promise<{ sources: Source[]; missing: Mention[] }> {
    const sources: Source[] = [];
    const missing: Mention[] = [];
    for (const mention of mentions) {
      if (mention.kind === 'repository') continue;
      const found = await mentionSources(mention, focus, this.repository);
      if (found.length === 0) missing.push(mention);
      sources.push(...found);
    }
    return { sources, missing };
  }

  private async found(
    question: string,
    mentions: readonly Mention[],
    focus: Focus | undefined,
    conversation: Conversation,
  ): Promise<Source[]> {
    if (this.repository === undefined || !this.searches(mentions, focus)) return [];
    const known = conversation.turns.some(({ attachments }) => attachments.some(({ id }) => id === mapId));
    return repositorySources(this.repository, {
      text: withoutMentions(question, mentions),
      earlier: conversation.turns.map(({ view }) => view.question),
      explicit: mentions.some(({ kind }) => kind === 'repository'),
      mapLabel: known ? '' : vscode.l10n.t('Repository map'),
    });
  }
}

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

/** `of`: lines of the whole file; 0: not known. */
const lineRange = (first: number, last: number, of: number): string =>
  of === 0 ? vscode.l10n.t('lines {0} to {1}', first, last) : vscode.l10n.t('lines {0} to {1} of {2}', first, last, of);
