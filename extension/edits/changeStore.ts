/** Proposed changes and the checkpoints of their files, on disk before the first file is written. */
import { createHash } from 'node:crypto';
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import * as vscode from 'vscode';
import * as z from 'zod';
import { sentence } from '../client/failure.ts';
import { limits } from '../limits.ts';
import type { Log } from '../parts.ts';
import { exists } from './drafts.ts';
import { hunks } from './hunks.ts';
import { addEdits } from './proposals.ts';
import { isChangeable } from './target.ts';

/** A file before its first change. */
const checkpoint = z.object({
  /** The proposal before a part of it was written. */
  proposal: z.object({ base: z.string(), added: z.number(), removed: z.number() }),
  /** Base64 of the file; absent for one that did not exist. */
  bytes: z.string().optional(),
  /** Its text in the editor, if that was not saved. */
  unsaved: z.string().optional(),
  /** Permissions, where the file system has them. */
  mode: z.number().optional(),
});
type Checkpoint = z.infer<typeof checkpoint>;

const fileChange = z.object({
  id: z.string(),
  kind: z.enum(['change', 'create', 'delete', 'rename']),
  uri: z.string(),
  /** The new path of a renamed file. */
  to: z.string().optional(),
  /** The proposed text; absent if the content stays or the file is deleted. */
  text: z.string().optional(),
  /** Fingerprint of the content that the proposal was made for. */
  base: z.string(),
  added: z.number(),
  removed: z.number(),
  /** `writing`: being written, or the process ended while writing. */
  state: z.enum(['proposed', 'writing', 'accepted', 'rejected']),
  checkpoint: checkpoint.optional(),
  /** Fingerprint of the content that Hearth wrote. */
  written: z.string().optional(),
});
export type FileChange = z.infer<typeof fileChange>;

const changeSet = z.object({
  version: z.literal(1),
  /** The turn's id. */
  id: z.string(),
  title: z.string(),
  /** Milliseconds since 1970. */
  at: z.number(),
  files: z.array(fileChange),
});
export type ChangeSet = z.infer<typeof changeSet>;

/** Fingerprint of a file's bytes, or of an editor's unsaved text. '' means no file. */
export const fingerprintOf = (content: Uint8Array | { unsaved: string }): string => {
  const isText = 'unsaved' in content;
  const hash = createHash('sha256').update(isText ? content.unsaved : content);
  return `${isText ? 'unsaved ' : ''}${hash.digest('base64')}`;
};

/** Ids become part of a path. */
const validId = /^[\w-]{1,64}$/;

