import { element, fill, iconButton } from './dom.ts';
import type { Host } from './host.ts';

/** Request from the page to the frame. */
export interface Drawing {
  readonly source: string;
  readonly dark: boolean;
}
export type Drawn = { readonly svg: string } | { readonly problem: string };
/** The global that the script of diagrams.ts sets: a function, whose text runs in the frame. */
const scriptName = 'hearthDiagrams';

/** Models' diagrams have some hundred characters; docs/proof.md has times. */
const maxChars = 4_000;
/** Time limit of one diagram; the first one compiles the script too. */
const drawingMs = 20_000;
/** The frame is a process; it is removed after this idle time. */
const idleMs = 10_000;

/** Nonce of the page's own script while it runs, since VS Code's webview has other scripts. The attribute is empty, so no style can read it. */
const nonce = document.currentScript instanceof HTMLScriptElement ? document.currentScript.nonce : '';

let loading: Promise<string> | undefined;
let frame: Frame | undefined;
/** Diagrams are drawn one after the other. */
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

/** The frame's start script, as source text because it runs there. */
const frameStart = `onmessage = ({ data, ports }) => {
  onmessage = null;
  globalThis.hearthPort = ports[0];
  const script = document.createElement('script');
  script.nonce = globalThis.hearthNonce = data.nonce;
  script.textContent = data.script;
  document.body.append(script);
};`;

/**
 * Draws in a sandboxed frame. It has its own origin, so it cannot reach the page, and browsers give it its own process, so that
 * Mermaid, which may take seconds, does not block the page. The page's CSP applies to it.
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
 * Replaces a Mermaid block by its diagram once it comes into view. The diagram is an image, so its SVG cannot run, load or
 * cover anything. After an error the source stays; otherwise a button shows it.
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
