/** Draws in the frame of diagram.ts. A script of its own, since Mermaid is ten times as large as the page. */
import mermaid from 'mermaid';
import type { Drawing, Drawn } from './diagram.ts';

const bounds = { maxTextSize: 4_000, maxEdges: 100 };
/** A diagram may set everything else about its look: it is a picture, which reaches nothing around it. */
const secure = [
  'secure',
  'securityLevel',
  'startOnLoad',
  'suppressErrorRendering',
  'htmlLabels',
  ...Object.keys(bounds),
];

let count = 0;

async function draw({ source, dark }: Drawing, nonce: string): Promise<string> {
  // What the last diagram set about itself would otherwise be read again, and may be the reason why it failed.
  mermaid.mermaidAPI.reset();
  mermaid.initialize({
    ...bounds,
    secure,
    startOnLoad: false,
    securityLevel: 'strict',
    suppressErrorRendering: true,
    // Labels are text of the picture. HTML within an SVG would be laid out by styles that the page's CSP forbids.
    htmlLabels: false,
    layout: 'dagre',
    theme: dark ? 'dark' : 'default',
  });
  await mermaid.parse(source);
  count += 1;
  const svg = await withStyles(nonce, () => mermaid.render(`hearth-diagram-${count}`, source));
  return sized(svg.svg);
}

/**
 * Mermaid measures texts in the document, with a style element for the time and with style attributes. The CSP lets the element
 * apply with our nonce, and styles that are set as properties.
 */
async function withStyles<T>(nonce: string, work: () => Promise<T>): Promise<T> {
  const { createElement } = Document.prototype;
  const { setAttribute } = Element.prototype;
  Document.prototype.createElement = function (this: Document, name: string, options?: ElementCreationOptions) {
    const made = createElement.call(this, name, options);
    if (name === 'style') made.nonce = nonce;
    return made;
  };
  Element.prototype.setAttribute = function (name, value) {
    if (name === 'style' && (this instanceof SVGElement || this instanceof HTMLElement)) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  try {
    return await work();
  } finally {
    Document.prototype.createElement = createElement;
    Element.prototype.setAttribute = setAttribute;
  }
}

/** A picture has a size of its own, which Mermaid leaves to its container. */
function sized(svg: string): string {
  const [, width, height] = /^<svg[^>]*? viewBox="\S+ \S+ ([\d.]+) ([\d.]+)"/.exec(svg) ?? [];
  if (width === undefined || height === undefined) throw new Error('The diagram is empty.');
  return svg.replace(/^<svg[^>]*>/, (root) => {
    const bare = root.replace(/ (?:width|height)="[^"]*"/g, '');
    return bare.replace('<svg', `<svg width="${width}" height="${height}"`);
  });
}

const port: unknown = Reflect.get(globalThis, 'hearthPort');
const nonce = String(Reflect.get(globalThis, 'hearthNonce'));
if (port instanceof MessagePort) {
  port.onmessage = async ({ data }: MessageEvent<Drawing>) => {
    const answer = (drawn: Drawn): void => port.postMessage(drawn);
    try {
      answer({ svg: await draw(data, nonce) });
    } catch (error) {
      answer({ problem: error instanceof Error ? error.message : String(error) });
    }
  };
}
