/** Files read at random, of which a bounded number is open at once. */
import { type FileHandle, open } from 'node:fs/promises';

interface OpenFile {
  readonly handle: Promise<FileHandle>;
  users: number;
}

export class FilePool {
  readonly #maxOpen: number;
  /** By path, least recently used first. */
  readonly #files = new Map<string, OpenFile>();
  /** Uses in progress are fewer than or as many as files may be open, so there is always an idle one to close. */
  #uses = 0;
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  constructor(maxOpen: number) {
    this.#maxOpen = maxOpen;
  }

  /** Runs `work` with `path` open; waits while `maxOpen` others are in use. */
  async use<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
    if (this.#uses >= this.#maxOpen) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#uses++;
    try {
      return await this.#useOpen(path, work);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#uses--;
      else next();
    }
  }

  /** Uses in progress end first or fail; waiting and later ones fail. */
  async close(): Promise<void> {
    this.#closed = true;
    const files = [...this.#files.values()];
    this.#files.clear();
    await Promise.all(files.map(closeFile));
  }

  async #useOpen<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
    if (this.#closed) throw new Error('the file was closed');
    const file = this.#files.get(path) ?? { handle: this.#closeOneIdle().then(() => open(path, 'r')), users: 0 };
    this.#files.delete(path);
    this.#files.set(path, file);
    file.users++;
    try {
      return await work(await this.#opened(path, file));
    } finally {
      file.users--;
    }
  }

  async #opened(path: string, file: OpenFile): Promise<FileHandle> {
    try {
      return await file.handle;
    } catch (error) {
      // So that the next use tries again.
      if (this.#files.get(path) === file) this.#files.delete(path);
      throw error;
    }
  }

  async #closeOneIdle(): Promise<void> {
    if (this.#files.size < this.#maxOpen) return;
    for (const [path, file] of this.#files) {
      if (file.users > 0) continue;
      this.#files.delete(path);
      await closeFile(file);
      return;
    }
  }
}

/** A handle that was never opened, or is read no more, has nothing to lose. */
async function closeFile({ handle }: OpenFile): Promise<void> {
  await handle.then((opened) => opened.close()).catch(() => undefined);
}
