import * as vscode from 'vscode';
import { sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import type { Log } from '../log.ts';
import type { Thinking } from '../thinking.ts';
import { type Participant, participantId, vendor } from './participant.ts';
import { InstalledModels, ModelProvider } from './provider.ts';

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
 * Without a GitHub sign-in VS Code's own chat answers only when a model provider was added to its list by hand; this is
 * what *Manage Language Models → Add Models* does, in one step. Its built-in chat extension, which VS Code leaves disabled
 * until then, is for the user to enable.
 */
export async function useInChat(log: Log): Promise<void> {
  const known = await vscode.commands.getCommands(true);
  if (known.includes(addProvider)) {
    const added = vscode.commands.executeCommand(addProvider, { name: 'Hearth', vendor });
    // It is refused when it was added before, which is as good.
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
