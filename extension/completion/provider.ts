import * as vscode from 'vscode';
import { readsFast } from '../../engine/index/question/planner.ts';
import type { CompleteParams } from '../../engine/protocol/engineProtocol.ts';
import type { ModelCard } from '../../engine/protocol/models.ts';
import type { EngineClient } from '../client/client.ts';
import { isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { type CompletionSettings, completionSettings, languageEnabled } from '../settings.ts';
import type { Completions } from '../status.ts';
import type { CompletionContext } from './context.ts';
import type { Snippet } from './moment.ts';
import { joined, type Moment, momentAt, worthAsking } from './moment.ts';
import type { Acceptance } from './suggestions.ts';
import {
  AdaptiveDebounce,
  CompletionCache,
  type Place,
  type Suggestion,
  samePlace,
  typedBetween,
} from './suggestions.ts';

/** URI schemes of documents that are not the user's source code. */
const foreignSchemes = new Set(['output', 'debug', 'git', 'vscode-scm', 'comment', 'walkThrough', 'search-editor']);

/** VS Code runs this command after a suggestion was accepted; it is not in the palette. */
export const acceptedCommand = 'hearth.completionAccepted';

/** Offers the engine's suggestions unchanged. */
export class CompletionProvider implements vscode.InlineCompletionItemProvider {
  readonly #engine: EngineHost;
  readonly #log: Log;
  readonly #warmUp: () => Promise<void>;
  readonly #context: Pick<CompletionContext, 'snippets' | 'refresh'>;
  readonly #acceptance: Acceptance;
  readonly #cache = new CompletionCache();
  readonly #debounce = new AdaptiveDebounce();
  #running: Running | undefined;
  /** Paused until the user resumes or the window closes. */
  paused = false;

  /** `warmUp` loads a model if possible. Called when there is something to complete and no model is loaded. */
  constructor(
    engine: EngineHost,
    log: Log,
    context: Pick<CompletionContext, 'snippets' | 'refresh'>,
    acceptance: Acceptance,
    warmUp: () => Promise<void>,
  ) {
    this.#engine = engine;
    this.#log = log;
    this.#context = context;
    this.#acceptance = acceptance;
    this.#warmUp = warmUp;
  }

  /** For the status bar. */
  state(document: vscode.TextDocument | undefined): Completions {
    const { enabled, languages } = completionSettings();
    if (this.paused) return 'paused';
    if (!enabled) return 'off';
    if (!document || foreignSchemes.has(document.uri.scheme)) return 'on';
    return languageEnabled(languages, document.languageId) ? 'on' : { offFor: document.languageId };
  }

  /** Call when the model changes: another model answers differently. */
  forget(): void {
    this.#cache.clear();
  }

  async provideInlineCompletionItems(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
  ): Promise<vscode.InlineCompletionItem[]> {
    const settings = completionSettings();
    if (!this.#isOn(document, settings)) return [];
    const invoked = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
    const selected = context.selectedCompletionInfo;
    const moment = momentIn(document, position, selected && insertion(selected));
    const card =
      this.#engine.current?.completionModel ?? (await this.#loaded(invoked || worthAsking(moment, true), token));
    if (card === undefined || token.isCancellationRequested) return [];
    const place = placeOf(card.id, document, moment, invoked);
    if (this.#running?.leadsTo(place) === false) this.#running.cancel();
    if (!invoked) this.#acceptance.movedTo(place);
    if (!invoked && !worthAsking(moment, card.fillInTheMiddle)) return [];
    const params = this.#paramsOf(card.id, document, moment, settings, invoked);
    const question = { document, position, moment, params, place };
    const suggestions =
      this.#remembered(card.id, question) ?? (await this.#ask({ ...question, delayed: !invoked }, token));
    const offered = suggestions.filter(({ text }) => text !== '');
    const [first] = offered;
    if (first && !token.isCancellationRequested) {
      this.#acceptance.shown(card.id, document.languageId, params.confidence ?? 'eager', place, first.text);
    }
    return offered.map((suggestion) => item(suggestion, position, selected));
  }

  /** Waits until the model is loaded, because VS Code does not ask again for keys typed meanwhile. */
  async #loaded(wanted: boolean, token: vscode.CancellationToken): Promise<ModelCard | undefined> {
    if (!wanted) return undefined;
    await orOnceCancelled(this.#warmUp(), token, undefined);
    return this.#engine.current?.completionModel;
  }

  /** The user accepted a suggestion in the active editor. */
  async accepted(): Promise<void> {
    this.#acceptance.accepted();
    await this.computeAhead(vscode.window.activeTextEditor);
  }

  /**
   * After an accepted suggestion, computes the next one at once and beyond the end of the line, so that it is ready when VS
   * Code asks, also after Enter. The next key cancels it like any other request.
   */
  async computeAhead(editor: vscode.TextEditor | undefined): Promise<void> {
    const card = this.#engine.current?.completionModel;
    const settings = completionSettings();
    if (!editor || !card || !this.#isOn(editor.document, settings)) return;
    const { document, selection } = editor;
    const position = selection.active;
    const moment = momentIn(document, position);
    if (!worthAsking(moment, card.fillInTheMiddle)) return;
    const place = placeOf(card.id, document, moment, false);
    const multiline = settings.multiline === 'never' ? 'never' : 'always';
    const params = this.#paramsOf(card.id, document, moment, { ...settings, multiline }, false);
    const question = { document, position, moment, params, delayed: false, place };
    if (this.#remembered(card.id, question) === undefined) await this.#begin(question).answer;
  }

  /** Warms up the completion prompt at the cursor: with the current snippets, then with those of the cursor's new place. */
  async warm(editor: vscode.TextEditor | undefined, token: vscode.CancellationToken): Promise<void> {
    const client = this.#engine.current;
    const settings = completionSettings();
    if (!editor || !client || token.isCancellationRequested || !this.#isOn(editor.document, settings)) return;
    const { document, selection } = editor;
    const model = client.completionModel?.id ?? '';
    const params = this.#paramsOf(model, document, momentIn(document, selection.active), settings, false);
    const read = (snippets: Snippet[]) => client.warm({ kind: 'completion', ...params, snippets }, token);
    await read(await this.#context.snippets(document, selection.active, this.#contextChars));
    if (!token.isCancellationRequested) {
      await this.#context.refresh(document, selection.active, this.#contextChars, read);
    }
  }

  #paramsOf(
    model: string,
    document: vscode.TextDocument,
    moment: Moment,
    settings: CompletionSettings,
    invoked: boolean,
  ): CompleteParams {
    return {
      prefix: moment.prefix,
      suffix: moment.suffix,
      languageId: moment.languageId,
      path: vscode.workspace.asRelativePath(document.uri),
      repository: vscode.workspace.getWorkspaceFolder(document.uri)?.name,
      maxTokens: settings.maxTokens,
      multiline: settings.multiline,
      candidates: invoked ? limits.completion.candidates : 1,
      // An explicit request shows every suggestion.
      confidence: invoked ? 'eager' : settings.confidence,
      strictness: this.#acceptance.strictness(model, document.languageId),
      sampling: { temperature: 0 },
    };
  }

  get #contextChars(): number {
    const { cpuContextChars, contextChars } = limits.completion;
    return readsFast(this.#engine.current?.completionModel) ? contextChars : cpuContextChars;
  }

  #isOn(document: vscode.TextDocument, settings: CompletionSettings): boolean {
    if (this.paused || !settings.enabled || foreignSchemes.has(document.uri.scheme)) return false;
    return languageEnabled(settings.languages, document.languageId);
  }

  /** The result of an explicit request may serve an automatic one, but not the reverse. */
  #remembered(model: string, { document, moment, place }: Pick<Question, 'document' | 'moment' | 'place'>) {
    return this.#cache.get(placeOf(model, document, moment, true)) ?? this.#cache.get(place);
  }

  /** The suggestions; empty if there are none, the request failed, or VS Code cancelled it. */
  async #ask(question: Question, token: vscode.CancellationToken): Promise<readonly Suggestion[]> {
    const { place } = question;
    const earlier = this.#running?.leadsTo(place) ? this.#running : undefined;
    if (earlier) {
      const texts = await earlier.wanted(place, token);
      if (samePlace(earlier.place, place)) return texts.map((text) => ({ text, replaces: 0 }));
      const rest = this.#cache.get(place);
      if (rest !== undefined || token.isCancellationRequested) return rest ?? [];
    }
    const texts = await this.#begin(question).wanted(place, token);
    return texts.map((text) => ({ text, replaces: 0 }));
  }

  #begin(question: Question): Running {
    this.#running?.cancel();
    const running = new Running(question.place, (own) => this.#answer(question, own));
    this.#running = running;
    void running.answer.then(() => {
      if (this.#running === running) this.#running = undefined;
    });
    return running;
  }

  async #answer(question: Question, running: Running): Promise<readonly string[]> {
    const { token } = running;
    try {
      if (question.delayed) await pause(this.#debounce.delayMs(completionSettings().debounceMs), token);
      const client = this.#engine.current;
      if (client === undefined || token.isCancellationRequested) return [];
      running.sent = true;
      return await this.#request(client, question, running);
    } catch (error) {
      if (!isCancelled(error)) this.#log.warn(`Completion: ${sentence(error)}`);
      return [];
    }
  }

  async #request(
    client: EngineClient,
    { document, position, params, place }: Question,
    running: Running,
  ): Promise<readonly string[]> {
    const startedMs = performance.now();
    const snippets = await this.#context.snippets(document, position, this.#contextChars);
    const { text, alternatives, finish } = await client.complete({ ...params, snippets }, running.token, (piece) =>
      running.write(piece),
    );
    if (finish === 'cancelled') return [];
    const tookMs = Math.round(performance.now() - startedMs);
    this.#log.debug(`Completion: ${text.length} characters in ${tookMs} ms, ${alternatives.length} alternatives.`);
    this.#debounce.note(tookMs);
    const texts = [text, ...alternatives];
    this.#cache.put(place, texts);
    return texts;
  }
}

/** The moment at the cursor; in a notebook, the code cells of one language count as one file. */
function momentIn(
  document: vscode.TextDocument,
  position: vscode.Position,
  inserted?: { text: string; startCharacter: number },
): Moment {
  const notebooks = document.uri.scheme === cellScheme ? vscode.workspace.notebookDocuments : [];
  const cells = notebooks
    .map((notebook) => notebook.getCells())
    .find((all) => all.some((cell) => cell.document === document));
  if (cells === undefined) return momentAt(document, position, inserted);
  const code = cells.map((cell) => cell.document).filter(({ languageId }) => languageId === document.languageId);
  const whole = joined(code, document);
  const { line, character } = position;
  return momentAt(whole.document, { line: whole.firstLine + line, character }, inserted);
}

const cellScheme = 'vscode-notebook-cell';

interface Question {
  document: vscode.TextDocument;
  position: vscode.Position;
  moment: Moment;
  place: Place;
  params: CompleteParams;
  /** Waits after a key, because more may follow. Never waits after an explicit request or an acceptance. */
  delayed: boolean;
}

/** A request in progress. Keys that agree with the model's text join it; otherwise a slow CPU would never answer one. */
class Running {
  readonly place: Place;
  /** Never rejects. */
  readonly answer: Promise<readonly string[]>;
  /** Sent to the engine. Before that, another key costs nothing. */
  sent = false;
  readonly #source = new vscode.CancellationTokenSource();
  /** Text of the model so far. */
  #written = '';
  /** Text typed since, according to the last waiting request. */
  #typed = '';
  #waiting = 0;

  constructor(place: Place, answer: (own: Running) => Promise<readonly string[]>) {
    this.place = place;
    this.answer = answer(this).finally(() => this.#source.dispose());
  }

  get token(): vscode.CancellationToken {
    return this.#source.token;
  }

  /** Whether the text typed since agrees with the model's text so far. */
  leadsTo(place: Place): boolean {
    const typed = typedBetween(this.place, place)?.typed;
    return typed !== undefined && !this.token.isCancellationRequested && this.#agreesWith(typed);
  }

  write(piece: string): void {
    this.#written += piece;
    if (!this.#agreesWith(this.#typed)) this.cancel();
  }

  cancel(): void {
    this.#source.cancel();
  }

  /** The answer for one caller, until VS Code cancels it. Without another caller soon after, the request is cancelled. */
  async wanted(place: Place, token: vscode.CancellationToken): Promise<readonly string[]> {
    this.#typed = typedBetween(this.place, place)?.typed ?? '';
    this.#waiting++;
    const texts = await orOnceCancelled(this.answer, token, []);
    this.#waiting--;
    if (token.isCancellationRequested) this.#endUnlessWanted();
    return texts;
  }

  #endUnlessWanted(): void {
    if (this.sent) setTimeout(() => this.#waiting === 0 && this.cancel(), limits.completion.nextKeyMs);
    else if (this.#waiting === 0) this.cancel();
  }

  #agreesWith(typed: string): boolean {
    return this.#written.startsWith(typed) || typed.startsWith(this.#written);
  }
}

const placeOf = (
  model: string,
  document: vscode.TextDocument,
  { prefix, suffix }: Moment,
  invoked: boolean,
): Place => ({
  document: `${model} ${invoked ? 'invoked' : 'automatic'} ${document.uri.toString()}`,
  prefix,
  suffix,
});

const insertion = (selected: vscode.SelectedCompletionInfo): { text: string; startCharacter: number } => ({
  text: selected.text,
  startCharacter: selected.range.start.character,
});

/** If the suggestion widget has an item selected, VS Code shows only text that extends that item over the same range. */
function item(
  { text, replaces }: Suggestion,
  position: vscode.Position,
  selected: vscode.SelectedCompletionInfo | undefined,
): vscode.InlineCompletionItem {
  const accepted = { command: acceptedCommand, title: '' };
  if (selected !== undefined) return new vscode.InlineCompletionItem(selected.text + text, selected.range, accepted);
  const range = new vscode.Range(position, new vscode.Position(position.line, position.character + replaces));
  return new vscode.InlineCompletionItem(text, range, accepted);
}

/** The value, or `otherwise` as soon as VS Code cancels. */
async function orOnceCancelled<T>(value: Promise<T>, token: vscode.CancellationToken, otherwise: T): Promise<T> {
  let subscription: vscode.Disposable | undefined;
  const cancelled = new Promise<T>((resolve) => {
    subscription = token.onCancellationRequested(() => resolve(otherwise));
  });
  const settled = await Promise.race([value, cancelled]);
  subscription?.dispose();
  return settled;
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

/** Warms up the prompt at the cursor while the user is idle, so that the first suggestion is fast. */
export class WarmUp {
  readonly #warm: (token: vscode.CancellationToken) => Promise<void>;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #running: vscode.CancellationTokenSource | undefined;

  constructor(warm: (token: vscode.CancellationToken) => Promise<void>, log: Log) {
    this.#warm = warm;
    this.#log = log;
  }

  /** Cancels the warm-up on a key, and restarts the idle timer. */
  touch(idleMs: number = limits.completion.idleMs): void {
    this.dispose();
    this.#timer = setTimeout(() => void this.#run(), idleMs);
  }

  /** Call when the cursor moved: the next key may come there. */
  moved(): void {
    this.touch(limits.completion.restMs);
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#running?.cancel();
    this.#running = undefined;
  }

  async #run(): Promise<void> {
    const source = new vscode.CancellationTokenSource();
    this.#running = source;
    try {
      await this.#warm(source.token);
    } catch (error) {
      if (!isCancelled(error)) this.#log.debug(`Warm-up failed: ${sentence(error)}`);
    } finally {
      source.dispose();
      if (this.#running === source) this.#running = undefined;
    }
  }
}
