/** Summaries of folders: a note on each file, then of the notes; in groups where they are too many for one prompt. */
import { type Summariser, type Summary, type SummaryRequest, summarise } from './summarise.ts';

export interface FolderFile {
  readonly path: string;
  readonly text: string;
  readonly languageId?: string | undefined;
}

export interface FolderRequest extends Pick<SummaryRequest, 'path' | 'maxTokens' | 'onText' | 'onProgress'> {
  readonly files: readonly FolderFile[];
  /** A summary of one file, of at most so many tokens; whoever keeps summaries may have it already. */
  readonly summariseFile: (file: FolderFile, maxTokens: number) => Promise<Summary>;
}

/** Of a note on a file: what it is for, in a few sentences. */
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

/** A long file's summary ends with an outline, which is not for here. */
const firstParagraph = (text: string): string =>
  (text.trim().split(/\n\s*\n/, 1)[0] ?? '').replaceAll(/\s*\n\s*/g, ' ');
