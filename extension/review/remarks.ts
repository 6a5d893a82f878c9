/** What the model is asked about a part of a diff, and what counts of its answer. */
import * as vscode from 'vscode';
import * as z from 'zod';
import type { ChatMessage, ResponseFormat } from '../../engine/protocol/engineProtocol.ts';
import { limits } from '../limits.ts';
import { type DiffLine, type ReviewPart, shownLine } from './diff.ts';

/** A comment on a changed line. */
export interface Remark {
  readonly line: DiffLine;
  readonly text: string;
}

const answer = z.object({ comments: z.array(z.object({ line: z.number(), comment: z.string() })) });

/** The form of the answer, which the sampler enforces: only lines that were changed can be named. */
export function remarksFormat({ lines }: ReviewPart): ResponseFormat {
  const changed = lines.flatMap(({ label }) => (label === 0 ? [] : [label]));
  const { comments, commentChars } = limits.review;
  const comment = {
    type: 'object',
    properties: {
      line: { enum: changed },
      comment: { type: 'string', minLength: 3, maxLength: commentChars },
    },
    required: ['line', 'comment'],
    additionalProperties: false,
  };
  return {
    kind: 'json-schema',
    schema: {
      type: 'object',
      properties: { comments: { type: 'array', items: comment, maxItems: comments } },
      required: ['comments'],
      additionalProperties: false,
    },
  };
}

/**
 * The remarks of an answer. Servers that ignore the form may name other lines, which are refused and counted. Undefined if
 * the answer does not have the form, for example because it was cut off.
 */
export function remarksOf(text: string, { lines }: ReviewPart): { remarks: Remark[]; refused: number } | undefined {
  const parsed = answer.safeParse(parsedJson(text));
  if (!parsed.success) return undefined;
  const remarks = new Map<string, Remark>();
  let refused = 0;
  for (const { line: label, comment } of parsed.data.comments) {
    const line = lines.find((known) => label !== 0 && known.label === label);
    const said = comment.trim();
    if (line === undefined) refused += 1;
    else if (said !== '') remarks.set(`${label} ${said}`, { line, text: said });
  }
  return { remarks: [...remarks.values()], refused };
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const system = [
  'You review changes of code. You get a part of a diff. Each line that was added or removed begins with its number.',
  'Report mistakes only: bugs, security holes, missing cases, errors that are swallowed.',
  'Say what is wrong and what to do instead, in one or two sentences, at the line where the mistake is.',
  'Do not describe or praise the change. Where there is no mistake, the list of comments is empty.',
].join(' ');

export function reviewMessages(part: ReviewPart): ChatMessage[] {
  const language = vscode.env.language.startsWith('en') ? '' : ` Write in the language ${vscode.env.language}.`;
  const diff = part.lines.map(shownLine).join('\n');
  return [
    { role: 'system', content: system + language },
    { role: 'user', content: `Changes of ${part.path}:\n\n\`\`\`diff\n${diff}\n\`\`\`\n\nReview these changes.` },
  ];
}
