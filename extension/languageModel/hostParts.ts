import * as vscode from 'vscode';

/** VS Code 1.139 has the class and its typings do not. Elsewhere it may be missing, and thinking is not shown. */
export function thinkingPart(text: string): vscode.LanguageModelResponsePart | undefined {
  const Part = thinkingClass();
  return Part === undefined ? undefined : new Part(text);
}

export function thinkingText(part: unknown): string | undefined {
  const Part = thinkingClass();
  if (Part === undefined || !(part instanceof Part)) return undefined;
  const value: unknown = Reflect.get(part, 'value');
  return Array.isArray(value) ? value.join('') : String(value);
}

type ThinkingClass = new (value: string) => vscode.LanguageModelResponsePart;

function thinkingClass(): ThinkingClass | undefined {
  const found: unknown = Reflect.get(vscode, 'LanguageModelThinkingPart');
  return typeof found === 'function' ? (found as ThinkingClass) : undefined;
}

/** What VS Code's own chat reads the cost of an answer from: OpenAI's `usage` object under this type. */
export function usagePart(usage: { promptTokens: number; cachedTokens: number; generatedTokens: number }) {
  const json = {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.generatedTokens,
    total_tokens: usage.promptTokens + usage.generatedTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
  };
  return new vscode.LanguageModelDataPart(new TextEncoder().encode(JSON.stringify(json)), 'usage');
}

/** The text of a part of a message or of a tool's result; '' for what is no text. */
export function partText(part: unknown): string {
  if (part instanceof vscode.LanguageModelTextPart) return part.value;
  if (part instanceof vscode.LanguageModelDataPart) return dataText(part);
  if (part instanceof vscode.LanguageModelPromptTsxPart)
    return promptText(Reflect.get(Object(part.value), 'node')).trim();
  return '';
}

function dataText({ data, mimeType }: vscode.LanguageModelDataPart): string {
  if (mimeType.startsWith('text/') || /^application\/([\w.-]+\+)?json$/.test(mimeType))
    return new TextDecoder().decode(data);
  // Other types are the host's own notes, such as where a cache may begin.
  return mimeType.startsWith('image/') ? '(An image, which this model cannot see.)' : '';
}

/**
 * The text of a tool's result that was laid out with @vscode/prompt-tsx: nodes that are text (type 2) or have children.
 * The package itself is an alpha, and has no function for this outside its renderer.
 */
function promptText(node: unknown): string {
  if (typeof node !== 'object' || node === null) return '';
  const text: unknown = Reflect.get(node, 'text');
  if (typeof text === 'string') return Reflect.get(node, 'lineBreakBefore') === true ? `\n${text}` : text;
  const children: unknown = Reflect.get(node, 'children');
  return Array.isArray(children) ? children.map(promptText).join('') : '';
}
