/** The agent's tools. Reading needs no permission; edits are proposals; everything that runs something asks the user first. */
import * as vscode from 'vscode';
import * as z from 'zod';
import type { Tool } from '../../engine/protocol/engineProtocol.ts';
import type { Repository } from '../context/gather.ts';
import { problemLine } from '../context/sources.ts';
import { filesIn, uriOf } from '../context/workspace.ts';
import type { ChangeSets } from '../edits/changeSets.ts';
import { createdUri, type Draft } from '../edits/drafts.ts';
import { isChangeable } from '../edits/target.ts';
import { limits } from '../limits.ts';
import { flawOf, runInTerminal } from '../terminal.ts';

/** The context in which the tools of one answer run. */
export interface Workplace {
  readonly turn: string;
  /** Title of the proposed changes. */
  readonly title: string;
  readonly changes: Pick<ChangeSets, 'propose' | 'proposed'>;
  readonly repository: Pick<Repository, 'searchByMeaning'>;
  /** Limit of one result. */
  readonly resultChars: number;
  readonly token: vscode.CancellationToken;
}

/** A validated call. */
export interface Prepared {
  /** Shown in the list of steps. */
  readonly title: string;
  /** All that the user must read before allowing it; absent: it needs no permission. */
  readonly asks?: { readonly text: string; readonly key: string };
  run(): Promise<string>;
}

interface AgentTool {
  readonly offer: Tool;
  /** @throws Error for invalid arguments. */
  prepare(input: unknown, at: Workplace): Prepared;
}

function tool<Shape extends z.ZodObject>(
  name: string,
  description: string,
  shape: Shape,
  prepare: (input: z.infer<Shape>, at: Workplace) => Prepared,
): AgentTool {
  const { $schema: _, ...parameters } = z.toJSONSchema(shape, { io: 'input' });
  const closed = { ...parameters, additionalProperties: false };
  return { offer: { name, description, parameters: closed }, prepare: (input, at) => prepare(shape.parse(input), at) };
}

const path = z.string().describe('Path in the workspace, with slashes.');
const line = z.number().int().min(1);

export const agentTools: readonly AgentTool[] = [
  tool(
    'read_file',
    'Reads a file, or some of its lines.',
    z.object({ path, firstLine: line.optional(), lastLine: line.optional() }),
    ({ path: file, firstLine = 1, lastLine = Number.MAX_SAFE_INTEGER }, at) => ({
      title: vscode.l10n.t('Read {0}', file),
      run: () => readLines(file, firstLine, lastLine, at),
    }),
  ),
  tool(
    'search',
    'Searches the workspace for code about a question or a name.',
    z.object({ query: z.string() }),
    ({ query }, { repository, token }) => ({
      title: vscode.l10n.t('Searched for {0}', query),
      run: async () => {
        const found = await repository.searchByMeaning(query, limits.agent.chunks, token);
        return found.map((part) => `${part.path}:${part.firstLine}\n${part.text}`).join('\n\n') || 'Nothing was found.';
      },
    }),
  ),
  tool(
    'find_text',
    'Finds the lines of all files that contain a text, whatever its case.',
    z.object({ text: z.string().min(1), folder: z.string().optional() }),
    ({ text, folder = '' }, at) => ({
      title: vscode.l10n.t('Searched for {0}', text),
      run: () => findText(text, folder, at),
    }),
  ),
  tool(
    'list_files',
    "Lists the files below a folder; '' is the workspace.",
    z.object({ folder: z.string() }),
    ({ folder }) => ({
      title: vscode.l10n.t('Listed {0}', folder === '' ? vscode.l10n.t('the workspace') : folder),
      run: async () => {
        const paths = (await filesIn(folder)).map((uri) => vscode.workspace.asRelativePath(uri)).sort();
        const rest = paths.length - limits.agent.listed;
        return `${paths.slice(0, limits.agent.listed).join('\n')}${rest > 0 ? `\n(${rest} more)` : ''}` || 'No files.';
      },
    }),
  ),
  tool(
    'diagnostics',
    'Errors and warnings of a file, or of all.',
    z.object({ path: path.optional() }),
    ({ path: file }) => ({
      title: vscode.l10n.t('Looked at the problems'),
      run: async () => {
        const all = vscode.languages.getDiagnostics();
        const lines = all.flatMap(([uri, found]) => {
          const name = vscode.workspace.asRelativePath(uri);
          return file === undefined || name === file ? found.map((problem) => problemLine(name, problem)) : [];
        });
        return lines.slice(0, limits.context.problems).join('\n') || 'None are known.';
      },
    }),
  ),
  tool(
    'edit_file',
    'Proposes a change of a file to the user: replaces oldText, which must be in it exactly once.',
    z.object({ path, oldText: z.string().min(1), newText: z.string() }),
    ({ path: file, oldText, newText }, at) => ({
      title: vscode.l10n.t('Proposed a change to {0}', file),
      run: async () => {
        const known = await source(file, at);
        return propose(at, { ...known.draft, text: replaced(known.text, oldText, newText) });
      },
    }),
  ),
  tool(
    'create_file',
    'Proposes a new file to the user.',
    z.object({ path, text: z.string() }),
    ({ path: file, text }, at) => ({
      title: vscode.l10n.t('Proposed the new file {0}', file),
      run: async () => {
        const uri = await createdUri(file);
        if (uri === undefined) throw new Error(`${file} already exists or is not inside the workspace.`);
        return propose(at, { kind: 'create', uri, text });
      },
    }),
  ),
  tool('delete_file', 'Proposes to the user to delete a file.', z.object({ path }), ({ path: file }, at) => ({
    title: vscode.l10n.t('Proposed to delete {0}', file),
    run: async () => propose(at, { kind: 'delete', uri: await inside(file) }),
  })),
  tool(
    'rename_file',
    'Proposes to the user to rename or move a file.',
    z.object({ path, to: path }),
    ({ path: file, to: target }, at) => ({
      title: vscode.l10n.t('Proposed to rename {0}', file),
      run: async () => {
        const to = await createdUri(target);
        if (to === undefined) throw new Error(`${target} already exists or is not inside the workspace.`);
        const known = at.changes.proposed(at.turn, await inside(file))?.text;
        return propose(at, {
          kind: 'rename',
          uri: await inside(file),
          to,
          ...(known !== undefined && { text: known }),
        });
      },
    }),
  ),
  tool(
    'run_command',
    'Runs a command of one line in a terminal in the workspace, if the user allows it. Proposed changes are not written yet.',
    z.object({ command: z.string() }),
    ({ command }, { token }) => {
      const flaw = flawOf(command);
      if (flaw !== undefined) throw new Error(flaw);
      const cwd = vscode.workspace.workspaceFolders?.[0]?.uri;
      return {
        title: vscode.l10n.t('Run a command'),
        asks: { text: command, key: `run ${command}` },
        run: () => runInTerminal(command, cwd, token),
      };
    },
  ),
];

