import { Ajv } from 'ajv';
import * as vscode from 'vscode';
import type { ChatMessage, ChatParams, ChatResult, ModelCard, ToolCall } from '../../engine/protocol/engineProtocol.ts';
import type { EngineClient, StreamHandlers, Unnamed } from '../client/client.ts';
import { sentence } from '../client/failure.ts';
import { limits } from '../limits.ts';
import { resultText } from './hostMessages.ts';

interface Question {
  client: EngineClient;
  card: ModelCard;
  params: Unnamed<ChatParams>;
  handlers: StreamHandlers;
  request: Pick<vscode.ChatRequest, 'toolInvocationToken'>;
  token: vscode.CancellationToken;
}

/**
 * Asks, runs the tools that the model calls, and asks again with their results. The first answer must call one: the user
 * named them. The last may not, so that there is an end. A call is run only if it names a tool that was offered for this
 * question, with arguments that fit: whatever the model read may have told it to call something else.
 */
export async function answerWithTools(question: Question): Promise<ChatResult> {
  const messages: ChatMessage[] = [...question.params.messages];
  const offered = (question.params.tools ?? []).length > 0;
  for (let round = 0; ; round++) {
    const last = round === limits.languageModel.toolRounds;
    const toolChoice = last || !offered ? 'none' : round === 0 ? 'required' : 'auto';
    const result = await question.client.chat(
      { ...question.params, messages, toolChoice },
      question.handlers,
      question.token,
    );
    if (result.finish !== 'tool-calls' || last || !offered) return result;
    const { text: content, thinking, toolCalls } = result;
    messages.push({ role: 'assistant', content, thinking, toolCalls });
    for (const call of toolCalls) messages.push(await resultOf(call, question));
  }
}

/** Reports a tool's failure to the model, which may try another way. */
async function resultOf(call: ToolCall, { client, card, params, request, token }: Question): Promise<ChatMessage> {
  const answer = (content: string): ChatMessage => ({ role: 'tool', toolCallId: call.id, content });
  const checked = checkedCall(call, params.tools ?? []);
  if (checked.kind === 'refused') return answer(`Nothing was run. ${checked.reason}`);
  try {
    const result = await vscode.lm.invokeTool(
      call.name,
      {
        input: checked.input,
        toolInvocationToken: request.toolInvocationToken,
        tokenizationOptions: {
          tokenBudget: Math.floor(card.contextTokens * limits.languageModel.toolResultShare),
          countTokens: async (text) => (await client.countTokens([text]))[0] ?? 0,
        },
      },
      token,
    );
    return answer(resultText(result.content));
  } catch (error) {
    if (token.isCancellationRequested) throw error;
    return answer(`The tool failed: ${sentence(error)}`);
  }
}

/** As it was offered. */
type Tool = NonNullable<ChatParams['tools']>[number];

type CheckedCall =
  | { readonly kind: 'fits'; readonly input: object }
  /** Told to the model, which may mend it. */
  | { readonly kind: 'refused'; readonly reason: string };

/** Whether a call may be run: it names a tool of this question, and its arguments fit that tool's schema. */
function checkedCall(call: ToolCall, offered: readonly Tool[]): CheckedCall {
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

function objectIn(json: string): object | undefined {
  try {
    const value: unknown = JSON.parse(json.trim() === '' ? '{}' : json);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function misfitOf(input: object, { parameters = {}, name }: Tool): string | undefined {
  // A draft that the validator has no copy of is read as draft 7, which VS Code's own tools are written in.
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
