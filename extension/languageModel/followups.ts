import * as vscode from 'vscode';

/** What one asks next, by what was asked. */
export function followupsOf(command: string | undefined): vscode.ChatFollowup[] {
  const offers: Record<string, vscode.ChatFollowup> = {
    tests: { command: 'tests', prompt: vscode.l10n.t('Write tests for it') },
    doc: { command: 'doc', prompt: vscode.l10n.t('Document it') },
    fix: { command: 'fix', prompt: vscode.l10n.t('Look for mistakes in it') },
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
