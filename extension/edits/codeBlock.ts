/** What an answer says of files: which file each code block is meant for, and which files it wants deleted or renamed. Pure. */
import type { Token, Tokens } from 'marked';
import { lexMarkdown } from '../answerMarkup.ts';
import { isPatch } from './placement.ts';

export interface CodeBlock {
  /** Without a first line that only names the path. */
  readonly code: string;
  /** Of the fence, in lower case; '' where it names none. */
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
/** In code or bold marks, or with a folder: "Node.js" is no path. */
const quotedPath = new RegExp(
  '(?:`|\\*\\*|["\'])(' +
    pathText +
    ')(?:`|\\*\\*|["\'])|(?<![\\w/:.@])((?:\\.{0,2}/)?(?:[\\w@.+-]+/)+[\\w@.+-]+\\.[A-Za-z]\\w{0,9})',
  'g',
);
const creates = /\b(?:create|creates|add|make|new|save|write|put)\b/i;

/** The block of the answer that has this code. Code that is no block of it has neither language nor path. */
export function codeBlock(answer: string, code: string): CodeBlock {
  const blocks = flattened(lexMarkdown(answer));
  const at = blocks.findIndex((token) => token.type === 'code' && sameText(textOf(token), code));
  return described(blocks, at, code);
}

/** All blocks of an answer, in its order. A diff of several files is one block a file. */
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

/** A file that an answer wants deleted, or renamed to `to`. */
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
/** Whatever follows must not make it a part of the file: "remove `a` from `b.ts`" deletes nothing. */
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

/** One patch a file. */
function patchesOf(code: string): string[] {
  if (!isPatch(code, '')) return [code];
  const patches = code.split(/^diff --git /m.test(code) ? /^(?=diff --git )/m : /^(?=--- .+\n\+\+\+ )/m);
  return patches.filter((patch) => patch.trim() !== '');
}

/** The file that a diff is about, by its header, and whether it is deleted or renamed there. */
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

/** A line that is nothing but the path, as `**play/util.js**:` is. */
function wholeTitle(text: string): string | undefined {
  const last = text.trim().split('\n').at(-1) ?? '';
  const bare = last
    .replace(/^(?:#+|[-*]|\d+[.)])\s+/, '')
    .replace(/[`*:"']/g, '')
    .replace(/^(?:file|filename|path)\s+/i, '');
  return wholePath.test(bare.trim()) ? bare.trim() : undefined;
}

/** The last paragraph or heading before the block; code in between belongs to other text. */
function nearText(before: readonly Token[]): { text: string; heading: boolean } {
  const near = before.findLast(({ type }) => type !== 'space');
  if (near === undefined || near.type === 'code') return { text: '', heading: false };
  return { text: near.raw, heading: near.type === 'heading' };
}

/** Blocks in the order of the text; those of a list or quotation in its place. */
function flattened(tokens: readonly Token[]): Token[] {
  return tokens.flatMap((token) => {
    if (token.type === 'list') return (token as Tokens.List).items.flatMap((item) => flattened(item.tokens));
    if (token.type === 'blockquote') return flattened((token as Tokens.Blockquote).tokens);
    return [token];
  });
}

const textOf = (token: Token): string => (token as Tokens.Code).text;
const sameText = (a: string, b: string): boolean => a.trim() === b.trim();
