/** The index of a workspace: kept up to date, asked for chunks, symbols and a map. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { openDatabase } from './database.ts';
import { Indexer } from './indexer.ts';
import { type MapRequest, type RepositoryMap, repositoryMap } from './map.ts';
import { Names, type Reference, type SymbolPlace } from './names.ts';
import { type Folder, Roots } from './roots.ts';
import { ChunkSearch, type Hit } from './search.ts';
import type { IndexState } from './state.ts';

export interface RepositoryOptions {
  /** The database's file. */
  readonly database: string;
  readonly folders: readonly Folder[];
  /** Globs as in VS Code's `files.exclude`. */
  readonly excludes?: readonly string[];
  readonly onState?: (state: IndexState) => void;
}

/** A hit with its lines as they are on disk now. */
export interface Passage extends Hit {
  readonly text: string;
}

export class Repository {
  readonly indexer: Indexer;
  readonly #database: DatabaseSync;
  readonly #roots: Roots;
  readonly #search: ChunkSearch;
  readonly #names: Names;

  /** @throws HearthError `unsupported` where Node.js has no SQLite. */
  static async open(options: RepositoryOptions): Promise<Repository> {
    return new Repository(await openDatabase(options.database), options);
  }

  private constructor(database: DatabaseSync, { folders, excludes = [], onState = () => {} }: RepositoryOptions) {
    this.#database = database;
    this.#roots = new Roots(folders, excludes);
    this.indexer = new Indexer(database, this.#roots, onState);
    this.#search = new ChunkSearch(database);
    this.#names = new Names(database, (path) => this.#read(path));
  }

  /** The best first; at most two of one file. What is gone from disk is left out. */
  search(question: string, limit: number): Passage[] {
    return this.#search.search(question, limit).flatMap((hit) => {
      const lines = this.#read(hit.path)
        ?.split('\n')
        .slice(hit.firstLine - 1, hit.lastLine);
      return lines === undefined || lines.length === 0 ? [] : [{ ...hit, text: lines.join('\n') }];
    });
  }

  symbols(text: string, limit: number): SymbolPlace[] {
    return this.#names.symbols(text, limit);
  }

  definitions(name: string, limit: number): SymbolPlace[] {
    return this.#names.definitions(name, limit);
  }

  outline(path: string): SymbolPlace[] {
    return this.#names.outline(path);
  }

  references(name: string, limit: number): Promise<Reference[]> {
    return this.#names.references(name, limit);
  }

  map(request: MapRequest): RepositoryMap {
    return repositoryMap(this.#database, this.#names, request);
  }

  async close(): Promise<void> {
    await this.indexer.close();
    this.#database.close();
  }

  #read(path: string): string | undefined {
    const place = this.#roots.locate(path);
    if (!place) return undefined;
    try {
      return readFileSync(join(place.root.directory, place.inside), 'utf8');
    } catch {
      // Deleted since; the indexer will hear of it.
      return undefined;
    }
  }
}
