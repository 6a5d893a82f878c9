import * as vscode from 'vscode';
import type { ChatMessage, Tool, ToolCall } from '../../engine/protocol/engineProtocol.ts';

/** VS Code 1.139 has the class and its typings do not. Elsewhere it may be missing, and thinking is not shown. */
export function thinkingPart(text: string): vscode.LanguageModelResponsePart | undefined {
  const Part = thinkingClass();
  return Part === undefined ? undefined : new Part(text);
}

function thinkingText(part: unknown): string | undefined {
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
function partText(part: unknown): string {
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

/** `role` 3 is the system's: VS Code's own chat sends it, and the typings do not name it. */
const systemRole = 3;

type HostMessage = Pick<vscode.LanguageModelChatRequestMessage, 'role' | 'content'>;

/**
 * The host's conversation as the engine's. Neighbours of one role become one message, because many templates require that
 * user and assistant alternate.
 */
export function toChatMessages(messages: readonly HostMessage[]): ChatMessage[] {
  const merged: ChatMessage[] = [];
  for (const message of messages.flatMap(toChatMessage)) {
    const last = merged.at(-1);
    const both = last && joined(last, message);
    if (both === undefined) merged.push(message);
    else merged.splice(-1, 1, both);
  }
  return merged;
}

function toChatMessage({ role, content }: HostMessage): ChatMessage[] {
  const text = content.map(partText).join('');
  if (role === vscode.LanguageModelChatMessageRole.Assistant) return [assistantMessage(content, text)];
  const results = content
    .filter((part) => part instanceof vscode.LanguageModelToolResultPart)
    .map((part): ChatMessage => ({ role: 'tool', toolCallId: part.callId, content: resultText(part.content) }));
  if (text === '') return results;
  return [...results, { role: Number(role) === systemRole ? 'system' : 'user', content: text }];
}

function assistantMessage(parts: readonly unknown[], content: string): ChatMessage {
  const thinking = parts.map((part) => thinkingText(part) ?? '').join('');
  const toolCalls = parts
    .filter((part) => part instanceof vscode.LanguageModelToolCallPart)
    .map((part): ToolCall => ({ id: part.callId, name: part.name, arguments: JSON.stringify(part.input) }));
  return {
    role: 'assistant',
    content,
    ...(thinking === '' ? {} : { thinking }),
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
  };
}

function joined(a: ChatMessage, b: ChatMessage): ChatMessage | undefined {
  if (a.role === 'tool' || b.role !== a.role) return undefined;
  const content = [a.content, b.content].filter((text) => text !== '').join('\n\n');
  if (a.role !== 'assistant' || b.role !== 'assistant') return { ...a, content };
  const toolCalls = [...(a.toolCalls ?? []), ...(b.toolCalls ?? [])];
  return { ...a, ...b, content, ...(toolCalls.length === 0 ? {} : { toolCalls }) };
}

export const resultText = (content: readonly unknown[]): string => content.map(partText).join('\n');

/** Everything in a message that costs tokens. */
export function messageText(message: HostMessage): string {
  return toChatMessage(message)
    .map((part) => {
      if (part.role !== 'assistant') return part.content;
      const calls = (part.toolCalls ?? []).map((call) => `${call.name}${call.arguments}`);
      return [part.content, ...calls].join('\n');
    })
    .join('\n');
}

const toolName = /^[\w.-]{1,64}$/;

/** The tools that a model can be offered; those whose names no format can write are left out. */
export function toTools(tools: readonly vscode.LanguageModelChatTool[]): Tool[] {
  return tools
    .filter(({ name }) => toolName.test(name))
    .map(({ name, description, inputSchema }) => ({
      name,
      description,
      parameters: { ...(inputSchema ?? { type: 'object', properties: {} }) },
    }));
}
