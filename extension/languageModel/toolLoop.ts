import { Ajv } from 'ajv';
import * as vscode from 'vscode';
import type { ChatMessage, ChatParams, ChatResult, Tool, ToolCall } from '../../engine/protocol/engineProtocol.ts';
import type { ModelCard } from '../../engine/protocol/models.ts';
import type { EngineClient, StreamHandlers, Unnamed } from '../client/client.ts';
import { sentence } from '../client/failure.ts';
import { limits } from '../limits.ts';

interface Question {
  client: Pick<EngineClient, 'chat'>;
  card: Pick<ModelCard, 'contextTokens'>;
  params: Unnamed<ChatParams>;
  handlers: StreamHandlers;
  token: vscode.CancellationToken;
  /** The first answer must call a tool, because the user named one. */
  isCallRequired: boolean;
  /** Answers with calls; `tokens` of all answers together. */
  bounds: { readonly rounds: number; readonly tokens: number };
  /** Runs a call of an offered tool with valid arguments. */
  run(call: ToolCall, input: object): Promise<string>;
  /** A call that was not run, and why. */
  onRefused?(call: ToolCall, reason: string): void;
}

/**
 * Asks, runs the tools that the model calls, and asks again with their results. After a number of rounds or tokens, or when
 * the context is nearly full, the last answer may call no tools, so that the loop ends. A call is run only if its tool was
 * offered for this question and its arguments are valid: text in the prompt may have told the model to call something else.
 */
export async function answerWithTools(question: Question): Promise<ChatResult> {
  const { client, card, params, handlers, token, bounds } = question;
  const messages: ChatMessage[] = [...params.messages];
  const offered = (params.tools ?? []).length > 0;
  const texts: string[] = [];
  let [tokens, isFull] = [0, false];
  for (let round = 0; ; round++) {
    const last = round === bounds.rounds || tokens >= bounds.tokens || isFull;
    const toolChoice = last || !offered ? 'none' : round === 0 && question.isCallRequired ? 'required' : 'auto';
    const result = await client.chat({ ...params, messages, toolChoice }, handlers, token);
    const { text: content, thinking, toolCalls, statistics } = result;
    if (content.trim() !== '') texts.push(content.trim());
    if (result.finish !== 'tool-calls' || last || !offered)
      return texts.length < 2 ? result : { ...result, text: texts.join('\n\n') };
    messages.push({ role: 'assistant', content, thinking, toolCalls });
    for (const call of toolCalls) messages.push(await resultOf(call, question));
    tokens += statistics.generatedTokens;
    const used = statistics.promptTokens + statistics.generatedTokens;
    isFull = used > card.contextTokens * (1 - limits.languageModel.toolResultShare);
  }
}

/** Reports a tool's failure to the model, so that it may try another way. */
async function resultOf(call: ToolCall, { params, run, onRefused, token }: Question): Promise<ChatMessage> {
  const answer = (content: string): ChatMessage => ({ role: 'tool', toolCallId: call.id, content });
  const checked = checkedCall(call, params.tools ?? []);
  if (checked.kind === 'refused') {
    onRefused?.(call, checked.reason);
    return answer(`Nothing was run. ${checked.reason}`);
  }
  try {
    return answer(await run(call, checked.input));
  } catch (error) {
    if (token.isCancellationRequested) throw error;
    return answer(`The tool failed: ${sentence(error)}`);
  }
}

/** Invokes a tool of VS Code or of another extension. `asker`: the request of VS Code's own chat that it is for, if any. */
export async function invokeHostTool(
  { name }: Pick<ToolCall, 'name'>,
  input: object,
  asker: vscode.ChatParticipantToolToken | undefined,
  { client, card, token }: { client: EngineClient; card: ModelCard; token: vscode.CancellationToken },
): Promise<string> {
  const tokenizationOptions = {
    tokenBudget: Math.floor(card.contextTokens * limits.languageModel.toolResultShare),
    countTokens: async (text: string) => (await client.countTokens([text]))[0] ?? 0,
  };
  const options = { input, toolInvocationToken: asker, tokenizationOptions };
  return resultText((await vscode.lm.invokeTool(name, options, token)).content);
}

