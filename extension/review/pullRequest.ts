import * as vscode from 'vscode';
import * as z from 'zod';
import type { ChatMessage, ResponseFormat } from '../../engine/protocol/engineProtocol.ts';
import type { EngineHost } from '../client/host.ts';
import { fitting } from '../commit.ts';
import { type BranchChanges, branchChanges, gitRepository, rootOf } from '../git.ts';
import { limits } from '../limits.ts';

const { titleChars, summaryChars, points, pointChars } = limits.pullRequest;
const text = (maxLength: number) => ({ type: 'string', pattern: '^\\S(.*\\S)?$', minLength: 3, maxLength });

/** The form of the answer, which the sampler enforces. */
export const descriptionFormat: ResponseFormat = {
  kind: 'json-schema',
  schema: {
    type: 'object',
    properties: {
      title: text(titleChars),
      summary: text(summaryChars),
      changes: { type: 'array', items: text(pointChars), minItems: 1, maxItems: points },
    },
    required: ['title', 'summary', 'changes'],
    additionalProperties: false,
  },
};

const description = z.object({ title: z.string(), summary: z.string(), changes: z.array(z.string()) });

/** As Markdown, with the title as its heading; undefined if the answer does not have the form. */
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
    const messages = question(changes, commits, diff.text);
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
    vscode.l10n.t("The diff doesn't fit the model's context. The description is about its beginning and all commits."),
  );
}

const system = [
  'You write descriptions of pull requests. You get the messages of the commits and the diff.',
  'Write a title in the imperative, a summary of what changes for whom and why, and a list of the changes.',
  'Say nothing that is not in commits or diff.',
].join(' ');

function question(
  { base }: BranchChanges,
  commits: readonly { readonly message: string }[],
  diff: string,
): ChatMessage[] {
  const log = commits.map(({ message }) => `- ${message.trim().split('\n', 1)[0]}`).join('\n');
  const content = `Commits:\n\n${log}\n\n\`\`\`diff\n${diff}\n\`\`\`\n\nDescribe the pull request into ${base}.`;
  return [
    { role: 'system', content: system },
    { role: 'user', content },
  ];
}
