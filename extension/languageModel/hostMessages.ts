import * as vscode from 'vscode';
import type { ChatMessage, Tool, ToolCall } from '../../engine/protocol/engineProtocol.ts';
import { partText, thinkingText } from './hostParts.ts';

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
