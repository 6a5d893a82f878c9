/** Summarises folders: a note on each file, then a summary of the notes, in groups if one prompt can't hold all notes. */
import { type Summariser, type Summary, type SummaryRequest, summarise } from './summarise.ts';

export interface FolderFile {
  readonly path: string;
  readonly text: string;
  readonly languageId?: string | undefined;
}

export interface FolderRequest extends Pick<SummaryRequest, 'path' | 'maxTokens' | 'onText' | 'onProgress'> {
  readonly files: readonly FolderFile[];
  /** Summarises one file in at most this many tokens; it may come from the cache. */
  readonly summariseFile: (file: FolderFile, maxTokens: number) => Promise<Summary>;
}

/** A note on a file is a few sentences long. */
const noteTokens = 120;

export async function summariseFolder(summariser: Summariser, request: FolderRequest): Promise<Summary> {
  const { path, files, maxTokens, onText, onProgress } = request;
  const notes: string[] = [];
  for (const [done, file] of files.entries()) {
    onProgress({ message: file.path, done, total: files.length + 1 });
    const { text } = await request.summariseFile(file, noteTokens);
    notes.push(`\`${file.path}:1\`: ${firstParagraph(text)}`);
  }
  const overview = await summarise(summariser, {
    path,
    text: notes.join('\n\n'),
    scope: 'folder',
    symbols: [],
    maxTokens,
    onText,
    onProgress: ({ message }) => onProgress({ message, done: files.length, total: files.length + 1 }),
  });
  const outline = `\n\n${notes.map((note) => `- ${note}`).join('\n')}`;
  onText(outline);
  return { ...overview, text: overview.text + outline, parts: files.length };
}

/** Removes the outline at the end of a long file's summary. */
const firstParagraph = (text: string): string =>
  (text.trim().split(/\n\s*\n/, 1)[0] ?? '').replaceAll(/\s*\n\s*/g, ' ');
