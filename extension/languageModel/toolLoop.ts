import * as vscode from 'vscode';
import type { ChatMessage, ChatParams, ChatResult, ModelCard, ToolCall } from '../../engine/protocol/engineProtocol.ts';
import type { EngineClient, StreamHandlers, Unnamed } from '../client/client.ts';
import { sentence } from '../client/failure.ts';
import { limits } from '../limits.ts';
import { resultText } from './hostMessages.ts';
import { checkedCall } from './toolArguments.ts';

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
