/**
 * Suggests names for the symbol at the cursor and renames it. VS Code lets no published extension add names to the box
 * of F2 (`NewSymbolNamesProvider` is a proposed API), so this is a command with a list of its own.
 */
import * as vscode from 'vscode';
import * as z from 'zod';
import type { ChatMessage, ResponseFormat } from '../engine/protocol/engineProtocol.ts';
import type { EngineHost } from './client/host.ts';
import { limits } from './limits.ts';

/** The answer's schema, which the sampler enforces: identifiers. */
export const namesFormat: ResponseFormat = {
  kind: 'json-schema',
  schema: {
    type: 'object',
    properties: {
      names: {
        type: 'array',
        items: { type: 'string', pattern: '^[A-Za-z_$][A-Za-z0-9_$]*$', maxLength: limits.rename.nameChars },
        minItems: 1,
        maxItems: limits.rename.names,
      },
    },
    required: ['names'],
    additionalProperties: false,
  },
};

const answered = z.object({ names: z.array(z.string()) });

/** The valid identifiers of an answer, without the current name. */
export function namesOf(answer: string, current: string): string[] {
  try {
    const { names } = answered.parse(JSON.parse(answer));
    return [...new Set(names)].filter((name) => name !== current && /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(name));
  } catch {
    return [];
  }
}

export async function suggestName(engine: EngineHost): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  const symbol = editor && (await symbolAt(editor));
  if (editor === undefined || symbol === undefined) {
    void vscode.window.showInformationMessage(vscode.l10n.t('Nothing can be renamed here. Put the cursor on a name.'));
    return;
  }
  const { document } = editor;
  const { version } = document;
  const names = await namesFor(engine, document, symbol);
  if (names === undefined) return;
  const own = { label: vscode.l10n.t('Another name…') };
  const items: vscode.QuickPickItem[] = [...names.map((label) => ({ label })), own];
  const title = vscode.l10n.t('Rename {0}', symbol.name);
  const chosen = await vscode.window.showQuickPick(items, { title });
  if (chosen === undefined) return;
  if (document.version !== version) throw new Error(vscode.l10n.t('The file has changed. Nothing was renamed.'));
  const { start } = symbol.range;
  if (chosen === own) {
    await vscode.commands.executeCommand('editor.action.rename', [document.uri, start]);
    return;
  }
  const edit = await vscode.commands.executeCommand<vscode.WorkspaceEdit | undefined>(
    'vscode.executeDocumentRenameProvider',
    document.uri,
    start,
    chosen.label,
  );
  const isDone = edit !== undefined && (await vscode.workspace.applyEdit(edit, { isRefactoring: true }));
  if (!isDone) throw new Error(vscode.l10n.t('{0} could not be renamed.', symbol.name));
}

interface Named {
  readonly name: string;
  readonly range: vscode.Range;
}

/** Undefined if no language extension can rename here. */
async function symbolAt({ document, selection }: vscode.TextEditor): Promise<Named | undefined> {
  const found = await vscode.commands
    .executeCommand<{ range: vscode.Range; placeholder: string } | undefined>(
      'vscode.prepareRename',
      document.uri,
      selection.start,
    )
    // The provider rejects if nothing can be renamed.
    .then(
      (place) => place,
      () => undefined,
    );
  return found && { name: found.placeholder, range: found.range };
}

/** Undefined if the user cancelled. */
async function namesFor(
  engine: EngineHost,
  document: vscode.TextDocument,
  symbol: Named,
): Promise<string[] | undefined> {
  const location = vscode.ProgressLocation.Notification;
  const title = vscode.l10n.t('Looking for names for {0}', symbol.name);
  return vscode.window.withProgress({ location, title, cancellable: true }, async (_progress, token) => {
    const client = await engine.client();
    await client.ready();
    const messages = messagesFor(document, symbol);
    const params = { messages, responseFormat: namesFormat, thinking: 'off' as const, sampling: { temperature: 0 } };
    const { text, finish } = await client.chat(params, { onDelta: () => undefined }, token);
    return finish === 'cancelled' ? undefined : namesOf(text, symbol.name);
  });
}

function messagesFor(document: vscode.TextDocument, { name, range }: Named): ChatMessage[] {
  const { around, names } = limits.rename;
  const first = Math.max(0, range.start.line - around);
  const lines = document
    .getText()
    .split(/\r?\n/)
    .slice(first, range.start.line + around + 1);
  const code = `\`\`\`${document.languageId}\n${lines.join('\n')}\n\`\`\``;
  const line = document.lineAt(range.start.line).text.trim();
  const content = `${code}\n\nThe name \`${name}\` in the line \`${line}\` is to say what it stands for. Suggest up to ${names} better names, in the style of the other names in this code, the best first.`;
  return [{ role: 'user', content }];
}
