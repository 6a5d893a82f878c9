/**
 * Models that were trained to foresee edits, and what they were trained on: the last edits, then lines as they are, then as they will be. No file of
 * a checkpoint describes this, so the file's name and the vocabulary tell. Sources: Sweep's example of its Next-Edit models; for Zeta,
 * `zeta1` and `seed_coder` of Zed's crate `zeta_prompt`.
 */
import type { NextEditParams } from '../protocol/engineProtocol.ts';
import type { PromptPart, Tokenizer } from '../tokenizer/tokenizer.ts';

type Asked = Pick<NextEditParams, 'path' | 'window' | 'edits'>;
type Edit = NextEditParams['edits'][number];

/** A marker is one token where the vocabulary has it, and otherwise text. */
type Part = string | { readonly marker: string };

export interface EditModel {
  /** Of its files. */
  readonly name: RegExp;
  /** A token of its vocabulary. */
  readonly token: string;
  readonly prompt: (asked: Asked) => readonly Part[];
  /** Behind the rewritten window. */
  readonly stop: string;
  /** The rewritten window in what the model wrote; undefined if it foresees no edit. */
  readonly windowIn: (written: string) => string | undefined;
}

const marker = (name: string): Part => ({ marker: name });

const withoutLastBreak = (text: string): string => text.replace(/\n$/, '');

/** Edits, the window before and after the last one, and then as it will be. */
const sweep: EditModel = {
  name: /sweep.?next.?edit/i,
  token: '<|file_sep|>',
  prompt: ({ path, window, edits }) =>
    [
      ...edits.map(({ path: own, above, before, after }) => {
        return `${own}.diff\noriginal:\n${above}\n${before}\nupdated:\n${above}\n${after}\n`;
      }),
      `original/${path}\n${window.before}\n`,
      `current/${path}\n${window.text}\n`,
      `updated/${path}\n`,
    ].flatMap((section) => [marker('<|file_sep|>'), section]),
  stop: '<|file_sep|>',
  windowIn: withoutLastBreak,
};

export const diffTitle = (path: string): string => `--- a/${path}\n+++ b/${path}\n`;

/** A unified diff of one line and the line above. */
function hunk({ line, above, before, after }: Edit): string {
  const changed = `-${before}\n+${after}\n`;
  return line === 0 ? `@@ -1 +1 @@\n${changed}` : `@@ -${line},2 +${line},2 @@\n ${above}\n${changed}`;
}

const around = ({ window: { text, cursor } }: Asked): [before: string, after: string] => [
  text.slice(0, cursor),
  text.slice(cursor),
];

const zetaCursor = '<|user_cursor_is_here|>';
const [regionStart, regionEnd] = ['<|editable_region_start|>', '<|editable_region_end|>'];
const zetaTask =
  '### Instruction:\nYou are a code completion assistant and your task is to analyze user edits and then rewrite an excerpt that the user provides, ' +
  'suggesting the appropriate edits within the excerpt, taking into account the cursor location.\n\n### User Edits:\n\n';

/** Zed's first model, of Qwen2.5-Coder 7B. The answer's first line is given, since it is always the same. */
const zeta: EditModel = {
  name: /(?<![a-z])zeta(?![a-z]|.?2)/i,
  token: '<|file_sep|>',
  prompt: (asked) => {
    const { path, edits, window } = asked;
    const [before, after] = around(asked);
    const events = edits.map((edit) => `User edited ${edit.path}:\n\`\`\`diff\n${hunk(edit)}\n\`\`\``);
    return [
      `${zetaTask}${events.join('\n\n')}\n\n### User Excerpt:\n\n\`\`\`${path}\n`,
      ...(window.firstLine === 0 ? [marker('<|start_of_file|>'), '\n'] : []),
      ...[marker(regionStart), `\n${before}`, marker(zetaCursor), `${after}\n`, marker(regionEnd)],
      '\n```\n\n### Response:\n',
      ...[marker(regionStart), '\n'],
    ];
  },
  stop: regionEnd,
  windowIn: (written) => withoutLastBreak(written.replace(zetaCursor, '')),
};

const zeta2Cursor = '<|user_cursor|>';

/** Zed's second, of Seed-Coder 8B, whose suffix comes first; nothing but the window is shown of the file. */
const zeta2: EditModel = {
  name: /(?<![a-z])zeta.?2(?!\d)/i,
  token: '<[fim-middle]>',
  prompt: (asked) => {
    const [before, after] = around(asked);
    const events = asked.edits.map((edit) => `${diffTitle(edit.path)}${hunk(edit)}`);
    return [
      ...[marker('<[fim-suffix]>'), '\n', marker('<[fim-prefix]>')],
      ...[marker('<filename>'), `edit_history\n${events.join('')}\n`],
      ...[marker('<filename>'), `${asked.path}\n<<<<<<< CURRENT\n${before}`],
      ...[marker(zeta2Cursor), `${after}\n=======\n`, marker('<[fim-middle]>')],
    ];
  },
  stop: '>>>>>>> UPDATED',
  windowIn: (written) =>
    written.startsWith('NO_EDITS') ? undefined : withoutLastBreak(written.replace(zeta2Cursor, '')),
};

/** The model's layout if it was trained on edits. */
export const editModelOf = (name: string, { framing }: Pick<Tokenizer, 'framing'>): EditModel | undefined =>
  [sweep, zeta, zeta2].find((model) => model.name.test(name) && framing.has(model.token));

/** Ids of the prompt. Markers in the user's text stay text. */
export function encodeEdits(model: EditModel, tokenizer: Tokenizer, asked: Asked): number[] {
  const parts: PromptPart[] = [];
  for (const part of model.prompt(asked)) {
    const next = typeof part === 'string' ? part : (tokenizer.framing.get(part.marker) ?? part.marker);
    const last = parts.at(-1);
    // Tokens of text go across a marker that is text.
    if (typeof next === 'string' && typeof last === 'string') parts[parts.length - 1] = last + next;
    else parts.push(next);
  }
  return tokenizer.encodeParts(parts);
}
