import * as vscode from 'vscode';
import * as z from 'zod';
import { contextBudget, estimatedTokens } from '../../engine/index/question/planner.ts';
import type { ChatMessage, ResponseFormat } from '../../engine/protocol/engineProtocol.ts';
import type { EngineClient } from '../client/client.ts';
import type { EngineHost } from '../client/host.ts';
import { textDocument } from '../context/sources.ts';
import { branchChanges, changesOf, type GitRepository, gitRepository, rootOf } from '../git.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import {
  type Anchor,
  anchorOf,
  type DiffLine,
  locate,
  moved,
  parseDiff,
  partsOf,
  type ReviewPart,
  shownLine,
} from './diff.ts';

/** Result of a review, for its final message. */
interface Count {
  comments: number;
  /** Comments on lines that were not changed or no longer exist. */
  refused: number;
  /** Parts with an unreadable answer. */
  failed: number;
}

interface Commented {
  readonly thread: vscode.CommentThread;
  readonly anchor: Anchor;
  line: number;
}

const openState = 'open';
const resolvedState = 'resolved';
/** Context key: there are comments to clear. */
const reviewedKey = 'hearth.reviewed';

/** Reviews a diff and shows the model's remarks as VS Code comments, until the next review or until they are cleared. */
export class Reviews {
  readonly #engine: EngineHost;
  readonly #log: Log;
  readonly #subscriptions: vscode.Disposable;
  #controller: vscode.CommentController | undefined;
  #comments: readonly Commented[] = [];
  #isRunning = false;

  constructor(engine: EngineHost, log: Log) {
    this.#engine = engine;
    this.#log = log;
    this.#subscriptions = vscode.Disposable.from(
      vscode.workspace.onDidChangeTextDocument((event) => this.#onEdit(event)),
      // The file may have changed on the disk.
      vscode.workspace.onDidOpenTextDocument((document) => this.#placeAgain(document)),
    );
  }

  dispose(): void {
    this.#subscriptions.dispose();
    this.#controller?.dispose();
  }

  /** Reviews the staged changes, or all changes if none are staged. */
  async reviewChanges(view: unknown): Promise<void> {
    const repository = await gitRepository(rootOf(view));
    const diff = repository === undefined ? '' : await changesOf(repository);
    await this.#review(repository, diff, vscode.l10n.t('Reviewing the changes'));
  }

  /** Reviews the commits of the checked-out branch. */
  async reviewBranch(view: unknown): Promise<void> {
    const repository = await gitRepository(rootOf(view));
    const changes = repository === undefined ? undefined : await branchChanges(repository);
    const title = vscode.l10n.t('Reviewing the branch against {0}', changes?.base ?? '');
    await this.#review(repository, changes?.diff ?? '', title);
  }

  resolve(thread: unknown, isResolved: boolean): void {
    const commented = this.#find(thread);
    if (commented === undefined) return;
    const { Resolved, Unresolved } = vscode.CommentThreadState;
    commented.thread.state = isResolved ? Resolved : Unresolved;
    commented.thread.contextValue = isResolved ? resolvedState : openState;
    commented.thread.collapsibleState = vscode.CommentThreadCollapsibleState[isResolved ? 'Collapsed' : 'Expanded'];
  }

  dismiss(thread: unknown): void {
    const commented = this.#find(thread);
    commented?.thread.dispose();
    this.#keep(this.#comments.filter((other) => other !== commented));
  }

  clear(): void {
    for (const { thread } of this.#comments) thread.dispose();
    this.#keep([]);
  }

  #find(thread: unknown): Commented | undefined {
    return this.#comments.find((commented) => commented.thread === thread);
  }

  #keep(comments: readonly Commented[]): void {
    this.#comments = comments;
    void vscode.commands.executeCommand('setContext', reviewedKey, comments.length > 0);
  }

