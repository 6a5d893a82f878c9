import * as vscode from 'vscode';
import { sentence } from '../client/failure.ts';
import { formatAge } from '../format.ts';
import { limits } from '../limits.ts';
import type { Changes, ChangesAct } from '../messages.ts';
import type { Log } from '../parts.ts';
import type { ChangeSet, ChangeStore, FileChange } from './changeStore.ts';
import {
  baseOf,
  checkpointOf,
  leftBy,
  obstacle,
  restoreFile,
  stateSince,
  untilRead,
  writeFiles,
} from './changeStore.ts';
import type { Draft } from './drafts.ts';
import { countsOf } from './hunks.ts';
import { type Proposals, requireTrust } from './proposals.ts';

/**
 * The changes that answers propose for several files, by turn. Nothing is written before the user accepts. The checkpoint of
 * the files is on disk before the first file is written, so that they can be restored, also after a restart.
 */
export class ChangeSets {
  readonly #store: ChangeStore;
  readonly #proposals: Pick<Proposals, 'present' | 'close'>;
  readonly #log: Log;
  readonly #sets = new Map<string, ChangeSet>();
  readonly #changed = new vscode.EventEmitter<string>();
  /** Fires with a turn's id. */
  readonly onChange = this.#changed.event;
  #isWriting = false;
  /** Operations run one after the other. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(store: ChangeStore, proposals: Pick<Proposals, 'present' | 'close'>, log: Log) {
    this.#store = store;
    this.#proposals = proposals;
    this.#log = log;
  }

  /** The turn's proposals, read from disk if not yet known. */
  async viewOf(turn: string): Promise<Changes | undefined> {
    const set = await this.#find(turn);
    if (set === undefined) return undefined;
    const files = set.files.map(({ id, kind, uri, to, added, removed, state }) => ({
      ...{ id, kind, path: pathOf(uri), added, removed },
      ...(to !== undefined && { to: pathOf(to) }),
      // A file that was being written when the process ended can be restored.
      state: state !== 'writing' ? state : this.#isWriting ? ('proposed' as const) : ('accepted' as const),
    }));
    return { files, isRestorable: set.files.some(({ checkpoint }) => checkpoint !== undefined) };
  }

  /** The turn's proposal for a file so far. */
  proposed(turn: string, uri: vscode.Uri): Draft | undefined {
    const files = this.#sets.get(turn)?.files ?? [];
    const file = files.findLast((known) => known.uri === uri.toString() && known.state === 'proposed');
    if (file === undefined) return undefined;
    const { kind, to, text } = file;
    return { kind, uri, ...(to !== undefined && { to: parsed(to) }), ...(text !== undefined && { text }) };
  }

