/** Commit messages and descriptions of pull requests. */
import * as vscode from 'vscode';
import * as z from 'zod';
import { contextBudget, plan } from '../engine/index/question/planner.ts';
import type { ChatMessage, ChatResult, ResponseFormat } from '../engine/protocol/engineProtocol.ts';
import { lexMarkdown } from './answerMarkup.ts';
import type { StreamHandlers } from './client/client.ts';
import type { EngineHost } from './client/host.ts';
import { countTokens } from './context/gather.ts';
import { type BranchChanges, branchChanges, changesOf, gitRepository, rootOf } from './git.ts';
import { limits } from './limits.ts';

const maxTokens = 200;

/** Writes a message for the staged changes, or for all changes if none are staged, into source control's box. */
export async function writeCommitMessage(engine: EngineHost, view: unknown): Promise<void> {
  const repository = await gitRepository(rootOf(view));
  const diff = repository === undefined ? '' : await changesOf(repository);
  if (repository === undefined || diff.trim() === '') {
    void vscode.window.showInformationMessage(vscode.l10n.t('No changes to describe.'));
    return;
  }
  const location = vscode.ProgressLocation.Notification;
  const title = vscode.l10n.t('Writing a commit message');
  await vscode.window.withProgress({ location, title, cancellable: true }, async (_progress, token) => {
    const client = await engine.client();
    await client.ready();
    const messages = [{ role: 'user' as const, content: commitQuestion((await fitting(engine, diff)).text) }];
    const params = { messages, maxTokens, responseFormat: subjectFormat, thinking: 'off' as const };
    await writeInto(repository.inputBox, (handlers) => client.chat(params, handlers, token));
  });
}

/** Streams the message into the box. Restores the user's draft if it is cancelled, fails or is empty. */
async function writeInto(box: MessageBox, chat: (handlers: StreamHandlers) => Promise<ChatResult>): Promise<void> {
  const drafted = new DraftedMessage(box);
  let text = '';
  try {
    const answer = await chat({
      onDelta: (delta) => {
        if (delta.kind !== 'text') return;
        text += delta.text;
        drafted.write(subjectOf(text));
      },
    });
    const message = answer.finish === 'cancelled' ? '' : subjectOf(answer.text);
    if (message === '') drafted.restore();
    else drafted.write(message);
  } catch (error) {
    drafted.restore();
    throw error;
  }
}

/** The beginning of the diff, as much as fits. */
async function fitting(engine: EngineHost, diff: string): Promise<{ text: string; isWhole: boolean }> {
  const [tokens = 0] = await countTokens(engine, [diff]);
  const lines = diff.split('\n');
  const shape = { firstLine: 0, fileLines: 0, centre: 0, divisible: true, languageId: 'diff' } as const;
  const candidate = { id: 'diff', tier: 'asked', label: '', path: '', lines, tokens, ...shape } as const;
  const [chosen] = plan([candidate], contextBudget(engine.current?.warmModel, 0)).chosen;
  return { text: chosen?.text ?? '', isWhole: chosen?.start === 0 && chosen.end === lines.length - 1 };
}

const commitQuestion = (diff: string): string =>
  `${diff}\n\nWrite the message of the commit with these changes: one line of at most 72 characters in the imperative, and nothing else.`;

/** Introductions that models put before the message: `Here is the commit message:`, `# Commit message`, `**Message:**`. */
const preamble =
  /^(?:#+\s*commit message.*|(?:#+\s*|\**)(?:(?:here|sure|okay|this|commit|message)\b[^\n`]*)?\bmessage\b[^\n`]*:\**)$/i;
const label = /^\**(?:commit )?message:\**\s+/i;
/** Marks that models put around a message. */
const pairs = [
  ['```', '```'],
  ['**', '**'],
  ['*', '*'],
  ['`', '`'],
  ['"', '"'],
  ["'", "'"],
  ['“', '”'],
] as const;

const subjectChars = 72;

/** The answer's schema, which the sampler enforces: one line of at most 72 characters, as git advises. */
export const subjectFormat: ResponseFormat = {
  kind: 'json-schema',
  schema: {
    type: 'object',
    properties: { subject: { type: 'string', pattern: '^\\S(.*\\S)?$', minLength: 3, maxLength: subjectChars } },
    required: ['subject'],
    additionalProperties: false,
  },
};

/** The subject as far as it is written: the first line, since some servers ignore the schema. */
export function subjectOf(answer: string): string {
  const [, written] = /^\s*\{\s*"subject"\s*:\s*"((?:[^"\\]|\\.)*)/.exec(answer) ?? [];
  if (written === undefined) return answer.trimStart().startsWith('{') ? '' : (messageOf(answer).split('\n')[0] ?? '');
  const whole = written.replace(/\\u[\da-f]{0,3}$/i, '');
  return String(JSON.parse(`"${whole}"`)).trim();
}

