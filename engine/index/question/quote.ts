/** How text that goes with a question stands in the prompt. */

export interface Quoted {
  readonly path: string;
  readonly languageId: string;
  readonly text: string;
  /** In its file, from 1; 0: it is no part of one. */
  readonly firstLine: number;
  /** The whole file. */
  readonly whole: boolean;
}

/** Beside the text, not in the system prompt: small models follow best what stands last. */
export const citing = 'Name the lines that an answer rests on like this: `path:line`.';

export const quote = (quoted: Quoted): string => `${title(quoted)}:\n\n${fenced(quoted)}`;

/** As an answer should cite it. */
export function title({ path, firstLine, whole, text }: Quoted): string {
  if (firstLine === 0 || whole) return `\`${path}\``;
  return `\`${path}:${firstLine}-${firstLine + text.split('\n').length - 1}\``;
}

/** The fence is longer than any in the text, so that a file cannot end its own block. */
function fenced({ languageId, text }: Quoted): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}${languageId}\n${text}\n${fence}`;
}
