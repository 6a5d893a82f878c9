/** Summarises files: in one pass if the file fits the context, else part by part, then a summary of the parts. */
import { cancelled, HearthError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { ChatMessage } from '../prompt/conversation.ts';
import type { FinishReason, Statistics, SummariseParams, SummariseResult } from '../protocol/engineProtocol.ts';
import { type Section, type SymbolRange, sectionsOf } from './sections.ts';

export interface SummaryRequest {
  readonly path: string;
  readonly text: string;
  readonly languageId?: string | undefined;
  /** `folder`: the text consists of notes on its files, without line numbers. */
  readonly scope?: 'file' | 'folder';
  readonly symbols: readonly SymbolRange[];
  /** Length limit of the final summary. */
  readonly maxTokens: number;
  /** Called with each piece of the final summary. */
  readonly onText: (text: string) => void;
  readonly onProgress: (progress: { readonly message: string; readonly done: number; readonly total: number }) => void;
}

/** The model functions that a summary needs. */
export interface Summariser {
  readonly contextTokens: number;
  /** Tokens of a text, and of a whole prompt. */
  readonly countTokens: (text: string) => number;
  readonly countPrompt: (messages: readonly ChatMessage[]) => number;
  readonly ask: (
    messages: readonly ChatMessage[],
    maxTokens: number,
    onText: (text: string) => void,
  ) => Promise<{ text: string; finish: FinishReason; statistics: Statistics }>;
}

/** A note on a range of lines. */
interface Note {
  readonly startLine: number;
  readonly endLine: number;
  readonly names: readonly string[];
  readonly text: string;
}

/** Length of a note: a few sentences. */
const noteTokens = 160;

/** @throws HearthError `context-overflow` if the context is too short or the file too long; `cancelled`. */
export async function summarise(summariser: Summariser, request: SummaryRequest): Promise<SummariseResult> {
  return new SummaryRun(summariser, request).run();
}

class SummaryRun {
  readonly #summariser: Summariser;
  readonly #request: SummaryRequest;
  readonly #statistics: Statistics[] = [];

  constructor(summariser: Summariser, request: SummaryRequest) {
    this.#summariser = summariser;
    this.#request = request;
  }

  async run(): Promise<SummariseResult> {
    const { text, path, maxTokens } = this.#request;
    const whole = wholeFilePrompt(this.#request, text);
    if (this.#promptFits(text, whole, maxTokens)) {
      const { finish, text: summary } = await this.#ask(whole, maxTokens, this.#request.onText);
      return { text: summary + this.#outline(this.#symbolItems()), finish, parts: 1, statistics: this.#total() };
    }
    const sections = this.#sections();
    const notes: Note[] = [];
    for (const section of sections) {
      this.#progress(`${path}, ${linesOf(section)}`, notes.length, sections.length + 1);
      notes.push(await this.#note(partPrompt(this.#request, section), section));
    }
    const overview = await this.#overview(notes);
    return {
      text: overview.text + this.#outline(this.#request.scope === 'folder' ? [] : notes.map(outlineItem)),
      finish: overview.finish,
      parts: sections.length,
      statistics: this.#total(),
    };
  }

  /** The outline after the summary's text; also streamed. */
  #outline(items: readonly string[]): string {
    if (items.length === 0) return '';
    const outline = `\n\n${items.join('\n')}`;
    this.#request.onText(outline);
    return outline;
  }

  /** Lists the parts of a file that was summarised in one pass. A single part needs no list. */
  #symbolItems(): string[] {
    const { symbols } = this.#request;
    if (symbols.length < 2) return [];
    const sorted = symbols.toSorted((a, b) => a.startLine - b.startLine);
    const shown = sorted.slice(0, shownSymbols).map(({ name, startLine, endLine }) => {
      const lines = capitalised(linesOf({ startLine: startLine + 1, endLine: endLine + 1 }));
      return `- **${lines}**: \`${name.slice(0, 80)}\``;
    });
    return sorted.length > shownSymbols ? [...shown, `- and ${sorted.length - shownSymbols} more`] : shown;
  }

  /** Doesn't count the whole prompt if the text alone is too long. */
  #promptFits(text: string, prompt: readonly ChatMessage[], answerTokens: number): boolean {
    const { contextTokens, countPrompt } = this.#summariser;
    if (text.length > contextTokens * limits.generation.charsPerToken) return false;
    return countPrompt(prompt) + answerTokens <= contextTokens;
  }

  #sections(): Section[] {
    const { text, symbols, path } = this.#request;
    const framing = this.#summariser.countPrompt(partPrompt(this.#request, longestLabel(text, symbols)));
    const spareTokens = this.#summariser.contextTokens - framing - this.#noteTokens();
    const partTokens = Math.min(spareTokens, limits.generation.summaryPartTokens);
    if (partTokens < noteTokens) {
      throw new HearthError(
        'context-overflow',
        `A context of ${this.#summariser.contextTokens} tokens is too short for a summary. Load the model with a longer one.`,
      );
    }
    const sections = sectionsOf(text, symbols, this.#summariser.countTokens, partTokens);
    if (sections.length <= limits.generation.summaryParts) return sections;
    throw new HearthError(
      'context-overflow',
      `${path} is too long: it would take ${sections.length} parts, and the limit is ${limits.generation.summaryParts}. Summarise a part of it.`,
    );
  }

  /** A sixth of the context, so that one prompt holds several notes. */
  #noteTokens(): number {
    return Math.min(noteTokens, Math.floor(this.#summariser.contextTokens / 6));
  }

  async #note(prompt: readonly ChatMessage[], lines: Omit<Note, 'text'>): Promise<Note> {
    const { text } = await this.#ask(prompt, this.#noteTokens(), () => {});
    const { startLine, endLine, names } = lines;
    const oneLine = text.trim().replaceAll(/\s*\n\s*/g, ' ');
    return { startLine, endLine, names, text: this.#shortened(oneLine, this.#noteTokens()) };
  }

  /** Re-encoding generated text may take more tokens, because of broken characters and unusual spacing. */
  #shortened(text: string, maxTokens: number): string {
    if (this.#summariser.countTokens(text) <= maxTokens) return text;
    return this.#shortened(text.slice(0, Math.floor(text.length * 0.7)), maxTokens);
  }

  /** Summarises the notes, in groups first if they are too long together. */
  async #overview(notes: readonly Note[]): Promise<{ text: string; finish: FinishReason }> {
    const { maxTokens, onText } = this.#request;
    let current = notes;
    for (let round = 0; round < limits.generation.summaryRounds; round++) {
      const prompt = notesPrompt(this.#request, current, 'whole');
      const answerTokens = Math.min(maxTokens, Math.floor(this.#summariser.contextTokens / 4));
      if (this.#summariser.countPrompt(prompt) + answerTokens <= this.#summariser.contextTokens) {
        this.#progress(`${this.#request.path}, all of it`, notes.length, notes.length + 1);
        return this.#ask(prompt, answerTokens, onText);
      }
      current = await this.#merged(current);
    }
    throw new Error(`The notes on ${this.#request.path} do not become shorter.`);
  }

  async #merged(notes: readonly Note[]): Promise<Note[]> {
    const merged: Note[] = [];
    let group: Note[] = [];
    const flush = async (): Promise<void> => {
      const [first, ...others] = group;
      group = [];
      if (!first) return;
      const lines = { ...first, endLine: others.at(-1)?.endLine ?? first.endLine, names: [] };
      this.#progress(`${this.#request.path}, ${linesOf(lines)}`, notes.length, notes.length + 1);
      merged.push(await this.#note(notesPrompt(this.#request, [first, ...others], 'part'), lines));
    };
    for (const note of notes) {
      const prompt = notesPrompt(this.#request, [...group, note], 'part');
      const tokens = this.#summariser.countPrompt(prompt) + this.#noteTokens();
      if (group.length > 1 && tokens > this.#summariser.contextTokens) await flush();
      group.push(note);
    }
    await flush();
    return merged;
  }

  async #ask(
    prompt: readonly ChatMessage[],
    maxTokens: number,
    onText: (text: string) => void,
  ): Promise<{ text: string; finish: FinishReason }> {
    const { text, finish, statistics } = await this.#summariser.ask(prompt, maxTokens, onText);
    this.#statistics.push(statistics);
    if (finish === 'cancelled') throw cancelled();
    return { text, finish };
  }

  #progress(message: string, done: number, total: number): void {
    this.#request.onProgress({ message, done, total });
  }

  #total(): Statistics {
    const sum = (of: (statistics: Statistics) => number): number =>
      this.#statistics.reduce((total, statistics) => total + of(statistics), 0);
    const generatedTokens = sum((statistics) => statistics.generatedTokens);
    const seconds = sum(({ generatedTokens: tokens, tokensPerSecond }) =>
      tokensPerSecond > 0 ? tokens / tokensPerSecond : 0,
    );
    return {
      promptTokens: sum((statistics) => statistics.promptTokens),
      cachedTokens: sum((statistics) => statistics.cachedTokens),
      generatedTokens,
      timeToFirstTokenMs: this.#statistics[0]?.timeToFirstTokenMs ?? 0,
      tokensPerSecond: seconds > 0 ? generatedTokens / seconds : 0,
    };
  }
}

const linesOf = ({ startLine, endLine }: Pick<Note, 'startLine' | 'endLine'>): string =>
  startLine === endLine ? `line ${startLine}` : `lines ${startLine}–${endLine}`;

/** Names of a part that are shown: a part of a generated file may have thousands. */
const shownNames = 8;
/** Limit for a whole file: an outline should fit on a screen. */
const shownSymbols = 40;

const capitalised = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

function label(lines: Pick<Note, 'startLine' | 'endLine' | 'names'>): string {
  const shown = lines.names.slice(0, shownNames).map((name) => `\`${name.slice(0, 80)}\``);
  const rest = lines.names.length > shownNames ? [`and ${lines.names.length - shownNames} more`] : [];
  const names = [...shown, ...rest].join(', ');
  return names === '' ? linesOf(lines) : `${linesOf(lines)} (${names})`;
}

function outlineItem(note: Note): string {
  return `- **${capitalised(label(note))}**: ${note.text}`;
}

/** A section without text whose label is as long as any can be. */
function longestLabel(text: string, symbols: readonly SymbolRange[]): Section {
  const lines = text.split('\n').length;
  const longest = symbols.map(({ name }) => name).sort((a, b) => b.length - a.length);
  const names = longest.length > shownNames ? [...longest.slice(0, shownNames), ...longest] : longest;
  return { startLine: lines, endLine: lines + 1, names, text: '' };
}

const ask = (content: string): ChatMessage[] => [{ role: 'user', content }];
const fenced = (languageId: string | undefined, text: string): string => `\`\`\`${languageId ?? ''}\n${text}\n\`\`\``;

// The text comes before the question, because small models follow the end of a prompt best.

function wholeFilePrompt({ path, languageId, scope }: SummaryRequest, text: string): ChatMessage[] {
  const aim = 'what it is for, its main parts and how they work together. Be brief and name';
  if (scope === 'folder') {
    return ask(
      `These are notes on the files of the folder ${path}:\n\n${text}\n\nSummarise the folder for a programmer: ${aim} the files that matter.`,
    );
  }
  return ask(
    `This is the file ${path}:\n\n${fenced(languageId, text)}\n\nSummarise it for a programmer: ${aim} the functions and types that matter.`,
  );
}

function partPrompt({ path, languageId, scope }: SummaryRequest, section: Section): ChatMessage[] {
  if (scope === 'folder') {
    return ask(
      `These are notes on some files of the folder ${path}:\n\n${section.text}\n\nSay in at most three sentences what these files are for. Name those that matter.`,
    );
  }
  return ask(
    `These are ${label(section)} of the file ${path}:\n\n${fenced(languageId, section.text)}\n\nSay in at most three sentences what these lines do. Name the functions and types that matter.`,
  );
}

function notesPrompt(
  { path, scope: kind = 'file' }: SummaryRequest,
  notes: readonly Note[],
  scope: 'whole' | 'part',
): ChatMessage[] {
  const list = notes.map(outlineItem).join('\n');
  const question =
    scope === 'whole'
      ? `Summarise the whole ${kind} for a programmer: what it is for, its main parts and how they work together. Be brief.`
      : 'Say in at most three sentences what these lines do together.';
  return ask(`These are notes on consecutive parts of the ${kind} ${path}:\n\n${list}\n\n${question}`);
}

// Summarises folders: a note on each file, then a summary of the notes, in groups if one prompt can't hold all notes.

export type FolderFile = NonNullable<SummariseParams['files']>[number];

interface FolderRequest extends Pick<SummaryRequest, 'path' | 'maxTokens' | 'onText' | 'onProgress'> {
  readonly files: readonly FolderFile[];
  /** Summarises one file in at most this many tokens; it may come from the cache. */
  readonly summariseFile: (file: FolderFile, maxTokens: number) => Promise<SummariseResult>;
}

/** A note on a file is a few sentences long. */
const fileNoteTokens = 120;

export async function summariseFolder(summariser: Summariser, request: FolderRequest): Promise<SummariseResult> {
  const { path, files, maxTokens, onText, onProgress } = request;
  const notes: string[] = [];
  for (const [done, file] of files.entries()) {
    onProgress({ message: file.path, done, total: files.length + 1 });
    const { text } = await request.summariseFile(file, fileNoteTokens);
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