  /** Adds to the turn's proposals. A new proposal for a file replaces the old one. */
  propose(turn: string, title: string, drafts: readonly Draft[]): Promise<void> {
    return this.#inTurn(async () => {
      const known = await this.#find(turn);
      const set: ChangeSet = known ?? { version: 1, id: turn, title, at: Date.now(), files: [] };
      for (const draft of drafts) {
        const old = set.files.findIndex(({ uri, state }) => uri === draft.uri.toString() && state === 'proposed');
        const file = await this.#fileOf(draft, set.files[old]?.id ?? String(set.files.length));
        if (file === undefined || (old < 0 && set.files.length >= limits.edits.files)) continue;
        if (old < 0) set.files.push(file);
        else set.files[old] = { ...file, ...kept(set.files[old]) };
      }
      if (set.files.length === 0) return;
      await this.#save(set);
      await this.#store.prune();
    });
  }

  /** `file`: id in the set; absent: all that are undecided, or that were written. */
  act(turn: string, act: ChangesAct, file?: string): Promise<void> {
    return this.#inTurn(async () => {
      const set = await this.#find(turn);
      if (set === undefined) return;
      const chosen = set.files.filter(({ id }) => file === undefined || id === file);
      const open = chosen.filter(({ state }) => state === 'proposed');
      if (act === 'show') for (const one of chosen) await this.#show(set, one);
      if (act === 'accept' && open.length > 0) await this.#accept(set, open);
      if (act === 'reject') await this.#decide(set, open, 'rejected');
      if (act === 'restore') await this.#restore(set, chosen);
    });
  }

  /** Asks which changes to undo, including those of deleted chats. */
  async chooseRestore(): Promise<void> {
    const sets = (await this.#store.list()).filter(({ files }) => files.some(({ checkpoint }) => checkpoint));
    if (sets.length === 0) {
      void vscode.window.showInformationMessage(vscode.l10n.t('Hearth has changed no files that can be restored.'));
      return;
    }
    const items = sets.map(({ id, title, at, files }) => ({
      ...{ id, label: title, description: formatAge(Date.now() - at) },
      detail: namesOf(files.filter(({ checkpoint }) => checkpoint)),
    }));
    const placeHolder = vscode.l10n.t('Restore the files as they were before which change?');
    const chosen = await vscode.window.showQuickPick(items, { placeHolder });
    if (chosen !== undefined) await this.act(chosen.id, 'restore');
  }

  async #find(turn: string): Promise<ChangeSet | undefined> {
    const set = this.#sets.get(turn) ?? (await this.#store.read(turn));
    if (set !== undefined) this.#sets.set(turn, set);
    return set;
  }

  async #save(set: ChangeSet): Promise<void> {
    this.#sets.set(set.id, set);
    await this.#store.write(set);
    this.#changed.fire(set.id);
  }

  #inTurn(run: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(run);
    this.#queue = done.catch(() => {});
    return done;
  }

  /** Undefined if the file can have no checkpoint; it is then not proposed. */
  async #fileOf({ kind, uri, to, text }: Draft, id: string): Promise<FileChange | undefined> {
    const isNew = kind === 'create';
    const found = isNew ? undefined : await vscode.workspace.fs.stat(uri);
    const isLink = found !== undefined && (found.type & vscode.FileType.SymbolicLink) !== 0;
    if ((found?.size ?? 0) > limits.edits.fileBytes || (isLink && kind !== 'change')) {
      this.#log.warn(`${uri.toString()} is too large or a link, so its change is not proposed.`);
      return undefined;
    }
    const document = isNew ? undefined : await textDocument(uri);
    const counts =
      kind === 'rename' && text === undefined ? { added: 0, removed: 0 } : countsOf(document?.getText(), text);
    const where = { uri: uri.toString(), ...(to && { to: to.toString() }), ...(text !== undefined && { text }) };
    return { id, kind, ...where, ...counts, base: await baseOf({ kind, ...where }), state: 'proposed' };
  }

  /** Accepts all of them or none. */
  async #accept(set: ChangeSet, files: FileChange[], part?: string): Promise<void> {
    requireTrust();
    const problems = (await Promise.all(files.map(obstacle))).filter((problem) => problem !== undefined);
    if (problems.length > 0) throw new Error(vscode.l10n.t('{0} Nothing was written.', problems.join(' ')));
    this.#isWriting = true;
    try {
      await this.#keep(set, files);
      await this.#write(set, files, part);
    } finally {
      this.#isWriting = false;
      this.#changed.fire(set.id);
    }
    if (part !== undefined) await this.#afterPart(set, files);
    for (const { uri, state } of files) if (state === 'accepted') await this.#proposals.close(parsed(uri));
  }

  /** Writes the checkpoint; nothing else is written before. */
  async #keep(set: ChangeSet, files: readonly FileChange[]): Promise<void> {
    const fresh = files.filter(({ checkpoint }) => checkpoint === undefined);
    try {
      for (const file of fresh) file.checkpoint = await checkpointOf(file);
      for (const file of files) {
        file.state = 'writing';
        delete file.written;
      }
      await this.#store.write(set);
    } catch (error) {
      for (const file of fresh) delete file.checkpoint;
      for (const file of files) file.state = 'proposed';
      throw new Error(vscode.l10n.t('{0} Nothing was written.', sentence(error)));
    }
  }

  async #write(set: ChangeSet, files: readonly FileChange[], part: string | undefined): Promise<void> {
    try {
      await writeFiles(files.map((file) => (part === undefined ? file : { ...file, text: part })));
      for (const file of files) file.written = await leftBy(file);
    } catch (error) {
      throw new Error(vscode.l10n.t('{0} Restore the files to undo what was written.', sentence(error)));
    } finally {
      for (const file of files) file.state = part === undefined || part === file.text ? 'accepted' : 'proposed';
      await this.#store.write(set);
    }
  }

  /** The undecided rest becomes a change of the current file. */
  async #afterPart(set: ChangeSet, files: FileChange[]): Promise<void> {
    for (const file of files) {
      file.base = await baseOf(file);
      Object.assign(file, countsOf((await textDocument(parsed(file.uri)))?.getText(), file.text));
    }
    await this.#save(set);
  }

  async #decide(set: ChangeSet, files: FileChange[], state: 'rejected'): Promise<void> {
    for (const file of files) {
      // A part of it may already be written.
      file.state = file.checkpoint === undefined ? state : 'accepted';
      await this.#proposals.close(parsed(file.uri));
    }
    await this.#save(set);
  }

  async #restore(set: ChangeSet, chosen: readonly FileChange[]): Promise<void> {
    requireTrust();
    const files = chosen.filter(({ checkpoint }) => checkpoint !== undefined);
    const states = new Map(await Promise.all(files.map(async (file) => [file, await stateSince(file)] as const)));
    const edited = files.filter((file) => states.get(file) === 'edited');
    const answer = edited.length === 0 ? keep() : await askToOverwrite(edited);
    if (answer === undefined) return;
    const left = answer === keep() ? edited : [];
    const restored: FileChange[] = [];
    // A file may have been changed twice: the last change is undone first.
    for (const file of files.toReversed()) {
      if (left.includes(file)) continue;
      if (states.get(file) !== 'before') await restoreFile(file);
      Object.assign(file, file.checkpoint?.proposal);
      delete file.checkpoint;
      delete file.written;
      if (file.kind !== 'create') await untilRead(file);
      file.state = 'proposed';
      restored.unshift(file);
    }
    await this.#save(set);
    void vscode.window.showInformationMessage(
      [
        ...(restored.length > 0 ? [vscode.l10n.t('Restored: {0}.', namesOf(restored))] : []),
        ...(left.length > 0 ? [vscode.l10n.t('Left as they are: {0}.', namesOf(left))] : []),
      ].join(' '),
    );
  }

  async #show(set: ChangeSet, file: FileChange): Promise<void> {
    const { kind, uri, to, text } = file;
    const target = parsed(uri);
    const document = kind === 'create' ? undefined : await textDocument(target);
    const decide = (act: ChangesAct) => this.act(set.id, act, file.id);
    const moved = to === undefined ? undefined : vscode.l10n.t('{0} → {1}', pathOf(uri), pathOf(to));
    await this.#proposals.close(target);
    await this.#proposals.present({
      target,
      version: kind === 'create' ? undefined : (document?.version ?? 0),
      text: text ?? (kind === 'delete' ? '' : (document?.getText() ?? '')),
      title: kind === 'delete' ? vscode.l10n.t('{0}: deleted', pathOf(uri)) : moved,
      owner: {
        accept: () => decide('accept'),
        acceptPart: (part) =>
          kind === 'change' ? this.#inTurn(() => this.#accept(set, [file], part)) : decide('accept'),
        reject: () => decide('reject'),
      },
    });
  }
}

