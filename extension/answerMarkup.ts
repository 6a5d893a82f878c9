/**
 * The Markdown structure of an answer, for citations in the extension and rendering in the page. Both lex by the same
 * rules, so they agree on what is code.
 */
import { Lexer, Tokenizer, type Tokens, type TokensList } from 'marked';
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

/** Top-level blocks of a text. Their concatenated `raw` is the text. */
export function lexMarkdown(markdown: string): TokensList {
  return new BoundedLexer({ gfm: true, tokenizer: new BoundedTokenizer() }).lex(markdown);
}

/** Lookarounds of a citation, which must not be part of a longer word or path. */
export const placeBorders = { before: String.raw`(?<![\w/:.@+-])`, after: String.raw`(?![\w:/.]*\w)` } as const;
