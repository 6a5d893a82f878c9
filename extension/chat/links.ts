import * as vscode from 'vscode';

/** The link as it may be opened, or undefined: only the web, and no credentials in front of the host. */
export function webLink(href: string): URL | undefined {
  if (!URL.canParse(href)) return undefined;
  const url = new URL(href);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return undefined;
  return url.username === '' && url.password === '' ? url : undefined;
}

/** A model wrote the link, and an address can carry away what the model read: the user sees all of it first. */
export async function openLink(href: string): Promise<void> {
  const url = webLink(href);
  if (url === undefined) return;
  const open = vscode.l10n.t('Open');
  const copy = vscode.l10n.t('Copy');
  const answer = await vscode.window.showInformationMessage(
    vscode.l10n.t('Open {0} in the browser?', url.host),
    { modal: true, detail: vscode.l10n.t('The model wrote this address:\n\n{0}', url.href) },
    open,
    copy,
  );
  if (answer === open) await vscode.env.openExternal(vscode.Uri.parse(url.href, true));
  if (answer === copy) await vscode.env.clipboard.writeText(url.href);
}
