import { element, fill, iconButton } from './dom.ts';
import type { Host } from './host.ts';

/** What the page asks the frame, and what it answers. */
export interface Drawing {
  readonly source: string;
  readonly dark: boolean;
}
export type Drawn = { readonly svg: string } | { readonly problem: string };
/** The global that the script of diagrams.ts sets: a function, whose text runs in the frame. */
const scriptName = 'hearthDiagrams';

/** Models' diagrams have some hundred characters; docs/proof.md has times. */
const maxChars = 4_000;
/** For one diagram; the first one compiles the script too. */
const drawingMs = 20_000;
/** The frame is a process, which goes when nothing was drawn for so long. */
const idleMs = 10_000;

/** Of the page's own script, while it runs: VS Code's webview has others. The attribute is empty, so no style can find it out. */
const nonce = document.currentScript instanceof HTMLScriptElement ? document.currentScript.nonce : '';

let loading: Promise<string> | undefined;
let frame: Frame | undefined;
/** One diagram after the other. */
let last: Promise<unknown> = Promise.resolve();

/** Only the page can load the script: in VS Code a frame of another origin reaches no local file. */
function loadedScript(): Promise<string> {
  loading ??= new Promise<string>((resolve, reject) => {
    const script = element('script');
    script.nonce = nonce;
    script.src = document.body.dataset['diagrams'] ?? '';
    script.addEventListener('load', () => resolve(`(${Reflect.get(globalThis, scriptName)})()`));
    script.addEventListener('error', () => {
      loading = undefined;
      reject(new Error('diagrams.js'));
    });
    document.head.append(script);
  });
  return loading;
}

/** What a frame does first. Source text: it runs there. */
const frameStart = `onmessage = ({ data, ports }) => {
  onmessage = null;
  globalThis.hearthPort = ports[0];
  const script = document.createElement('script');
  script.nonce = globalThis.hearthNonce = data.nonce;
  script.textContent = data.script;
  document.body.append(script);
};`;

/**
 * Draws apart from the page. A sandboxed frame has an origin of its own, so it can reach nothing of the page, and browsers give
 * it a process of its own, so that Mermaid's seconds do not block the page. It is under the page's CSP.
 */
class Frame {
  readonly #element = element('iframe', {
    class: 'diagram-frame',
    attributes: { sandbox: 'allow-scripts', 'aria-hidden': 'true', tabindex: '-1' },
  });
  readonly #port: Promise<MessagePort>;
  #idle: ReturnType<typeof setTimeout> | undefined;

  constructor(script: string) {
    this.#element.srcdoc = `<!DOCTYPE html><body><script nonce="${nonce}">${frameStart}</script>`;
    this.#port = new Promise((resolve) => {
      const start = (): void => {
        const { port1, port2 } = new MessageChannel();
        this.#element.contentWindow?.postMessage({ script, nonce }, '*', [port2]);
        resolve(port1);
      };
      this.#element.addEventListener('load', start, { once: true });
    });
    document.body.append(this.#element);
  }

  /** @returns undefined if it took too long. */
  async draw(drawing: Drawing): Promise<Drawn | undefined> {
    clearTimeout(this.#idle);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), drawingMs);
    });
    const drawn = await Promise.race([this.#answer(drawing), late]);
    clearTimeout(timer);
    if (drawn === undefined) this.#remove();
    else this.#idle = setTimeout(() => this.#remove(), idleMs);
    return drawn;
  }

  async #answer(drawing: Drawing): Promise<Drawn> {
    const port = await this.#port;
    return new Promise((resolve) => {
      port.onmessage = ({ data }: MessageEvent<Drawn>) => resolve(data);
      port.postMessage(drawing);
    });
  }

  #remove(): void {
    clearTimeout(this.#idle);
    this.#element.remove();
    if (frame === this) frame = undefined;
  }
}

/**
 * Shows a block of Mermaid as the picture that it describes, once it comes into view. The picture is an image: whatever is
 * in its SVG runs nothing, loads nothing and covers nothing. The source stays where there is an error, and by a button.
 */
export function showDiagram(code: HTMLElement, head: HTMLElement, pre: HTMLElement, host: Host): void {
  const source = code.textContent ?? '';
  if (source.length > maxChars) {
    tellProblem(pre, fill(host.texts.diagramFailed, host.texts.diagramLong));
    return;
  }
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    observer.disconnect();
    last = last.then(() => replace(source, head, pre, host));
  });
  observer.observe(pre);
}

async function replace(source: string, head: HTMLElement, pre: HTMLElement, host: Host): Promise<void> {
  const { texts } = host;
  try {
    const dark = /vscode-dark|vscode-high-contrast(?!-light)/.test(document.body.className);
    const script = await loadedScript();
    frame ??= new Frame(script);
    const drawn = (await frame.draw({ source, dark })) ?? { problem: texts.diagramSlow };
    if ('problem' in drawn) throw new Error(drawn.problem);
    const { svg } = drawn;
    const image = element('img', { attributes: { alt: `${texts.diagram}: ${source.slice(0, 500)}` } });
    image.src = URL.createObjectURL(new Blob([svg], { type: 'image/svg+xml' }));
    await image.decode();
    URL.revokeObjectURL(image.src);
    const figure = element('div', { class: dark ? 'diagram dark' : 'diagram' }, [image]);
    pre.before(figure);
    pre.hidden = true;
    const toggle = iconButton('symbol', texts.showSource, () => {
      pre.hidden = !pre.hidden;
      figure.hidden = !pre.hidden;
      toggle.setAttribute('aria-pressed', String(!pre.hidden));
    });
    toggle.setAttribute('aria-pressed', 'false');
    toggle.dataset['action'] = 'source';
    head.querySelector('button')?.before(toggle);
  } catch (error) {
    const problem = (error instanceof Error ? error.message : String(error)).split('\n', 1)[0] ?? '';
    tellProblem(pre, fill(texts.diagramFailed, problem.slice(0, 200)));
  }
}

const tellProblem = (pre: HTMLElement, text: string): void =>
  pre.after(element('p', { class: 'diagram-problem', text }));