async function propose(at: Workplace, draft: Draft): Promise<string> {
  await at.changes.propose(at.turn, at.title, [draft]);
  return 'Proposed. The user sees it and decides; the file is not written yet.';
}

/** @throws Error unless the path is inside the workspace after following links, and not in Git's folder. */
async function inside(file: string): Promise<vscode.Uri> {
  const uri = await uriOf(file);
  if (uri === undefined || !(await isChangeable(uri))) throw new Error(`There is no file '${file}' in the workspace.`);
  return uri;
}

/** A file with the changes proposed so far. */
async function source(file: string, { turn, changes }: Workplace): Promise<{ draft: Draft; text: string }> {
  const created = await createdUri(file);
  const draft = created && changes.proposed(turn, created);
  if (draft?.kind === 'create') return { draft, text: draft.text ?? '' };
  const uri = await inside(file);
  const known = changes.proposed(turn, uri);
  if (known?.kind === 'delete') throw new Error(`You proposed to delete ${file}.`);
  const text = known?.text ?? (await vscode.workspace.openTextDocument(uri)).getText();
  return { draft: known ?? { kind: 'change', uri }, text };
}

function replaced(text: string, before: string, after: string): string {
  const eol = text.includes('\r\n') ? '\r\n' : '\n';
  const own = (part: string) => part.replaceAll(/\r?\n/g, eol);
  const [first, ...rest] = text.split(own(before));
  if (first === undefined || rest.length !== 1)
    throw new Error(`oldText is in the file ${rest.length} times. Give it as it stands, with enough lines around it.`);
  return `${first}${own(after)}${rest[0] ?? ''}`;
}

async function readLines(file: string, first: number, last: number, at: Workplace): Promise<string> {
  const lines = (await source(file, at)).text.split(/\r?\n/);
  const end = Math.min(last, lines.length);
  const text = lines.slice(first - 1, end).join('\n');
  return `${file}, lines ${first} to ${end} of ${lines.length}:\n${text}`;
}

async function findText(text: string, folder: string, { token }: Workplace): Promise<string> {
  const wanted = text.toLowerCase();
  const found: string[] = [];
  for (const uri of (await filesIn(folder)).slice(0, limits.agent.searchedFiles)) {
    if (found.length >= limits.agent.lines || token.isCancellationRequested) break;
    if (!(await isChangeable(uri))) continue;
    const { size } = await vscode.workspace.fs.stat(uri);
    if (size > limits.agent.searchedBytes) continue;
    const content = new TextDecoder().decode(await vscode.workspace.fs.readFile(uri));
    if (content.includes('\0') || !content.toLowerCase().includes(wanted)) continue;
    const name = vscode.workspace.asRelativePath(uri);
    content.split(/\r?\n/).forEach((row, index) => {
      if (row.toLowerCase().includes(wanted)) found.push(`${name}:${index + 1}: ${row.trim().slice(0, 300)}`);
    });
  }
  return found.slice(0, limits.agent.lines).join('\n') || 'Nothing was found.';
}