  async #review(repository: GitRepository | undefined, diff: string, title: string): Promise<void> {
    const files = parseDiff(diff);
    if (repository === undefined || files.length === 0) {
      void vscode.window.showInformationMessage(vscode.l10n.t('No changes to review.'));
      return;
    }
    if (this.#isRunning) {
      void vscode.window.showInformationMessage(vscode.l10n.t('A review is running.'));
      return;
    }
    this.#isRunning = true;
    this.clear();
    const location = vscode.ProgressLocation.Notification;
    try {
      const count = await vscode.window.withProgress(
        { location, title, cancellable: true },
        async (progress, token) => {
          const client = await this.#engine.client();
          const card = await client.ready();
          const parts = partsOf(files, contextBudget(card, 0), estimatedTokens);
          return this.#readParts(client, repository, parts, progress, token);
        },
      );
      this.#report(count, files.length);
    } finally {
      this.#isRunning = false;
    }
  }

  /** Comments appear as soon as their part was reviewed. */
  async #readParts(
    client: EngineClient,
    repository: GitRepository,
    parts: readonly ReviewPart[],
    progress: vscode.Progress<{ message?: string; increment?: number }>,
    token: vscode.CancellationToken,
  ): Promise<Count> {
    const count: Count = { comments: 0, refused: 0, failed: 0 };
    for (const [index, part] of parts.entries()) {
      progress.report({ message: `${part.path} (${index + 1}/${parts.length})` });
      const found = await this.#remarks(client, part, token);
      if (token.isCancellationRequested) break;
      if (found === undefined) count.failed += 1;
      count.refused += found?.refused ?? 0;
      for (const remark of found?.remarks ?? []) {
        const isPlaced = await this.#comment(repository.rootUri, part, remark);
        count[isPlaced ? 'comments' : 'refused'] += 1;
      }
      progress.report({ increment: 100 / parts.length });
    }
    return count;
  }

  async #remarks(client: EngineClient, part: ReviewPart, token: vscode.CancellationToken) {
    const params = {
      messages: reviewMessages(part),
      responseFormat: remarksFormat(part),
      maxTokens: limits.review.answerTokens,
      thinking: 'off' as const,
      sampling: { temperature: 0 },
    };
    const { text, finish } = await client.chat(params, { onDelta: () => undefined }, token);
    const found = finish === 'cancelled' ? undefined : remarksOf(text, part);
    if (finish !== 'cancelled' && found === undefined)
      this.#log.warn(`Review of ${part.path}: the answer was ${finish}.`);
    return found;
  }

  /** False if the line is no longer in the file. */
  async #comment(root: vscode.Uri, part: ReviewPart, { line, text }: Remark): Promise<boolean> {
    const document = await textDocument(vscode.Uri.joinPath(root, part.path));
    const anchor = anchorOf(line, part.lines);
    const at = document && anchor && locate(anchor, linesOf(document));
    if (document === undefined || anchor === undefined || at === undefined) return false;
    this.#controller ??= vscode.comments.createCommentController('hearth.review', 'Hearth');
    // As plain text: Markdown from the model could load images.
    const body = new vscode.MarkdownString().appendText(text);
    const comment = { body, mode: vscode.CommentMode.Preview, author: { name: 'Hearth' } };
    const thread = this.#controller.createCommentThread(document.uri, rangeOf(at), [comment]);
    thread.canReply = false;
    thread.contextValue = openState;
    thread.state = vscode.CommentThreadState.Unresolved;
    thread.collapsibleState = vscode.CommentThreadCollapsibleState.Expanded;
    if (line.kind === 'removed') thread.label = vscode.l10n.t('Removed: {0}', line.text.trim());
    this.#keep([...this.#comments, { thread, anchor, line: at }]);
    return true;
  }

  #report({ comments, refused, failed }: Count, files: number): void {
    const show = vscode.l10n.t('Show Comments');
    const sentences = [
      comments === 0
        ? vscode.l10n.t('The model has no comments. Files: {0}.', files)
        : vscode.l10n.t('Comments: {0}. Files: {1}.', comments, files),
      ...(refused > 0 ? [vscode.l10n.t('Left out because their lines are not in the changes: {0}.', refused)] : []),
      ...(failed > 0 ? [vscode.l10n.t('Parts that the model could not review: {0}.', failed)] : []),
    ];
    vscode.window.showInformationMessage(sentences.join(' '), ...(comments > 0 ? [show] : [])).then(
      (chosen) => chosen === show && vscode.commands.executeCommand('workbench.action.focusCommentsPanel'),
      (error: unknown) => this.#log.warn(`Review: ${String(error)}`),
    );
  }

  #onEdit({ document, contentChanges }: vscode.TextDocumentChangeEvent): void {
    for (const commented of this.#of(document)) {
      let line: number | undefined = commented.line;
      for (const change of contentChanges) line = line === undefined ? undefined : moved(line, change);
      this.#place(commented, line ?? locate(commented.anchor, linesOf(document), commented.line), document);
    }
  }

  #placeAgain(document: vscode.TextDocument): void {
    for (const commented of this.#of(document))
      this.#place(commented, locate(commented.anchor, linesOf(document), commented.line), document);
  }

  #of({ uri }: vscode.TextDocument): readonly Commented[] {
    return this.#comments.filter(({ thread }) => thread.uri.toString() === uri.toString());
  }

  /** A comment whose line was removed stays near its place and is marked outdated. */
  #place(commented: Commented, line: number | undefined, document: vscode.TextDocument): void {
    const at = line ?? Math.min(commented.line, document.lineCount - 1);
    if (line === undefined) commented.thread.label = vscode.l10n.t('Outdated: the line is gone');
    if (at === commented.line) return;
    commented.line = at;
    commented.thread.range = rangeOf(at);
  }
}

