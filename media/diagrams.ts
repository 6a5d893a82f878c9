/** Draws in the frame of diagram.ts. A separate script, since Mermaid is ten times as large as the page. */
import mermaid from 'mermaid';
import type { Drawing, Drawn } from './diagram.ts';

const bounds = { maxTextSize: 4_000, maxEdges: 100 };
/** Settings that a diagram may not change. It may set everything else about its look, because it is only an image. */
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
  // Otherwise the last diagram's settings would apply again, and these may be why it failed.
  mermaid.mermaidAPI.reset();
  mermaid.initialize({
    ...bounds,
    secure,
    startOnLoad: false,
    securityLevel: 'strict',
    suppressErrorRendering: true,
    // Labels are SVG text: HTML inside an SVG would need styles that the page's CSP forbids.
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
 * Mermaid measures texts in the document with a temporary style element and style attributes. The CSP allows the element with
 * our nonce, and styles that are set as properties.
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

/** Sets the image's size, which Mermaid leaves to its container. */
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
