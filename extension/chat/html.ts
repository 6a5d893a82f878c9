/** The HTML of the chat view, without VS Code, so that tests can serve it. */
import { randomBytes } from 'node:crypto';
import type { Texts } from '../messages.ts';

interface Page {
  /** URIs of the bundled script and style. */
  scriptUri: string;
  styleUri: string;
  /** The script that draws diagrams, loaded with the first one. */
  diagramsUri: string;
  /** The webview's own origin for local resources. */
  cspSource: string;
  language: string;
  texts: Texts;
}

/**
 * HTML of the chat view. Its CSP allows only its own scripts, styles and fonts, and pictures that its scripts draw: nothing
 * from elsewhere and no connections. The frame in which diagrams are drawn has no address, and inherits the policy.
 */
export function chatPage({ scriptUri, styleUri, diagramsUri, cspSource, language, texts }: Page): string {
  const nonce = randomBytes(24).toString('base64url');
  const policy = [
    "default-src 'none'",
    `style-src ${cspSource} 'nonce-${nonce}'`,
    'img-src blob:',
    `font-src ${cspSource}`,
    `script-src 'nonce-${nonce}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  return `<!DOCTYPE html>
<html lang="${escapeAttribute(language)}">
<head>
  <meta charset="utf-8">
  <meta http-equiv="Content-Security-Policy" content="${escapeAttribute(policy)}">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Hearth</title>
  <link rel="stylesheet" href="${escapeAttribute(styleUri)}">
</head>
<body data-diagrams="${escapeAttribute(diagramsUri)}" data-texts="${escapeAttribute(JSON.stringify(texts))}">
  <script nonce="${nonce}" src="${escapeAttribute(scriptUri)}"></script>
</body>
</html>`;
}

function escapeAttribute(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
