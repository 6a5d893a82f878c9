import * as vscode from 'vscode';
import { readsFast } from '../../engine/index/question/planner.ts';
import type { CompleteParams } from '../../engine/protocol/engineProtocol.ts';
import type { EngineClient } from '../client/client.ts';
import { isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import type { Log } from '../log.ts';
import { type CompletionSettings, completionSettings, languageEnabled } from '../settings.ts';
import { AdaptiveDebounce, CompletionCache, type Place, samePlace } from './cache.ts';
import type { CompletionContext } from './context.ts';
import { type Moment, momentAt, wantsSeveralLines, worthAsking } from './moment.ts';
import { trimSuggestion } from './trim.ts';

/** Documents that are no source text of the user's. */
const foreignSchemes = new Set(['output', 'debug', 'git', 'vscode-scm', 'comment', 'walkThrough', 'search-editor']);

/** Run by VS Code after one of our suggestions went into the file; no one else needs to find it. */
export const acceptedCommand = 'hearth.completionAccepted';

/** Offers the model's continuation at the cursor. */
export class CompletionProvider implements vscode.InlineCompletionItemProvider {
  private readonly engine: EngineHost;
  private readonly log: Log;
  private readonly warmUp: () => void;
  private readonly context: Pick<CompletionContext, 'snippets'>;
  private readonly cache = new CompletionCache();
  private readonly debounce = new AdaptiveDebounce();
  private running: Running | undefined;
  /** Until the user resumes or the window closes. */
  paused = false;

  /** `warmUp` is called when there was something to complete and no model was loaded. */
  constructor(engine: EngineHost, log: Log, context: Pick<CompletionContext, 'snippets'>, warmUp: () => void) {
    this.engine = engine;
    this.log = log;
    this.context = context;
    this.warmUp = warmUp;
  }

  /** Another model answers differently. */
  forget(): void {
    this.cache.clear();
  }

  async provideInlineCompletionItems(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
  ): Promise<vscode.InlineCompletionItem[]> {
    const settings = completionSettings();
    if (!this.isOn(document, settings)) return [];
    const invoked = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
    const selected = context.selectedCompletionInfo;
    const moment = momentAt(document, position, selected && insertion(selected));
    const card = this.engine.current?.warmModel;
    const place = placeOf(card?.id ?? '', document, moment);
    if (this.running && !samePlace(this.running.place, place)) this.running.source.cancel();
    if (!invoked && !worthAsking(moment, card?.fillInTheMiddle ?? false)) return [];
    if (card === undefined) {
      this.warmUp();
      return [];
    }
    const multiline = wantsSeveralLines(moment, settings.multiline);
    const question = { document, position, moment, settings, multiline, delayed: !invoked, place };
    const text = this.remembered(question) ?? (await this.ask(question, token));
    return text === '' ? [] : [item(text, position, selected)];
  }

  /**
   * A suggestion was accepted and the cursor stands behind it: the next one is computed at once and over the line's end, so
   * that it is there when VS Code asks, and after Enter too. The next key ends it like any other.
   */
  async computeAhead(editor: vscode.TextEditor | undefined): Promise<void> {
    const card = this.engine.current?.warmModel;
    const settings = completionSettings();
    if (!editor || !card || !this.isOn(editor.document, settings)) return;
    const { document, selection } = editor;
    const moment = momentAt(document, selection.active);
    if (!worthAsking(moment, card.fillInTheMiddle)) return;
    const place = placeOf(card.id, document, moment);
    const multiline = settings.multiline !== 'never';
    const question = { document, position: selection.active, moment, settings, multiline, delayed: false, place };
    if (this.remembered(question) === undefined) await this.begin(question).answer;
  }

  /** Has the engine read what it will be asked about at the cursor. */
  async warm(editor: vscode.TextEditor | undefined, token: vscode.CancellationToken): Promise<void> {
    const client = this.engine.current;
    const settings = completionSettings();
    if (!editor || !client || token.isCancellationRequested || !this.isOn(editor.document, settings)) return;
    const moment = momentAt(editor.document, editor.selection.active);
    const multiline = wantsSeveralLines(moment, settings.multiline);
    const params = paramsOf(editor.document, moment, settings, multiline);
    const snippets = await this.snippets(editor.document, editor.selection.active);
    await client.warm({ kind: 'completion', ...params, snippets }, token);
  }

  private snippets(document: vscode.TextDocument, position: vscode.Position) {
    const { cpuContextChars, contextChars } = limits.completion;
    const fast = readsFast(this.engine.current?.warmModel);
    return this.context.snippets(document, position, fast ? contextChars : cpuContextChars);
  }

  private isOn(document: vscode.TextDocument, settings: CompletionSettings): boolean {
    if (this.paused || !settings.enabled || foreignSchemes.has(document.uri.scheme)) return false;
    return languageEnabled(settings.languages, document.languageId);
  }

  private remembered({ place, moment }: Question): string | undefined {
    const hit = this.cache.get(place);
    if (hit === undefined) return undefined;
    return trimSuggestion(hit.text, moment, hit.multiline);
  }

  /** The trimmed suggestion, or '' when there is none, it failed or it is not wanted any more. */
  private async ask(question: Question, token: vscode.CancellationToken): Promise<string> {
    const begun = this.running && samePlace(this.running.place, question.place) ? this.running : undefined;
    const { source, answer } = begun ?? this.begin(question);
    const subscription = token.onCancellationRequested(() => source.cancel());
    const text = await answer;
    subscription.dispose();
    return text;
  }

  private begin(question: Question): Running {
    this.running?.source.cancel();
    const source = new vscode.CancellationTokenSource();
    const running = { place: question.place, source, answer: this.answer(question, source.token) };
    this.running = running;
    void running.answer.then(() => {
      source.dispose();
      if (this.running === running) this.running = undefined;
    });
    return running;
  }

  private async answer(question: Question, token: vscode.CancellationToken): Promise<string> {
    try {
      if (question.delayed) await pause(this.debounce.delayMs(question.settings.debounceMs), token);
      const client = this.engine.current;
      if (client === undefined || token.isCancellationRequested) return '';
      return await this.request(client, question, token);
    } catch (error) {
      if (!isCancelled(error)) this.log.warn(`Completion: ${sentence(error)}`);
      return '';
    }
  }

  private async request(
    client: EngineClient,
    { document, position, moment, settings, multiline, place }: Question,
    token: vscode.CancellationToken,
  ): Promise<string> {
    const startedMs = Date.now();
    const snippets = await this.snippets(document, position);
    const params = { ...paramsOf(document, moment, settings, multiline), snippets };
    const { text, finish } = await client.complete(params, token);
    if (finish === 'cancelled') return '';
    const tookMs = Date.now() - startedMs;
    const shown = trimSuggestion(text, moment, multiline);
    this.log.debug(`Completion: ${text.length} characters in ${tookMs} ms, ${shown.length} of them shown.`);
    this.debounce.note(tookMs);
    this.cache.put(place, text, multiline);
    return shown;
  }
}

const paramsOf = (
  document: vscode.TextDocument,
  moment: Moment,
  settings: CompletionSettings,
  multiline: boolean,
): CompleteParams => ({
  prefix: moment.prefix,
  suffix: moment.suffix,
  languageId: moment.languageId,
  path: vscode.workspace.asRelativePath(document.uri),
  maxTokens: settings.maxTokens,
  multiline,
  sampling: { temperature: 0 },
});

interface Question {
  document: vscode.TextDocument;
  position: vscode.Position;
  moment: Moment;
  place: Place;
  settings: CompletionSettings;
  multiline: boolean;
  /** After a key more keys may follow; after the user's own command or an acceptance nothing is waited for. */
  delayed: boolean;
}

/** Never rejects. */
interface Running {
  place: Place;
  source: vscode.CancellationTokenSource;
  answer: Promise<string>;
}

const placeOf = (model: string, document: vscode.TextDocument, { prefix, suffix }: Moment): Place => ({
  document: `${model} ${document.uri.toString()}`,
  prefix,
  suffix,
});

const insertion = (selected: vscode.SelectedCompletionInfo): { text: string; startCharacter: number } => ({
  text: selected.text,
  startCharacter: selected.range.start.character,
});

/** Where the suggestion widget has an item selected, VS Code shows only what extends that item over the same range. */
function item(
  text: string,
  position: vscode.Position,
  selected: vscode.SelectedCompletionInfo | undefined,
): vscode.InlineCompletionItem {
  const accepted = { command: acceptedCommand, title: '' };
  if (selected === undefined)
    return new vscode.InlineCompletionItem(text, new vscode.Range(position, position), accepted);
  return new vscode.InlineCompletionItem(selected.text + text, selected.range, accepted);
}

function pause(ms: number, token: vscode.CancellationToken): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    const subscription = token.onCancellationRequested(done);
    function done(): void {
      clearTimeout(timer);
      subscription.dispose();
      resolve();
    }
  });
}
