/**
 * What a question about a folder is given along: a listing, and the parts of files that share words with it. No index and
 * no understanding: words are compared, and the note says so.
 */
import { execFile } from 'node:child_process';
import { open, readdir, stat } from 'node:fs/promises';
import { extname, join, relative, sep } from 'node:path';
import { promisify } from 'node:util';
import { notFound } from '../errors.ts';
import { limits } from '../limits.ts';

export interface WorkspaceContext {
  /** Goes before the question. */
  readonly text: string;
  /** Parts of these files are in it. */
  readonly files: readonly string[];
  /** For the user: what went in. */
  readonly note: string;
}

/** Source code has about three characters a token or more; half of the context stays for the question and the answer. */
const charsPerContextToken = 1.5;
const listingShare = 0.2;
const partLines = 40;

export async function workspaceContext(
  directory: string,
  question: string,
  contextTokens: number,
): Promise<WorkspaceContext> {
  const files = await sourceFiles(directory);
  const budgetChars = contextTokens * charsPerContextToken;
  const listing = listingOf(files, budgetChars * listingShare);
  const parts = await relevantParts(directory, files, wordsOf(question));
  const chosen: Part[] = [];
  let chars = listing.length;
  for (const part of parts) {
    if (chars + part.text.length > budgetChars) continue;
    chars += part.text.length;
    chosen.push(part);
  }
  const names = chosen.map(({ path, firstLine, lastLine }) => `${path}:${firstLine}-${lastLine}`);
  return {
    text: [`These files are in the folder:\n${listing}`, ...chosen.map(({ text }) => text)].join('\n\n'),
    files: chosen.map(({ path }) => path),
    note: `Of ${files.length} files, ${
      names.length === 0 ? 'only the names go' : `${names.join(', ')} go`
    } along, chosen by the words they share with the question.`,
  };
}

/** Paths relative to the folder, with `/`; what git ignores is left out where git is at hand. */
export async function sourceFiles(directory: string): Promise<string[]> {
  const found = await stat(directory).catch(() => undefined);
  if (!found?.isDirectory()) throw notFound(`There is no folder ${directory}.`);
  const paths = (await gitFiles(directory)) ?? (await walk(directory));
  return paths.slice(0, limits.cli.workspaceFiles).sort();
}

async function gitFiles(directory: string): Promise<string[] | undefined> {
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  try {
    const { stdout } = await promisify(execFile)('git', args, { cwd: directory, maxBuffer: 64 * 1024 * 1024 });
    const paths = stdout.split('\0').filter((path) => path !== '');
    return paths.length > 0 ? paths : undefined;
  } catch {
    // No git, or no repository: the folder is walked instead.
    return undefined;
  }
}

const skippedFolders = new Set(['node_modules', 'dist', 'build', 'out', 'target', 'vendor', '__pycache__']);

async function walk(directory: string): Promise<string[]> {
  const files: string[] = [];
  const folders = [directory];
  for (
    let folder = folders.pop();
    folder !== undefined && files.length < limits.cli.workspaceFiles;
    folder = folders.pop()
  ) {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (entry.name.startsWith('.')) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory() && !skippedFolders.has(entry.name)) folders.push(path);
      else if (entry.isFile()) files.push(relative(directory, path).split(sep).join('/'));
    }
  }
  return files;
}

/** Folder by folder, one line each, as many as fit. */
function listingOf(files: readonly string[], maxChars: number): string {
  const folders = new Map<string, string[]>();
  for (const path of files) {
    const slash = path.lastIndexOf('/') + 1;
    const names = folders.get(path.slice(0, slash)) ?? [];
    names.push(path.slice(slash));
    folders.set(path.slice(0, slash), names);
  }
  let listing = '';
  for (const [folder, names] of folders) {
    const line = `${folder === '' ? './' : folder} ${names.join(' ')}\n`;
    if (listing.length + line.length > maxChars) return `${listing}(more files are not listed)`;
    listing += line;
  }
  return listing.trimEnd();
}

interface Part {
  readonly path: string;
  readonly firstLine: number;
  readonly lastLine: number;
  readonly score: number;
  readonly text: string;
}

/** Parts that share words with the question, the most relevant first. */
async function relevantParts(directory: string, files: readonly string[], words: ReadonlySet<string>): Promise<Part[]> {
  if (words.size === 0) return [];
  const parts: Part[] = [];
  for (const path of files) {
    const text = await beginningOf(join(directory, path));
    const part = text === undefined ? undefined : bestPart(path, text, words);
    if (part) parts.push(part);
  }
  return parts.sort((a, b) => b.score - a.score || a.path.localeCompare(b.path)).slice(0, 12);
}

async function beginningOf(path: string): Promise<string | undefined> {
  const file = await open(path).catch(() => undefined);
  if (!file) return undefined;
  try {
    const buffer = Buffer.alloc(limits.cli.workspaceFileBytes);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    const bytes = buffer.subarray(0, bytesRead);
    return bytes.includes(0) ? undefined : bytes.toString('utf8');
  } catch {
    // A folder that git lists (a submodule), or a file that went away.
    return undefined;
  } finally {
    await file.close();
  }
}

/** The stretch of lines with the most different words of the question; a word in the path counts three times. */
function bestPart(path: string, text: string, words: ReadonlySet<string>): Part | undefined {
  const lines = text.split('\n');
  const pathScore = 3 * intersection(wordsOf(path), words);
  let best = { start: 0, score: 0 };
  for (let start = 0; start < lines.length; start += partLines / 2) {
    const score = intersection(wordsOf(lines.slice(start, start + partLines).join('\n')), words);
    if (score > best.score) best = { start, score };
  }
  if (pathScore + best.score === 0) return undefined;
  const content = lines.slice(best.start, best.start + partLines).join('\n');
  const [firstLine, lastLine] = [best.start + 1, Math.min(best.start + partLines, lines.length)];
  return {
    path,
    firstLine,
    lastLine,
    score: pathScore + best.score,
    text: `${path}, lines ${firstLine}–${lastLine}:\n\`\`\`${extname(path).slice(1)}\n${content}\n\`\`\``,
  };
}

/** Words of three letters or more, also those inside camelCase and snake_case, without the commonest of English. */
function wordsOf(text: string): Set<string> {
  const separated = text.replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
  return new Set((separated.match(/[\p{L}\p{N}]{3,}/gu) ?? []).filter((word) => !commonWords.has(word)));
}

const commonWords = new Set(
  'the and for are but not you all any can has had how its let may new now old our out see use was way who why what when where which with this that from have does into than then they will your'.split(
    ' ',
  ),
);

function intersection(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let size = 0;
  for (const word of b) if (a.has(word)) size++;
  return size;
}
