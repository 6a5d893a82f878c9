import DOMPurify from 'dompurify';
import { Marked, type Token, type Tokens } from 'marked';
import type { Formula } from '../extension/answerMarkup.ts';
import { asLink } from './dom.ts';
import { showFormula } from './formula.ts';
import { highlight } from './highlight.ts';

/**
 * Renders a model's Markdown as DOM. Three defences, each sufficient: raw HTML is text and URLs never become attributes;
 * DOMPurify allows only the elements and the attribute that the renderer creates; the page's CSP loads nothing.
 */
const allowedTags = [
  ...['p', 'br', 'hr', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'blockquote', 'pre', 'code', 'span', 'em', 'strong', 'del'],
  ...['ul', 'ol', 'li', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'a', 'div'],
];
/** `name` has the number of a link or formula, by which its placeholder is replaced. */
const allowedAttributes = ['class', 'start', 'align', 'name'];
/** Shared, because DOMPurify parses a new options object at each call, which takes longer than a short block. */
const allowed = {
  ALLOWED_TAGS: allowedTags,
  ALLOWED_ATTR: allowedAttributes,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
} as const;
const allowedClasses =
  /^(hljs(-[\w-]+)?|language-[\w#+.-]{1,40}|language_|function_|class_|inherited__|invoke__|constant_|image|task|formula|block)$/;
/** Longer code is highlighted only once it is complete. */
const liveHighlightChars = 6_000;

export interface RenderOptions {
  /** The block is still being written. */
  open: boolean;
  /** Prefix of an image's description. Images are never loaded. */
  imageLabel: string;
  onLink(href: string): void;
}

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escapeText = (text: string): string => text.replace(/[&<>"']/g, (char) => escapes[char] ?? char);

/** The URL if it is http or https. The extension checks it again and asks the user. */
export function offeredLink(href: string): string | undefined {
  if (!/^https?:\/\//i.test(href) || !URL.canParse(href)) return undefined;
  return new URL(href).href;
}

function parserFor(options: RenderOptions, links: string[], formulas: Formula[]): Marked {
  const link = (href: string, inner: string): string => {
    links.push(href);
    return `<a name="${links.length - 1}">${inner}</a>`;
  };
  return new Marked({
    gfm: true,
    extensions: [
      {
        name: 'formula',
        renderer({ raw, tex, display }) {
          formulas.push({ raw: String(raw), tex: String(tex), display: display === true });
          return `<span class="formula" name="${formulas.length - 1}"></span>`;
        },
      },
    ],
    renderer: {
      html: ({ text }: Tokens.HTML | Tokens.Tag) => escapeText(text),
      image: ({ href, text }: Tokens.Image) =>
        link(
          href,
          `<span class="image">[${escapeText(options.imageLabel)}${text === '' ? '' : `: ${escapeText(text)}`}]</span>`,
        ),
      link({ href, tokens }: Tokens.Link) {
        return link(href, this.parser.parseInline(tokens));
      },
      code: ({ text, lang }: Tokens.Code) => codeMarkup(text, lang ?? '', options.open),
      listitem({ task, tokens }: Tokens.ListItem) {
        return `<li${task ? ' class="task"' : ''}>${this.parser.parse(tokens)}</li>\n`;
      },
      checkbox: ({ checked }: Tokens.Checkbox) => (checked ? '☑ ' : '☐ '),
    },
  });
}

function codeMarkup(text: string, info: string, open: boolean): string {
  const language = (/^[\w#+.-]{1,40}/.exec(info.trim())?.[0] ?? '').toLowerCase();
  const coloured = open && text.length > liveHighlightChars ? undefined : highlight(text, language);
  return `<pre><code class="hljs language-${language || 'text'}">${coloured ?? escapeText(text)}</code></pre>`;
}

export const renderBlocks = (blocks: readonly Token[], options: RenderOptions): DocumentFragment =>
  rendered(options, (parser) => parser.parser([...blocks]));

/** Renders each block into its own `div`. Parser and sanitiser run once, because they cost more than a short block. */
export const renderEach = (blocks: readonly Token[], options: RenderOptions): HTMLElement[] =>
  [
    ...rendered(options, (parser) =>
      blocks.map((block) => `<div class="block">${parser.parser([block])}</div>`).join(''),
    ).children,
  ].filter((child) => child instanceof HTMLElement);

function rendered(options: RenderOptions, write: (parser: Marked) => string): DocumentFragment {
  const links: string[] = [];
  const formulas: Formula[] = [];
  const fragment = sanitise(write(parserFor(options, links, formulas)));
  for (const place of fragment.querySelectorAll<HTMLElement>('.formula')) {
    const formula = formulas[Number(place.getAttribute('name') ?? NaN)];
    place.removeAttribute('name');
    if (formula !== undefined) showFormula(place, formula);
  }
  activateLinks(fragment, links, options.onLink);
  return fragment;
}

function sanitise(html: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(html, allowed);
  for (const marked of fragment.querySelectorAll('[class]')) {
    const kept = [...marked.classList].filter((name) => allowedClasses.test(name));
    marked.setAttribute('class', kept.join(' '));
  }
  return fragment;
}

/** Targets of links that are not http or https. A URL never becomes an attribute. */
const targets = new WeakMap<Element, string>();

/** The target of a link shown as text, perhaps a citation. */
export const targetOf = (link: Element): string | undefined => targets.get(link);

/** Replaces anchors by elements that ask the extension, because the browser would prefetch, drag or follow a URL. */
function activateLinks(fragment: DocumentFragment, links: readonly string[], onLink: (href: string) => void): void {
  for (const anchor of fragment.querySelectorAll('a')) {
    const href = links[Number(anchor.getAttribute('name') ?? NaN)];
    const link = document.createElement('span');
    link.append(...anchor.childNodes);
    anchor.replaceWith(link);
    const offered = href === undefined ? undefined : offeredLink(href);
    if (offered !== undefined) asLink(link, offered, () => onLink(offered));
    else if (href !== undefined) targets.set(link, href);
  }
}
