import * as z from 'zod';
import { type Action, type Texts, type ToHost, type ToPage, texts, toPage } from '../extension/messages.ts';

// zod compiles schemas with `new Function` if allowed. The page's CSP forbids that and would report the attempt.
z.config({ jitless: true });

interface VsCodeApi {
  postMessage(message: ToHost): void;
}

declare function acquireVsCodeApi(): VsCodeApi;

/** The extension, as the page sees it. */
export class Host {
  readonly #api = acquireVsCodeApi();
  readonly texts: Texts = texts.parse(JSON.parse(document.body.dataset['texts'] ?? '{}'));

  send(message: ToHost): void {
    this.#api.postMessage(message);
  }

  /** `turn`: the turn that the action is about. */
  act(action: Action, turn?: string): void {
    this.send({ type: 'action', action, ...(turn !== undefined && { turn }) });
  }

  /** Reports and drops invalid messages. Ignores messages from sandboxed frames (diagrams). */
  listen(handle: (message: ToPage) => void): void {
    window.addEventListener('message', (event: MessageEvent<unknown>) => {
      if (event.origin === 'null') return;
      const parsed = toPage.safeParse(event.data);
      if (parsed.success) handle(parsed.data);
      else this.#report(`message: ${z.prettifyError(parsed.error)}`);
    });
    window.addEventListener('error', (event) => this.#report(event.message));
    window.addEventListener('unhandledrejection', (event) => this.#report(String(event.reason)));
  }

  #report(message: string): void {
    this.send({ type: 'page-error', message: message.slice(0, 4_000) });
  }
}