/** The message without the marks that models put around it. Marks inside it stay. */
export function messageOf(answer: string): string {
  const blocks = lexMarkdown(answer.trim()).filter(({ type }) => type !== 'space');
  const start = blocks.findIndex(({ raw }) => !preamble.test(raw.trim()));
  const first = start < 0 ? undefined : blocks[start];
  if (first === undefined) return '';
  if (first.type === 'code' && /^\s*(?:`{3}|~{3})/.test(first.raw)) return String(first['text']).trim();
  const lines = blocks.slice(start).map(({ raw }) => raw.trimEnd());
  const [subject = '', ...body] = lines.join('\n\n').split('\n');
  const rest = preamble.test(subject.trim()) ? body : [subject, ...body];
  return unwrapped(rest.join('\n').replace(label, '').trim());
}

/** Removes one pair of marks if it encloses the whole message; `"a" and "b"` has two pairs. */
function unwrapped(message: string): string {
  for (const [open, close] of pairs) {
    if (message.length <= open.length + close.length) continue;
    if (!message.startsWith(open) || !message.endsWith(close)) continue;
    const inner = message.slice(open.length, -close.length);
    const next = inner.search(new RegExp(`[${open[0]}${close[0]}]`));
    // A mark after a blank opens another pair; after a word it closes the first one.
    if (next < 0 || (next > 0 && /[\s(]/.test(inner.charAt(next - 1)))) return inner.trim();
    return message;
  }
  return message;
}

/** The message's target: source control's box, which may hold the user's draft. */
export interface MessageBox {
  value: string;
}

/**
 * Streams a message into the box. The draft stays until there is text and is restored if there is no message. Text that
 * the user types meanwhile is never overwritten.
 */
export class DraftedMessage {
  readonly #box: MessageBox;
  readonly #draft: string;
  #written: string;

  constructor(box: MessageBox) {
    this.#box = box;
    this.#draft = box.value;
    this.#written = box.value;
  }

  write(message: string): void {
    if (message === '' || this.#box.value !== this.#written) return;
    this.#box.value = message;
    // Read back, because the box may normalise it.
    this.#written = this.#box.value;
  }

  restore(): void {
    if (this.#box.value === this.#written) this.#box.value = this.#draft;
  }
}

// The description of a pull request.

const { titleChars, summaryChars, points, pointChars } = limits.pullRequest;
const line = (maxLength: number) => ({ type: 'string', pattern: '^\\S(.*\\S)?$', minLength: 3, maxLength });

/** The answer's schema, which the sampler enforces. */
export const descriptionFormat: ResponseFormat = {
  kind: 'json-schema',
  schema: {
    type: 'object',
    properties: {
      title: line(titleChars),
      summary: line(summaryChars),
      changes: { type: 'array', items: line(pointChars), minItems: 1, maxItems: points },
    },
    required: ['title', 'summary', 'changes'],
    additionalProperties: false,
  },
};

const description = z.object({ title: z.string(), summary: z.string(), changes: z.array(z.string()) });

/** As Markdown, with the title as its heading; undefined if the answer does not fit the schema. */
export function descriptionOf(answer: string): string | undefined {
  try {
    const { title, summary, changes } = description.parse(JSON.parse(answer));
    const list = changes.map((change) => `- ${change.trim()}`).join('\n');
    return `# ${title.trim()}\n\n${summary.trim()}\n\n${list}\n`;
  } catch {
    return undefined;
  }
}

/** Writes what the branch changes into a new, unsaved document. */
export async function describePullRequest(engine: EngineHost, view: unknown): Promise<void> {
  const repository = await gitRepository(rootOf(view));
  const changes = repository === undefined ? undefined : await branchChanges(repository);
  if (repository === undefined || changes === undefined || changes.diff.trim() === '') {
    void vscode.window.showInformationMessage(vscode.l10n.t('The branch has no commits to describe.'));
    return;
  }
  const commits = await repository.log({ range: `${changes.from}..HEAD`, maxEntries: limits.pullRequest.commits });
  const location = vscode.ProgressLocation.Notification;
  const title = vscode.l10n.t('Describing the branch against {0}', changes.base);
  const written = await vscode.window.withProgress({ location, title, cancellable: true }, async (_progress, token) => {
    const client = await engine.client();
    await client.ready();
    const diff = await fitting(engine, changes.diff);
    const messages = pullRequestMessages(changes, commits, diff.text);
    const params = { messages, responseFormat: descriptionFormat, thinking: 'off' as const };
    const { text: answer, finish } = await client.chat(params, { onDelta: () => undefined }, token);
    return finish === 'cancelled' ? undefined : { content: descriptionOf(answer), isWhole: diff.isWhole };
  });
  if (written === undefined) return;
  const { content, isWhole } = written;
  if (content === undefined) throw new Error(vscode.l10n.t('The model wrote no description.'));
  await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ language: 'markdown', content }));
  if (isWhole) return;
  void vscode.window.showWarningMessage(
    vscode.l10n.t("The diff doesn't fit the model's context. The description covers its beginning and all commits."),
  );
}

const pullRequestSystem = [
  'You write descriptions of pull requests. You get the messages of the commits and the diff.',
  'Write a title in the imperative, a summary of what changes for whom and why, and a list of the changes.',
  'Say nothing that is not in commits or diff.',
].join(' ');

function pullRequestMessages(
  { base }: BranchChanges,
  commits: readonly { readonly message: string }[],
  diff: string,
): ChatMessage[] {
  const log = commits.map(({ message }) => `- ${message.trim().split('\n', 1)[0]}`).join('\n');
  const content = `Commits:\n\n${log}\n\n\`\`\`diff\n${diff}\n\`\`\`\n\nDescribe the pull request into ${base}.`;
  return [
    { role: 'system', content: pullRequestSystem },
    { role: 'user', content },
  ];
}
