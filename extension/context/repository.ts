import type { RepositoryIndex } from '../repository/repositoryIndex.ts';

/** Of the workspace's index, what a question needs. */
export type Repository = Pick<RepositoryIndex, 'available' | 'searchByMeaning' | 'symbols' | 'outline' | 'map'>;
