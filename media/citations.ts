import type { Citation } from '../extension/messages.ts';
import { asLink } from './dom.ts';

/** Makes the places that an answer names, and that exist, links into the editor. Code blocks stay as they are. */
export function linkCitations(
  root: HTMLElement,
  citations: readonly Citation[],
  open: (citation: Citation) => void,
): void {
  // The longest first: `a.ts:1` is the beginning of `a.ts:12`.
  const longest = [...citations].sort((a, b) => b.text.length - a.text.length);
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const nodes: Text[] = [];
  for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
    if (node instanceof Text && node.parentElement?.closest('pre, .link, button') === null) nodes.push(node);
  }
  for (const node of nodes) linkIn(node, longest, open);
}

function linkIn(node: Text, citations: readonly Citation[], open: (citation: Citation) => void): void {
  for (const citation of citations) {
    const at = node.data.indexOf(citation.text);
    if (at < 0) continue;
    const rest = node.splitText(at);
    const after = rest.splitText(citation.text.length);
    const link = asLink(document.createElement('span'), citation.path, () => open(citation));
    link.classList.add('citation');
    rest.replaceWith(link);
    link.append(rest);
    linkIn(node, citations, open);
    linkIn(after, citations, open);
    return;
  }
}
