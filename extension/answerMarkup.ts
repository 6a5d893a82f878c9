/**
 * The Markdown structure of an answer, for citations in the extension and rendering in the page. Both lex by the same
 * rules, so they agree on what is code.
 */
import { Lexer, type Token, Tokenizer, type Tokens, type TokensList } from 'marked';
import { limits } from './limits.ts';

/** CommonMark would render a name such as `__init__.py` in bold. */
const dunderName = /^_{1,2}\w+__[./]\w/;

/** Limits nesting, because the lexer and the renderer recurse for each level. */
class BoundedTokenizer extends Tokenizer {
  #depth = 0;

  override blockquote(src: string): Tokens.Blockquote | undefined {
    return this.#nested(() => super.blockquote(src));
  }

  override list(src: string): Tokens.List | undefined {
    return this.#nested(() => super.list(src));
  }

  override emStrong(src: string, maskedSrc: string, prevChar?: string): Tokens.Em | Tokens.Strong | undefined {
    return dunderName.test(src) ? undefined : this.#nested(() => super.emStrong(src, maskedSrc, prevChar));
  }

  override del(src: string, maskedSrc: string, prevChar?: string): Tokens.Del | undefined {
    return this.#nested(() => super.del(src, maskedSrc, prevChar));
  }

  override link(src: string): Tokens.Link | Tokens.Image | undefined {
    return this.#nested(() => super.link(src));
  }

  #nested<Token>(lex: () => Token | undefined): Token | undefined {
    if (this.#depth >= limits.markdown.depth) return undefined;
    this.#depth += 1;
    try {
      return lex();
    } finally {
      this.#depth -= 1;
    }
  }
}

/** Treats a paragraph beyond the limit as plain text, because marked's emphasis takes quadratic time. */
class BoundedLexer extends Lexer {
  override inlineTokens(...[src, tokens = []]: Parameters<Lexer['inlineTokens']>): ReturnType<Lexer['inlineTokens']> {
    if (src.length <= limits.markdown.paragraphChars) return super.inlineTokens(src, tokens);
    tokens.push({ type: 'text', raw: src, text: src, escaped: false });
    return tokens;
  }
}

/** A formula in TeX. `display`: on lines of its own. */
export interface Formula {
  readonly raw: string;
  readonly tex: string;
  readonly display: boolean;
}
type FormulaToken = Formula & Tokens.Generic;

/** `$$…$$` and `\[…\]` on lines of their own; their end may be lines below. */
const displayFormula = /^ {0,3}(?:\$\$([^$]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/;
/** The same within a line. */
const displayInline = /^(?:\$\$([^$\n]+?)\$\$|\\\[([^\n]+?)\\\])/;
/** `\(…\)`, and `$…$` as Pandoc reads it: no space within its borders, no digit or letter after it. */
const inlineFormula = /^(?:\\\(([^\n]+?)\\\)|\$((?![\s$])(?:\\[^\n]|[^$\\\n])+?)(?<!\s)\$(?![\w$]))/;

function formulaToken(pattern: RegExp, src: string, display: boolean): FormulaToken | undefined {
  const match = pattern.exec(src.slice(0, limits.markdown.formulaChars));
  const tex = (match?.[1] ?? match?.[2] ?? '').trim();
  return match === null || tex === '' ? undefined : { type: 'formula', raw: match[0], tex, display };
}

/** Neither prices nor variables of a shell are formulas: a dollar within a word begins none. */
function inlineToken(src: string, before: Token | undefined): FormulaToken | undefined {
  if (src.startsWith('$') && /[\w$\\]$/.test(before?.raw ?? '')) return undefined;
  return formulaToken(displayInline, src, true) ?? formulaToken(inlineFormula, src, false);
}

function startOf(pattern: RegExp, src: string): number | undefined {
  const at = src.search(pattern);
  return at < 0 ? undefined : at;
}

/** marked asks this for each paragraph with all that follows it: a search to the end takes quadratic time. */
function paragraphAtStart(src: string): string {
  const end = src.search(/\n *\n/);
  return end < 0 ? src : src.slice(0, end);
}

const extensions = {
  renderers: {},
  childTokens: {},
  block: [(src: string) => formulaToken(displayFormula, src, true)],
  startBlock: [(src: string) => startOf(/\n {0,3}(?:\$\$|\\\[)/, paragraphAtStart(src))],
  inline: [(src: string, tokens: Token[]) => inlineToken(src, tokens.at(-1))],
  startInline: [(src: string) => startOf(/\$|\\[([]/, src)],
};

/** Top-level blocks of a text. Their concatenated `raw` is the text. */
export function lexMarkdown(markdown: string): TokensList {
  return new BoundedLexer({ gfm: true, tokenizer: new BoundedTokenizer(), extensions }).lex(markdown);
}

/** Lookarounds of a citation, which must not be part of a longer word or path. */
export const placeBorders = { before: String.raw`(?<![\w/:.@+-])`, after: String.raw`(?![\w:/.]*\w)` } as const;