type OfferedTool = NonNullable<ChatParams['tools']>[number];

type CheckedCall =
  | { readonly kind: 'fits'; readonly input: object }
  /** Reported to the model, so that it may correct the call. */
  | { readonly kind: 'refused'; readonly reason: string };

/** Whether a call may be run: it names a tool of this question, and its arguments fit that tool's schema. */
function checkedCall(call: ToolCall, offered: readonly OfferedTool[]): CheckedCall {
  const tool = offered.find(({ name }) => name === call.name);
  if (tool === undefined) {
    const names = offered.map(({ name }) => name).join(', ');
    return refused(`There is no tool '${call.name.slice(0, 100)}' for this question. Its tools are: ${names}.`);
  }
  const input = objectIn(call.arguments);
  if (input === undefined) return refused('The arguments are no JSON object.');
  const misfit = misfitOf(input, tool);
  return misfit === undefined ? { kind: 'fits', input } : refused(misfit);
}

const refused = (reason: string): CheckedCall => ({ kind: 'refused', reason });

/** The call's arguments as a JSON object; undefined if they are not one. */
export function objectIn(json: string): object | undefined {
  try {
    const value: unknown = JSON.parse(json.trim() === '' ? '{}' : json);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function misfitOf(input: object, { parameters = {}, name }: OfferedTool): string | undefined {
  // A draft that ajv does not know is read as draft 7, which VS Code's own tools use.
  const { $schema: _, $id: __, ...schema } = parameters;
  const ajv = new Ajv({ strict: false, validateFormats: false, logger: false });
  try {
    const validate = ajv.compile(schema);
    return validate(input)
      ? undefined
      : `The arguments do not fit the tool's schema: ${ajv.errorsText(validate.errors)}.`;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return `The schema of '${name}' cannot be checked, so it was not run: ${reason}`;
  }
}

/** VS Code 1.139 has this class, but its typings do not. If it is missing, thinking is not shown. */
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

/** VS Code's own chat reads an answer's token counts from this: OpenAI's `usage` object under this type. */
export function usagePart(usage: { promptTokens: number; cachedTokens: number; generatedTokens: number }) {
  const json = {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.generatedTokens,
    total_tokens: usage.promptTokens + usage.generatedTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
  };
  return new vscode.LanguageModelDataPart(new TextEncoder().encode(JSON.stringify(json)), 'usage');
}

/** The text of a part of a message or tool result; '' if it is not text. */
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
 * The text of a tool result in the format of @vscode/prompt-tsx: nodes that are text (type 2) or have children. The package
 * itself is an alpha and has no function for this outside its renderer.
 */
function promptText(node: unknown): string {
  if (typeof node !== 'object' || node === null) return '';
  const text: unknown = Reflect.get(node, 'text');
  if (typeof text === 'string') return Reflect.get(node, 'lineBreakBefore') === true ? `\n${text}` : text;
  const children: unknown = Reflect.get(node, 'children');
  return Array.isArray(children) ? children.map(promptText).join('') : '';
}

/** Role 3 is the system role: VS Code's own chat sends it, but the typings do not have it. */
const systemRole = 3;

type HostMessage = Pick<vscode.LanguageModelChatRequestMessage, 'role' | 'content'>;

/**
 * Converts VS Code's conversation to the engine's. Adjacent messages of one role become one, because many templates require
 * that user and assistant alternate.
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

const resultText = (content: readonly unknown[]): string => content.map(partText).join('\n');

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

/** The tools to offer to a model, without those whose names no format can write. */
export function toTools(tools: readonly vscode.LanguageModelChatTool[]): Tool[] {
  return tools
    .filter(({ name }) => toolName.test(name))
    .map(({ name, description, inputSchema }) => ({
      name,
      description,
      parameters: { ...(inputSchema ?? { type: 'object', properties: {} }) },
    }));
}