function rangeOf(line: number): vscode.Range {
  const start = new vscode.Position(line, 0);
  return new vscode.Range(start, start);
}

const linesOf = (document: vscode.TextDocument): string[] => document.getText().split(/\r?\n/);

// The prompt for a part of a diff, and the parsing of its answer.

/** A comment on a changed line. */
export interface Remark {
  readonly line: DiffLine;
  readonly text: string;
}

const answer = z.object({ comments: z.array(z.object({ line: z.number(), comment: z.string() })) });

/** The answer's schema, which the sampler enforces: it allows only labels of changed lines. */
export function remarksFormat({ lines }: ReviewPart): ResponseFormat {
  const changed = lines.flatMap(({ label }) => (label === 0 ? [] : [label]));
  const { comments, commentChars } = limits.review;
  const comment = {
    type: 'object',
    properties: {
      line: { enum: changed },
      comment: { type: 'string', minLength: 3, maxLength: commentChars },
    },
    required: ['line', 'comment'],
    additionalProperties: false,
  };
  return {
    kind: 'json-schema',
    schema: {
      type: 'object',
      properties: { comments: { type: 'array', items: comment, maxItems: comments } },
      required: ['comments'],
      additionalProperties: false,
    },
  };
}

/**
 * The remarks of an answer. Servers that ignore the schema may name other lines, which are refused and counted. Undefined if
 * the answer is invalid, for example because it was cut off.
 */
export function remarksOf(text: string, { lines }: ReviewPart): { remarks: Remark[]; refused: number } | undefined {
  const parsed = answer.safeParse(parsedJson(text));
  if (!parsed.success) return undefined;
  const remarks = new Map<string, Remark>();
  let refused = 0;
  for (const { line: label, comment } of parsed.data.comments) {
    const line = lines.find((known) => label !== 0 && known.label === label);
    const said = comment.trim();
    if (line === undefined) refused += 1;
    else if (said !== '') remarks.set(`${label} ${said}`, { line, text: said });
  }
  return { remarks: [...remarks.values()], refused };
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const system = [
  'You review changes of code. You get a part of a diff. Each line that was added or removed begins with its number.',
  'Report mistakes only: bugs, security holes, missing cases, errors that are swallowed.',
  'Say what is wrong and what to do instead, in one or two sentences, at the line where the mistake is.',
  'Do not describe or praise the change. Where there is no mistake, the list of comments is empty.',
].join(' ');

export function reviewMessages(part: ReviewPart): ChatMessage[] {
  const language = vscode.env.language.startsWith('en') ? '' : ` Write in the language ${vscode.env.language}.`;
  const diff = part.lines.map(shownLine).join('\n');
  return [
    { role: 'system', content: system + language },
    { role: 'user', content: `Changes of ${part.path}:\n\n\`\`\`diff\n${diff}\n\`\`\`\n\nReview these changes.` },
  ];
}
