/** The file changes that an answer proposes. Nothing is written here. */

import type { Token, Tokens } from 'marked';
import * as vscode from 'vscode';
import { lexMarkdown } from '../answerMarkup.ts';
import type { Attachment } from '../chat/conversation.ts';
import type { Repository } from '../context/gather.ts';
import { documentSymbols, uriOf } from '../context/workspace.ts';
import { hunks, moved } from './hunks.ts';
import { isPatch, type LineRange, patched, place } from './placement.ts';
import { isChangeable, mayCreate, newFileUri, targetOf } from './target.ts';

export interface Draft {
  readonly kind: 'change' | 'create' | 'delete' | 'rename';
  readonly uri: vscode.Uri;
  /** The new URI of a renamed file. */
  readonly to?: vscode.Uri;
  /** The new text; absent if the content stays or the file is deleted. */
  readonly text?: string;
}

type Outlines = Pick<Repository, 'outline'>;

/** Drafts of an answer that changes several files, or renames or deletes one. Empty: its code blocks are offered one by one. */
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

/** Where a new file of that path would be; undefined if that is not allowed or the file exists. */
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

/** The blocks with a clear target file. */
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

/** The draft with the block placed in it; undefined if that changes nothing. */
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

/** The text of a new file; undefined if the block is a patch that does not apply to an empty file. */
export function newText(block: CodeBlock): string | undefined {
  const code = isPatch(block.code, block.language) ? patched('', block.code) : block.code;
  return code === undefined ? undefined : `${code.replace(/\n+$/, '')}\n`;
}

/**
 * The text with the block placed in it. `text`: the document, or the result of earlier blocks. Undefined if the block is a
 * diff that does not apply.
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

/** The selection's lines if they are unchanged. */
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

// Finds in an answer which file each code block is for, and which files to delete or rename. Pure.

export interface CodeBlock {
  /** Without a first line that only names the path. */
  readonly code: string;
  /** Language of the fence in lower case; '' if it names none. */
  readonly language: string;
  /** The path on the fence, in a heading, in a comment on the first line, or after "create". */
  readonly path: string | undefined;
  /** Paths in the prose right before the block, nearest last; they may only be mentioned. */
  readonly mentioned: readonly string[];
}

const pathText = String.raw`(?:\.{0,2}/)?(?:[\w@.+-]+/)*(?:[\w@+-][\w@.+-]*\.[A-Za-z]\w{0,9}|\.[a-z][\w.-]+|Dockerfile|Makefile)`;
const wholePath = new RegExp(`^${pathText}$`);
const commentedPath = new RegExp(
  String.raw`^\s*(?://|#|--|;|%|/\*+|<!--)\s*(?:(?:file|filename|path)\s*:\s*)?\`?(${pathText})\`?\s*(?:\*/|-->)?\s*$`,
  'i',
);
const titledPath = new RegExp(`(?:title|file|filename|path)=["']?(${pathText})["']?`, 'i');
/** In code or bold marks, or with a folder: "Node.js" is not a path. */
const quotedPath = new RegExp(
  '(?:`|\\*\\*|["\'])(' +
    pathText +
    ')(?:`|\\*\\*|["\'])|(?<![\\w/:.@])((?:\\.{0,2}/)?(?:[\\w@.+-]+/)+[\\w@.+-]+\\.[A-Za-z]\\w{0,9})',
  'g',
);
const creates = /\b(?:create|creates|add|make|new|save|write|put)\b/i;

/** The answer's block with this code. Code that is not one of its blocks has neither language nor path. */
export function codeBlock(answer: string, code: string): CodeBlock {
  const blocks = flattened(lexMarkdown(answer));
  const at = blocks.findIndex((token) => token.type === 'code' && sameText(textOf(token), code));
  return described(blocks, at, code);
}

/** All blocks of an answer, in order. A diff of several files is one block per file. */
export function codeBlocks(answer: string): CodeBlock[] {
  const blocks = flattened(lexMarkdown(answer));
  return blocks.flatMap((token, at) =>
    token.type === 'code' ? patchesOf(textOf(token)).map((code) => described(blocks, at, code)) : [],
  );
}

function described(blocks: readonly Token[], at: number, code: string): CodeBlock {
  const block = blocks[at] as Tokens.Code | undefined;
  const [first = '', ...rest] = code.split('\n');
  const commented = commentedPath.exec(first)?.[1];
  const info = fence(block?.lang ?? '');
  const before = nearText(blocks.slice(0, Math.max(0, at)));
  const mentioned = [...before.text.matchAll(quotedPath)].flatMap(([, quoted, bare]) => quoted ?? bare ?? []);
  const title = wholeTitle(before.text) ?? (before.heading && mentioned.length === 1 ? mentioned[0] : undefined);
  const created = creates.test(before.text) && mentioned.length === 1 ? mentioned[0] : undefined;
  const patch = isPatch(code, info.language) ? patchedFile(code) : undefined;
  return {
    code: commented === undefined || rest.length === 0 ? code : rest.join('\n').replace(/^\n+/, ''),
    language: info.language,
    path: patch?.path ?? info.path ?? commented ?? title ?? created,
    mentioned,
  };
}

/** A file that an answer deletes, or renames to `to`. */
export interface FileOperation {
  readonly path: string;
  readonly to: string | undefined;
}