/** Stores one file for each set, in a folder of the workspace's storage. */
export class ChangeStore {
  readonly #folder: string;
  readonly #log: Log;

  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
  }

  async read(id: string): Promise<ChangeSet | undefined> {
    if (!validId.test(id)) return undefined;
    try {
      return changeSet.parse(JSON.parse(await readFile(this.#pathOf(id), 'utf8')));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      this.#log.warn(`The changes ${id} cannot be read: ${sentence(error)}`);
      return undefined;
    }
  }

  /** Resolves once the whole set is on disk. */
  async write(set: ChangeSet): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.#pathOf(set.id);
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(JSON.stringify(set));
      await file.sync();
    } finally {
      await file.close();
    }
    // Newer than all others, so that dates tell the oldest even if the clock was set back.
    const [last] = await this.#dated();
    const at = Math.max(Date.now(), (last?.at ?? 0) + 1);
    await utimes(`${path}.new`, at / 1000, at / 1000);
    await rename(`${path}.new`, path);
  }

  async remove(id: string): Promise<void> {
    if (validId.test(id)) await rm(this.#pathOf(id), { force: true });
  }

  /** Latest first. */
  async list(): Promise<ChangeSet[]> {
    const sets = await Promise.all((await this.#dated()).map(({ id }) => this.read(id)));
    return sets.filter((set) => set !== undefined);
  }

  /** Removes the oldest sets beyond the limit. */
  async prune(): Promise<void> {
    const old = (await this.#dated()).slice(limits.edits.sets);
    await Promise.all(old.map(({ id }) => this.remove(id)));
  }

  /** Latest first. */
  async #dated(): Promise<{ id: string; at: number }[]> {
    const names = await readdir(this.#folder).catch(() => []);
    const ids = names.flatMap((name) => (name.endsWith('.json') ? [name.slice(0, -'.json'.length)] : []));
    const dated = await Promise.all(
      ids.map(async (id) => ({ id, at: (await stat(this.#pathOf(id)).catch(() => undefined))?.mtimeMs ?? 0 })),
    );
    return dated.sort((a, b) => b.at - a.at);
  }

  #pathOf(id: string): string {
    return join(this.#folder, `${id}.json`);
  }
}

// The files of a change set on disk and in editors: checkpoint, write, restore.

const parsed = (uri: string): vscode.Uri => vscode.Uri.parse(uri, true);

const openDocument = (uri: vscode.Uri): vscode.TextDocument | undefined =>
  vscode.workspace.textDocuments.find((document) => document.uri.toString() === uri.toString());

/** Fingerprint of the unsaved text, otherwise of the file; '' if there is none. */
async function fingerprint(uri: vscode.Uri): Promise<string> {
  const document = openDocument(uri);
  if (document?.isDirty) return fingerprintOf({ unsaved: document.getText() });
  return (await exists(uri)) ? fingerprintOf(await vscode.workspace.fs.readFile(uri)) : '';
}

/** Fingerprint of the content that a change applies to: the editor's text if it replaces text, otherwise the file. */
export async function baseOf({ kind, uri, text }: Pick<FileChange, 'kind' | 'uri' | 'text'>): Promise<string> {
  if (kind === 'create') return '';
  if (text === undefined) return fingerprint(parsed(uri));
  return fingerprintOf({ unsaved: (await vscode.workspace.openTextDocument(parsed(uri))).getText() });
}

/** Why the change cannot be written now; undefined if it can. */
export async function obstacle(file: FileChange): Promise<string | undefined> {
  const [uri, to] = [parsed(file.uri), file.to === undefined ? undefined : parsed(file.to)];
  const name = vscode.workspace.asRelativePath(uri);
  for (const place of [uri, ...(to ? [to] : [])]) {
    if (!(await isChangeable(place)))
      return vscode.l10n.t('{0} is not inside the workspace.', vscode.workspace.asRelativePath(place));
  }
  const created = file.kind === 'create' ? uri : to;
  if (created && (await exists(created)))
    return vscode.l10n.t('{0} already exists.', vscode.workspace.asRelativePath(created));
  if (file.kind === 'create') return undefined;
  if (!(await exists(uri))) return vscode.l10n.t('{0} no longer exists.', name);
  if ((await baseOf(file)) !== file.base) return vscode.l10n.t('{0} has changed since this proposal.', name);
  return file.kind !== 'change' && openDocument(uri)?.isDirty
    ? vscode.l10n.t('{0} has unsaved changes.', name)
    : undefined;
}

/** The current file, and its proposal. */
export async function checkpointOf({ kind, uri, base, added, removed }: FileChange): Promise<Checkpoint> {
  const proposal = { base, added, removed };
  if (kind === 'create') return { proposal };
  const place = parsed(uri);
  const document = openDocument(place);
  const mode = place.scheme === 'file' ? (await stat(place.fsPath)).mode & 0o777 : undefined;
  return {
    proposal,
    bytes: Buffer.from(await vscode.workspace.fs.readFile(place)).toString('base64'),
    ...(document?.isDirty && { unsaved: document.getText() }),
    ...(mode !== undefined && { mode }),
  };
}

/**
 * Edits texts, then creates, deletes and renames files. A document that was saved before is saved after. A change's `text` is
 * written; it may be a part of the proposal.
 */
export async function writeFiles(files: readonly FileChange[]): Promise<void> {
  const texts = new vscode.WorkspaceEdit();
  const saved: vscode.TextDocument[] = [];
  for (const { kind, uri, text } of files) {
    if (kind === 'create' || text === undefined) continue;
    const document = await vscode.workspace.openTextDocument(parsed(uri));
    if (!document.isDirty) saved.push(document);
    addEdits(texts, document, hunks(document.getText(), text));
  }
  await applied(texts);
  for (const document of saved) await save(document);
  for (const file of files) await operate(file);
}

/** Uses the file system: a workspace edit would let language servers edit other files, which have no checkpoint. */
async function operate({ kind, uri, to, text = '' }: FileChange): Promise<void> {
  const { fs } = vscode.workspace;
  if (kind === 'create') await fs.writeFile(parsed(uri), new TextEncoder().encode(text));
  else if (kind === 'delete') await fs.delete(parsed(uri));
  else if (to !== undefined) {
    await fs.createDirectory(vscode.Uri.joinPath(parsed(to), '..'));
    await fs.rename(parsed(uri), parsed(to), { overwrite: false });
  }
}

async function applied(edit: vscode.WorkspaceEdit): Promise<void> {
  if (edit.size > 0 && !(await vscode.workspace.applyEdit(edit)))
    throw new Error(vscode.l10n.t('VS Code could not change the files.'));
}

async function save(document: vscode.TextDocument): Promise<void> {
  if (document.isDirty && !(await document.save()))
    throw new Error(vscode.l10n.t('{0} could not be saved.', vscode.workspace.asRelativePath(document.uri)));
}

/** Fingerprint of a change's result: the new file, the renamed one, or nothing. */
export const leftBy = ({ kind, uri, to }: FileChange): Promise<string> =>
  kind === 'delete' ? Promise.resolve('') : fingerprint(parsed(to ?? uri));

/** Whether a file is as before its change, as written by the change, or edited since. */
export async function stateSince(file: FileChange): Promise<'before' | 'written' | 'edited'> {
  const { kind, uri, to, checkpoint, written, text } = file;
  const [source, target] = [parsed(uri), to === undefined ? undefined : parsed(to)];
  const now = await fingerprint(source);
  const isFree = target === undefined || !(await exists(target));
  if (now === before(checkpoint ?? {}) && isFree) return 'before';
  if (target !== undefined && now !== '') return 'edited';
  if (written !== undefined)
    return (await leftBy(file)) === written && (kind !== 'delete' || now === '') ? 'written' : 'edited';
  // The process ended while writing: only the text is known, not the bytes.
  const document = kind === 'delete' ? undefined : await vscode.workspace.openTextDocument(target ?? source);
  return document === undefined || text === undefined || document.getText() === text ? 'written' : 'edited';
}

function before({ bytes, unsaved }: Partial<Checkpoint>): string {
  if (unsaved !== undefined) return fingerprintOf({ unsaved });
  return bytes === undefined ? '' : fingerprintOf(Buffer.from(bytes, 'base64'));
}

/** Restores a file to its state before the change, whatever it is now. */
export async function restoreFile({ kind, uri, to, checkpoint }: FileChange): Promise<void> {
  if (checkpoint === undefined) return;
  const { fs } = vscode.workspace;
  const place = parsed(uri);
  if (kind === 'create' && (await exists(place))) await fs.delete(place);
  if (to !== undefined && (await exists(parsed(to)))) await fs.rename(parsed(to), place, { overwrite: true });
  const { bytes, unsaved, mode } = checkpoint;
  if (bytes === undefined) return;
  const contents = Buffer.from(bytes, 'base64');
  await rewritten(place, unsaved ?? new TextDecoder().decode(contents), unsaved === undefined);
  if (unsaved !== undefined) return;
  const isSame = (await exists(place)) && contents.equals(Buffer.from(await fs.readFile(place)));
  if (!isSame) await fs.writeFile(place, contents);
  if (mode !== undefined) await chmod(place.fsPath, mode);
}

/** Replaces the text of an editor with unsaved changes; other editors follow the file. */
async function rewritten(uri: vscode.Uri, text: string, isSaved: boolean): Promise<void> {
  const document = isSaved ? openDocument(uri) : await vscode.workspace.openTextDocument(uri);
  if (document === undefined || (isSaved && !document.isDirty)) return;
  const edit = new vscode.WorkspaceEdit();
  addEdits(edit, document, hunks(document.getText(), text));
  await applied(edit);
  if (isSaved) await save(document);
}

/** Waits until VS Code has reloaded an open file after it was written. */
export async function untilRead(file: FileChange): Promise<void> {
  for (let waited = 0; waited < readMs && (await baseOf(file)) !== file.base; waited += stepMs)
    await new Promise((resolve) => setTimeout(resolve, stepMs));
}

const readMs = 2_000;
const stepMs = 50;
