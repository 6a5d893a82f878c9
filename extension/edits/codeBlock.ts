/** What an answer says of one of its code blocks: the language, and the file that it is meant for. Pure. */
import type { Token, Tokens } from 'marked';
import { lexMarkdown } from '../answerMarkup.ts';

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
  const block = blocks[at] as Tokens.Code | undefined;
  const [first = '', ...rest] = code.split('\n');
  const commented = commentedPath.exec(first)?.[1];
  const info = fence(block?.lang ?? '');
  const before = nearText(blocks.slice(0, Math.max(0, at)));
  const mentioned = [...before.text.matchAll(quotedPath)].flatMap(([, quoted, bare]) => quoted ?? bare ?? []);
  const title = wholeTitle(before.text) ?? (before.heading && mentioned.length === 1 ? mentioned[0] : undefined);
  const created = creates.test(before.text) && mentioned.length === 1 ? mentioned[0] : undefined;
  return {
    code: commented === undefined || rest.length === 0 ? code : rest.join('\n').replace(/^\n+/, ''),
    language: info.language,
    path: info.path ?? commented ?? title ?? created,
    mentioned,
  };
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