/** In sentences ("Delete `a.ts`."), in shell blocks that do nothing else (`git mv a.ts b.ts`), and in the headers of diffs. */
export function fileOperations(answer: string): FileOperation[] {
  const found = flattened(lexMarkdown(answer)).flatMap((token) => {
    if (token.type === 'space') return [];
    return token.type === 'code' ? operationsInCode(token as Tokens.Code) : operationsInProse(token.raw);
  });
  return [...new Map(found.map((operation) => [operation.path, operation])).values()];
}

const quoted = `(?:\`|\\*\\*|["'])+(${pathText})(?:\`|\\*\\*|["'])+`;
/** The text after it must not turn it into part of a file: "remove `a` from `b.ts`" deletes nothing. */
const deletion = new RegExp(
  String.raw`(?<!\b(?:not|never) |n['’]t )\b(?:deleted?|removed?):?\s+(?:(?:the|old|unused|obsolete|empty|file)\s+)*${quoted}(?:\s+file)?(?=\s*(?:$|[.;:,)!—–]|and\b|since\b|because\b|as\b))`,
  'gim',
);
const renaming = new RegExp(
  String.raw`(?<!\b(?:not|never) |n['’]t )\b(?:renamed?|moved?)\s+(?:the\s+)?(?:file\s+)?${quoted}(?:\s+file)?\s+(?:to|into|→|->|=>)\s+${quoted}`,
  'gi',
);

function operationsInProse(text: string): FileOperation[] {
  const deleted = [...text.matchAll(deletion)].map(([, path = '']) => ({ path, to: undefined }));
  const renamed = [...text.matchAll(renaming)].map(([, path = '', to]) => ({ path, to }));
  return [...deleted, ...renamed];
}

const command = /^(?:\$\s+)?(?:git\s+)?(rm|mv)\s+(?:-f\s+)?([\w@./+-]+(?:\s+[\w@./+-]+)*)$/;

function operationsInCode({ text, lang = '' }: Tokens.Code): FileOperation[] {
  if (isPatch(text, fence(lang).language))
    return patchesOf(text).flatMap((patch) => patchedFile(patch)?.operation ?? []);
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('#'));
  const parsed = lines.map((line) => command.exec(line.trim()));
  if (!shellNames.test(fence(lang).language) || parsed.includes(null)) return [];
  return parsed.flatMap((match) => {
    const paths = (match?.[2] ?? '').split(/\s+/);
    if (match?.[1] === 'rm') return paths.map((path) => ({ path, to: undefined }));
    const [path = '', to] = paths;
    return paths.length === 2 ? [{ path, to }] : [];
  });
}

const shellNames = /^(?:sh|bash|zsh|shell|console|terminal|fish)$/;

/** One patch per file. */
function patchesOf(code: string): string[] {
  if (!isPatch(code, '')) return [code];
  const patches = code.split(/^diff --git /m.test(code) ? /^(?=diff --git )/m : /^(?=--- .+\n\+\+\+ )/m);
  return patches.filter((patch) => patch.trim() !== '');
}

/** The file in a diff's header, and whether the diff deletes or renames it. */
function patchedFile(patch: string): { path: string; operation: FileOperation[] } | undefined {
  const named = (line: RegExp) => line.exec(patch)?.[1]?.replace(/^[ab]\//, '');
  const [before, after] = [named(/^--- (?:"?)([^\t\n"]+)/m), named(/^\+\+\+ (?:"?)([^\t\n"]+)/m)];
  const [from, to] = [named(/^rename from (.+)$/m) ?? before, named(/^rename to (.+)$/m) ?? after];
  if (from === undefined || to === undefined) return undefined;
  if (to === '/dev/null') return { path: from, operation: [{ path: from, to: undefined }] };
  if (from === '/dev/null' || from === to) return { path: to, operation: [] };
  return { path: to, operation: [{ path: from, to }] };
}

function fence(info: string): { language: string; path: string | undefined } {
  const titled = titledPath.exec(info)?.[1];
  const words = info.trim().split(/[\s:]+/);
  const path = titled ?? words.find((word) => wholePath.test(word) && word.includes('.'));
  const language = words[0] === path ? '' : (words[0] ?? '');
  return { language: language.replace(/[{,].*$/, '').toLowerCase(), path };
}

/** A line with only a path, such as `**play/util.js**:`. */
function wholeTitle(text: string): string | undefined {
  const last = text.trim().split('\n').at(-1) ?? '';
  const bare = last
    .replace(/^(?:#+|[-*]|\d+[.)])\s+/, '')
    .replace(/[`*:"']/g, '')
    .replace(/^(?:file|filename|path)\s+/i, '');
  return wholePath.test(bare.trim()) ? bare.trim() : undefined;
}

/** The last paragraph or heading before the block, unless code is in between. */
function nearText(before: readonly Token[]): { text: string; heading: boolean } {
  const near = before.findLast(({ type }) => type !== 'space');
  if (near === undefined || near.type === 'code') return { text: '', heading: false };
  return { text: near.raw, heading: near.type === 'heading' };
}

/** Blocks in text order, including those inside lists and quotations. */
function flattened(tokens: readonly Token[]): Token[] {
  return tokens.flatMap((token) => {
    if (token.type === 'list') return (token as Tokens.List).items.flatMap((item) => flattened(item.tokens));
    if (token.type === 'blockquote') return flattened((token as Tokens.Blockquote).tokens);
    return [token];
  });
}

const textOf = (token: Token): string => (token as Tokens.Code).text;
const sameText = (a: string, b: string): boolean => a.trim() === b.trim();