const parsed = (uri: string): vscode.Uri => vscode.Uri.parse(uri, true);
const pathOf = (uri: string): string => vscode.workspace.asRelativePath(parsed(uri));
const namesOf = (files: readonly FileChange[]): string => files.map(({ uri }) => pathOf(uri)).join(', ');

/** The checkpoint stays the one before the first change. */
const kept = (file: FileChange | undefined): Pick<FileChange, 'checkpoint' | 'written'> => ({
  ...(file?.checkpoint && { checkpoint: file.checkpoint }),
  ...(file?.written !== undefined && { written: file.written }),
});

/** Undefined if it is not text. */
const textDocument = (uri: vscode.Uri): Promise<vscode.TextDocument | undefined> =>
  Promise.resolve(vscode.workspace.openTextDocument(uri)).catch(() => undefined);

const keep = (): string => vscode.l10n.t('Keep Them');

/** @returns the pressed button; undefined: restore nothing. */
async function askToOverwrite(edited: readonly FileChange[]): Promise<string | undefined> {
  const detail = vscode.l10n.t(
    'These files were edited after Hearth wrote them:\n\n{0}\n\nOverwrite them with their earlier content, or restore only the others?',
    edited.map(({ uri }) => pathOf(uri)).join('\n'),
  );
  const message = vscode.l10n.t('Restore edited files?');
  return vscode.window.showWarningMessage(message, { modal: true, detail }, keep(), vscode.l10n.t('Overwrite'));
}
