/** What an answer would do to the workspace's files. Nothing is written here. */
import * as vscode from 'vscode';
import type { Attachment } from '../chat/conversation.ts';
import type { Repository } from '../context/gather.ts';
import { documentSymbols, uriOf } from '../context/workspace.ts';
import { type CodeBlock, codeBlocks, fileOperations } from './codeBlock.ts';
import { hunks, moved } from './hunks.ts';
import { isPatch, type LineRange, patched, place } from './placement.ts';
import { isChangeable, mayCreate, newFileUri, targetOf } from './target.ts';

export interface Draft {
  readonly kind: 'change' | 'create' | 'delete' | 'rename';
  readonly uri: vscode.Uri;
  /** The new place of a renamed file. */
  readonly to?: vscode.Uri;
  /** The new text; absent if the content stays or the file is deleted. */
  readonly text?: string;
}

type Outlines = Pick<Repository, 'outline'>;

/** Of an answer that changes several files, or renames or deletes one. Empty: its code blocks are offered one by one. */
export async function draftsOf(
  answer: string,
  attachments: readonly Attachment[],
  repository: Outlines,
): Promise<Draft[]> {
  const drafts = new Map<string, Draft>();
  for (const draft of await operations(answer)) drafts.set(draft.uri.toString(), draft);
  const targets = await blockTargets(answer, attachments, repository);
  const names = new Set([...drafts.keys(), ...targets.map(({ uri }) => uri.toString())]);
  if (drafts.size === 0 && names.size < 2) return [];
  for (const { uri, block } of targets) {
    const renamed = [...drafts.values()].find(({ to }) => to?.toString() === uri.toString());
    const known = renamed ?? drafts.get(uri.toString());
    const next = await withBlock(known, uri, block, attachments, repository);
    if (next !== undefined) drafts.set(next.uri.toString(), next);
  }
  const all = [...drafts.values()];
  return all.length < 2 && all.every(({ kind }) => kind === 'change' || kind === 'create') ? [] : all;
}

async function operations(answer: string): Promise<Draft[]> {
  const drafts: Draft[] = [];
  for (const { path, to } of fileOperations(answer)) {
    const uri = await uriOf(path);
    if (uri === undefined || !(await isChangeable(uri))) continue;
    const created = to === undefined ? undefined : await createdUri(to);
    if (to === undefined) drafts.push({ kind: 'delete', uri });
    else if (created !== undefined) drafts.push({ kind: 'rename', uri, to: created });
  }
  return drafts;
}

/** Where a new file of that path would be; undefined where it must not be, or is already. */
export async function createdUri(path: string): Promise<vscode.Uri | undefined> {
  const uri = mayCreate(path) ? await newFileUri(path.replace(/^\.\//, '')) : undefined;
  const isFree = uri !== undefined && (await isChangeable(uri)) && !(await exists(uri));
  return isFree ? uri : undefined;
}

export const exists = (uri: vscode.Uri): Promise<boolean> =>
  Promise.resolve(vscode.workspace.fs.stat(uri)).then(
    () => true,
    () => false,
  );

/** The blocks that name the one file that they are for. */
async function blockTargets(
  answer: string,
  attachments: readonly Attachment[],
  repository: Outlines,
): Promise<{ uri: vscode.Uri; block: CodeBlock }[]> {
  const found: { uri: vscode.Uri; block: CodeBlock }[] = [];
  const naming = codeBlocks(answer).filter(({ path, mentioned }) => path !== undefined || mentioned.length > 0);
  for (const block of naming) {
    const target = await targetOf(block, attachments, repository);
    const uri =
      target.kind === 'file'
        ? await uriOf(target.path)
        : target.kind === 'new'
          ? await createdUri(target.path)
          : undefined;
    if (uri !== undefined && (await isChangeable(uri))) found.push({ uri, block });
  }
  return found;
}

/** The draft with the block placed in it; undefined where that changes nothing. */
async function withBlock(
  known: Draft | undefined,
  uri: vscode.Uri,
  block: CodeBlock,
  attachments: readonly Attachment[],
  repository: Outlines,
): Promise<Draft | undefined> {
  if (known?.kind === 'delete') return undefined;
  const source = known?.uri ?? uri;
  if (known?.kind === 'create' || !(await exists(source))) {
    const text = known?.text === undefined ? newText(block) : place(known.text, block.code, nowhere);
    return text === undefined ? undefined : { kind: 'create', uri, text };
  }
  const document = await vscode.workspace.openTextDocument(source);
  const before = known?.text ?? document.getText();
  const text = await placed(document, before, block, attachments, repository);
  if (text === undefined || text === before) return undefined;
  return known === undefined ? { kind: 'change', uri, text } : { ...known, text };
}

const nowhere = { selection: undefined, symbols: [], cursorLine: Number.MAX_SAFE_INTEGER };

/** Of a file that does not exist; undefined: a change that does not fit an empty one. */
export function newText(block: CodeBlock): string | undefined {
  const code = isPatch(block.code, block.language) ? patched('', block.code) : block.code;
  return code === undefined ? undefined : `${code.replace(/\n+$/, '')}\n`;
}

/**
 * The text with the block where it belongs. `text`: of the document, or what earlier blocks made of it. Undefined: the
 * block is a diff that does not fit.
 */
export async function placed(
  document: vscode.TextDocument,
  text: string,
  block: CodeBlock,
  attachments: readonly Attachment[],
  repository: Outlines,
): Promise<string | undefined> {
  if (isPatch(block.code, block.language)) return patched(text, block.code);
  const selected = attachments.find(({ id, path: at }) => id.startsWith('selection:') && isOf(at, document));
  const selection = selected && stillThere(selected, document);
  const symbols = await documentSymbols(document.uri, repository);
  const earlier = hunks(document.getText(), text);
  return place(text, block.code, {
    selection: selection && moved(selection, earlier),
    symbols: symbols.map((symbol) => moved(symbol, earlier)),
    cursorLine: moved({ start: cursorLine(document), end: cursorLine(document) }, earlier).start,
  });
}

const isOf = (path: string, document: vscode.TextDocument): boolean =>
  vscode.workspace.asRelativePath(document.uri) === path;

/** The selection's lines, unless they have changed since. */
function stillThere({ firstLine, text }: Attachment, document: vscode.TextDocument): LineRange | undefined {
  const lines = text.split('\n');
  const range = { start: firstLine - 1, end: firstLine + lines.length - 2 };
  const now = document
    .getText()
    .split(/\r?\n/)
    .slice(range.start, range.end + 1);
  return now.join('\n') === text ? range : undefined;
}

function cursorLine(document: vscode.TextDocument): number {
  const editor = vscode.window.visibleTextEditors.find((shown) => shown.document === document);
  return editor === undefined ? document.lineCount : editor.selection.active.line + 1;
}
