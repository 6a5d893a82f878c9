import * as vscode from 'vscode';
import * as z from 'zod';
import { contextBudget, plan, type Source } from '../../engine/index/question/planner.ts';
import type { ChatResult, Tool } from '../../engine/protocol/engineProtocol.ts';
import type { ModelCard } from '../../engine/protocol/models.ts';
import { type Attachment, attachment, promptMessages, type StoredTurn } from '../chat/conversation.ts';
import type { EngineClient, StreamHandlers } from '../client/client.ts';
import { failedOutcome, isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { attachmentOf, countTokens } from '../context/gather.ts';
import { documentSource, focusSource, problemLine, textDocument, textSource } from '../context/sources.ts';
import { focusOf } from '../context/tracker.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { chatSettings } from '../settings.ts';
import { summaryRequest, type Task, taskQuestion } from '../summarise.ts';
import { answerOptions, type Thinking } from '../thinking.ts';
import { InstalledModels, ModelProvider } from './provider.ts';
import { answerWithTools, invokeHostTool, toTools } from './toolLoop.ts';

/** Names in package.json. */
const vendor = 'hearth';
const participantId = 'hearth.participant';

/** VS Code stores this with each answer, so that the next prompt begins with exactly the same text. */
const asked = z.object({ question: z.string(), attachments: z.array(attachment) });
type Asked = z.infer<typeof asked>;

/**
 * @hearth in VS Code's own chat. It uses Hearth's models whatever model is chosen there, because Hearth promises that
 * questions go only to this computer or to the server in Hearth's settings.
 */
export class Participant {
  readonly #engine: EngineHost;
  readonly #thinking: Thinking;
  readonly #log: Log;

  constructor(engine: EngineHost, thinking: Thinking, log: Log) {
    this.#engine = engine;
    this.#thinking = thinking;
    this.#log = log;
  }

  async answer(
    request: vscode.ChatRequest,
    { history }: vscode.ChatContext,
    stream: vscode.ChatResponseStream,
    token: vscode.CancellationToken,
  ): Promise<vscode.ChatResult> {
    try {
      const client = await this.#engine.client();
      if (client.warmModel === undefined) stream.progress(vscode.l10n.t('Loading the model'));
      const card = await (request.model.vendor === vendor ? client.use(request.model.id) : client.ready());
      if (request.command === 'summarise') return await summarise(client, request, stream, token);
      const now = await askedBy(this.#engine, request, card);
      if (request.command !== undefined && now.attachments.length === 0) return nothingToRead();
      for (const { path } of now.attachments) this.#log.debug(`@hearth reads ${path}.`);
      await this.#ask(client, card, [...history.flatMap(turnOf), storedTurn(now, '')], { request, stream, token });
      return { metadata: { ...now, command: request.command } };
    } catch (error) {
      if (isCancelled(error) || token.isCancellationRequested) return {};
      this.#log.error(`@hearth: ${sentence(error)}`);
      return failed(error);
    }
  }

  async #ask(
    client: EngineClient,
    card: ModelCard,
    turns: StoredTurn[],
    { request, stream, token }: Exchange,
  ): Promise<ChatResult> {
    const settings = chatSettings();
    const params = {
      messages: promptMessages(turns, settings.instructions, card),
      tools: offered(request, card, stream),
      ...answerOptions(card, this.#thinking, settings),
    };
    const asker = request.toolInvocationToken;
    return answerWithTools({
      ...{ client, card, params, handlers: handlersOf(stream), token, isCallRequired: true },
      bounds: { rounds: limits.languageModel.toolRounds, tokens: Number.POSITIVE_INFINITY },
      run: (call, input) => invokeHostTool(call, input, asker, { client, card, token }),
    });
  }
}

interface Exchange {
  request: vscode.ChatRequest;
  stream: vscode.ChatResponseStream;
  token: vscode.CancellationToken;
}

/** A participant cannot show thoughts through VS Code's stable API, so only the fact that the model thinks is shown. */
function handlersOf(stream: vscode.ChatResponseStream): StreamHandlers {
  let thinks = false;
  return {
    onDelta({ kind, text }) {
      if (kind === 'text') stream.markdown(text);
      else if (kind === 'thinking' && !thinks) stream.progress(vscode.l10n.t('Thinking…'));
      thinks = kind === 'thinking';
    },
    onProgress: ({ message }) => stream.progress(message),
  };
}

/** Tools that the user referenced with #. */
function offered({ toolReferences }: vscode.ChatRequest, card: ModelCard, stream: vscode.ChatResponseStream): Tool[] {
  const named = vscode.lm.tools.filter(({ name }) => toolReferences.some((reference) => reference.name === name));
  if (named.length === 0 || card.toolCalling) return toTools(named);
  stream.progress(vscode.l10n.t('{0} cannot call tools and answers without them.', card.name));
  return [];
}

async function askedBy(engine: EngineHost, request: vscode.ChatRequest, card: ModelCard): Promise<Asked> {
  const wantsActive = request.command !== undefined || chatSettings().includeActiveFile;
  const attachments = await attachmentsOf(engine, card, request.references, wantsActive);
  const task = taskOf[request.command ?? ''];
  const words = task === undefined ? '' : taskQuestion(task, task === 'fix' ? reported(attachments) : []);
  return { question: [words, request.prompt].filter((part) => part !== '').join('\n\n'), attachments };
}

/** Question of each command except /summarise. */
const taskOf: Readonly<Record<string, Task>> = { explain: 'explain', fix: 'fix', tests: 'tests', doc: 'document' };

/** Diagnostics of the attached files. */
function reported(attachments: readonly Attachment[]): string[] {
  const paths = new Set(attachments.map(({ path }) => path));
  return vscode.languages.getDiagnostics().flatMap(([uri, found]) => {
    const path = vscode.workspace.asRelativePath(uri);
    return paths.has(path) ? found.map((problem) => problemLine(path, problem)) : [];
  });
}

async function summarise(
  client: EngineClient,
  { references }: vscode.ChatRequest,
  stream: vscode.ChatResponseStream,
  token: vscode.CancellationToken,
): Promise<vscode.ChatResult> {
  const values = references.map(({ value }) => (value instanceof vscode.Location ? value.uri : value));
  const request = await summaryRequest(values.find((value) => value instanceof vscode.Uri));
  if (request === undefined) return nothingToRead();
  const { path, text, languageId, symbols } = request;
  const question = `Summarise ${path}.`;
  await client.summarise({ path, text, languageId, symbols }, handlersOf(stream), token);
  const now: Asked = { question, attachments: [] };
  return { metadata: { ...now, command: 'summarise' } };
}

/** An earlier question to @hearth with its answer. If another version of Hearth stored it, uses the host's text. */
function turnOf(
  turn: vscode.ChatRequestTurn | vscode.ChatResponseTurn,
  index: number,
  history: readonly (vscode.ChatRequestTurn | vscode.ChatResponseTurn)[],
): StoredTurn[] {
  if (!(turn instanceof vscode.ChatResponseTurn)) return [];
  const answer = turn.response
    .map((part) => (part instanceof vscode.ChatResponseMarkdownPart ? part.value.value : ''))
    .join('');
  const kept = asked.safeParse(turn.result.metadata);
  if (kept.success) return [storedTurn(kept.data, answer)];
  const before = history[index - 1];
  if (!(before instanceof vscode.ChatRequestTurn)) return [];
  return [storedTurn({ question: before.prompt, attachments: [] }, answer)];
}

function storedTurn({ question, attachments }: Asked, answer: string): StoredTurn {
  const empty = { chips: [], omitted: [], citations: [], missing: [], steps: [] };
  const view = { id: '', kind: 'chat' as const, question, thinking: '', answer, model: '', ...empty };
  return { view: { ...view, outcome: { kind: 'interrupted' } }, attachments };
}

const nothingToRead = (): vscode.ChatResult => ({
  errorDetails: { message: vscode.l10n.t('Open the file or attach it to the question.') },
});

function failed(error: unknown): vscode.ChatResult {
  const outcome = failedOutcome(error, false);
  return { errorDetails: { message: outcome.kind === 'failed' ? outcome.message : sentence(error) } };
}

/**
 * The attachments that the user added with # or the paper clip, as many as fit the context; if there are none and `active` is
 * set, the active editor.
 */
async function attachmentsOf(
  engine: EngineHost,
  card: ModelCard,
  references: readonly vscode.ChatPromptReference[],
  active: boolean,
): Promise<Attachment[]> {
  // VS Code lists the last one first.
  const referenced = (await Promise.all([...references].reverse().map(sourcesOf))).flat();
  const sources = referenced.length === 0 && active ? activeSources() : referenced;
  const counts = await countTokens(
    engine,
    sources.map(({ lines }) => lines.join('\n')),
  );
  const candidates = sources.map((source, index) => ({ ...source, tokens: counts[index] ?? 0 }));
  return plan(candidates, contextBudget(card, 0)).chosen.map(attachmentOf);
}

function activeSources(): Source[] {
  const focus = focusOf(vscode.window.activeTextEditor);
  return focus === undefined || focus.lines.every((line) => line.trim() === '') ? [] : [focusSource(focus)];
}

/** Empty for anything that is not text: folders, images, deleted files. */
async function sourcesOf({ id, value }: vscode.ChatPromptReference): Promise<Source[]> {
  if (typeof value === 'string') return [textSource(id, id, value)];
  const uri = value instanceof vscode.Location ? value.uri : value;
  if (!(uri instanceof vscode.Uri)) return [];
  const document = await textDocument(uri);
  if (document === undefined) return [];
  const range = value instanceof vscode.Location ? value.range : undefined;
  return [documentSource(document, { start: range?.start.line ?? 0, end: range?.end.line ?? document.lineCount - 1 })];
}

interface Needs {
  context: vscode.ExtensionContext;
  engine: EngineHost;
  thinking: Thinking;
  log: Log;
}

/** Hearth's models and @hearth, in VS Code's own chat. */
export function registerLanguageModels({ context, engine, thinking, log }: Needs): vscode.Disposable {
  const installed = new InstalledModels(context.globalState, engine, log);
  const provider = new ModelProvider(engine, installed, thinking);
  let opened: Promise<Participant> | undefined;
  const participant = vscode.chat.createChatParticipant(participantId, async (request, history, stream, token) => {
    opened ??= import('./participant.ts').then(({ Participant }) => new Participant(engine, thinking, log));
    return (await opened).answer(request, history, stream, token);
  });
  participant.iconPath = vscode.Uri.joinPath(context.extensionUri, 'media', 'icon.png');
  participant.followupProvider = { provideFollowups: ({ metadata }) => followupsOf(metadata?.['command']) };
  return vscode.Disposable.from(installed, participant, vscode.lm.registerLanguageModelChatProvider(vendor, provider));
}

/**
 * Without a GitHub sign-in VS Code's own chat works only if a model provider was added to its list. This does in one step
 * what *Manage Language Models → Add Models* does. The user must enable VS Code's built-in chat extension, which is
 * disabled until then.
 */
export async function useInChat(log: Log): Promise<void> {
  const known = await vscode.commands.getCommands(true);
  if (known.includes(addProvider)) {
    const added = vscode.commands.executeCommand(addProvider, { name: 'Hearth', vendor });
    // VS Code refuses a provider that was added before, which is fine.
    await added.then(undefined, (error: unknown) => log.info(`VS Code's list of providers: ${sentence(error)}`));
  }
  await vscode.commands.executeCommand('workbench.action.chat.open');
}

const addProvider = 'lm.addLanguageModelsProviderGroup';

/** Follow-up questions for each command. */
function followupsOf(command: string | undefined): vscode.ChatFollowup[] {
  const offers: Record<string, vscode.ChatFollowup> = {
    tests: { command: 'tests', prompt: vscode.l10n.t('Write tests for it') },
    doc: { command: 'doc', prompt: vscode.l10n.t('Document it') },
    fix: { command: 'fix', prompt: vscode.l10n.t('Find mistakes in it') },
    explain: { command: 'explain', prompt: vscode.l10n.t('Explain it') },
  };
  const next: Record<string, string[]> = {
    explain: ['fix', 'tests', 'doc'],
    fix: ['tests'],
    tests: ['doc'],
    doc: ['tests'],
    summarise: ['explain'],
  };
  return (next[command ?? ''] ?? []).flatMap((name) => offers[name] ?? []);
}
