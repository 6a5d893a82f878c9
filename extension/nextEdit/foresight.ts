import * as vscode from 'vscode';
import type { NextEditParams } from '../../engine/protocol/engineProtocol.ts';
import { isCancelled, sentence } from '../client/failure.ts';
import type { EngineHost } from '../client/host.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { nextEditModel } from '../settings.ts';
import { changeOf, linesLike, type Place } from './pattern.ts';

type EditedLine = NextEditParams['edits'][number];

/** Asks the model for the next edit where the pattern of the last one fits nowhere. The next key ends it. */
export class Foresight {
  readonly #engine: Pick<EngineHost, 'current'>;
  readonly #log: Pick<Log, 'debug'>;
  /** The last changes of lines, in any file. */
  readonly #edits: EditedLine[] = [];
  #running: vscode.CancellationTokenSource | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(engine: Pick<EngineHost, 'current'>, log: Pick<Log, 'debug'>) {
    this.#engine = engine;
    this.#log = log;
  }

  /** `line` was changed. A further change of the same line takes the place of the earlier one. */
  note(document: vscode.TextDocument, line: number, before: string): void {
    const path = vscode.workspace.asRelativePath(document.uri);
    const above = line === 0 ? '' : document.lineAt(line - 1).text;
    const last = this.#edits.at(-1);
    if (last?.path === path && last.before === before && last.above === above) this.#edits.pop();
    this.#edits.push({ path, line, above, before, after: document.lineAt(line).text });
    if (this.#edits.length > limits.nextEdit.edits) this.#edits.shift();
  }

  /** Asks once no key has come for a while. `found` is not called for an edit that is not wanted any more. */
  ask(document: vscode.TextDocument, line: number, found: (place: Place) => void): void {
    this.cancel();
    this.#timer = setTimeout(() => void this.#ask(document, line, found), limits.nextEdit.idleMs);
  }

  cancel(): void {
    clearTimeout(this.#timer);
    this.#running?.cancel();
    this.#running = undefined;
  }

  async #ask(document: vscode.TextDocument, line: number, found: (place: Place) => void): Promise<void> {
    const client = this.#engine.current;
    const card = client?.completionModel;
    const mode = nextEditModel();
    const isWanted = mode === 'on' || (mode === 'auto' && card?.foreseesEdits === true);
    const params = isWanted && card?.host === undefined ? paramsAt(document, line, this.#edits) : undefined;
    if (!client || !card || !params) return;
    const source = new vscode.CancellationTokenSource();
    this.#running = source;
    const { version } = document;
    try {
      const edit = await client.nextEdit(params, source.token);
      if (edit === undefined || source.token.isCancellationRequested || document.version !== version) return;
      const place = edit.line < document.lineCount ? placeOf(document.lineAt(edit.line).text, edit) : undefined;
      if (place !== undefined && place.line !== line) found(place);
    } catch (error) {
      if (!isCancelled(error)) this.#log.debug(`Next edit: ${sentence(error)}`);
    } finally {
      source.dispose();
      if (this.#running === source) this.#running = undefined;
    }
  }
}

/** Undefined where there is nothing to ask about. */
export function paramsAt(
  document: Pick<vscode.TextDocument, 'uri' | 'getText'>,
  line: number,
  edits: readonly EditedLine[],
): NextEditParams | undefined {
  const last = edits.at(-1);
  if (last === undefined) return undefined;
  const { places: mostPlaces, windowLines } = limits.nextEdit;
  const lines = document.getText().split(/\r?\n/);
  const firstLine = Math.max(0, line - windowLines);
  const shown = lines.slice(firstLine, line + windowLines + 1);
  const places = linesLike(last.before, lines, line, mostPlaces).map((at) => {
    return { line: at, above: lines[at - 1] ?? '', text: lines[at] ?? '' };
  });
  const above = shown.slice(0, line - firstLine).map((own) => `${own}\n`);
  return {
    path: vscode.workspace.asRelativePath(document.uri),
    edits: [...edits],
    window: {
      firstLine,
      text: shown.join('\n'),
      before: shown.with(line - firstLine, last.before).join('\n'),
      // Where the last change ends.
      cursor: above.join('').length + changeOf(last.before, lines[line] ?? '').endAfter,
    },
    places,
  };
}

/** The part of the line that becomes another. */
function placeOf(own: string, { line, text }: { readonly line: number; readonly text: string }): Place {
  const { start, endBefore, endAfter } = changeOf(own, text);
  return { line, start, end: endBefore, text: text.slice(start, endAfter) };
}
