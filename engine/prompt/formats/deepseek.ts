/**
 * The prompts of DeepSeek-V3 and V3.1. V3's published template doesn't finish a turn with one call and opens the results
 * only once in a conversation; V3.1's doesn't show tools. Therefore both are implemented here, after the correct parts of
 * V3's template and after V3.1's model card ("Chat Template", "ToolCall").
 */

import { type PromptPart, runWhole, type Sliced, type Tokenizer } from '../../tokenizer/tokenizer.ts';
import { type ChatMessage, messageBoundaries, type Tool, type ToolCall, withStatedFormat } from '../conversation.ts';
import { DeepSeekParser } from '../parsers/deepseekOutput.ts';
import { type AnswerPlan, answerSteps, callSteps, marked, type Step, wantedCalls } from '../plans/answerPlan.ts';
import { nearestThinkingMode, type ThinkingMode } from '../thinking.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from './promptFormat.ts';
import { pythonJson } from './toolSyntax.ts';

export type DeepSeekVersion = 'v3' | 'v3.1';

export class DeepSeekFormat implements PromptFormat {
  readonly toolCalling = true;
  readonly thinkingModes: readonly ThinkingMode[];
  readonly #tokenizer: Tokenizer;
  readonly #version: DeepSeekVersion;

  constructor(tokenizer: Tokenizer, version: DeepSeekVersion) {
    this.#tokenizer = tokenizer;
    this.#version = version;
    this.thinkingModes = version === 'v3' ? ['off'] : ['off', 'on'];
  }

  render(conversation: readonly ChatMessage[], options: PromptOptions): ChatPrompt {
    return runWhole(this.renderSliced(conversation, options));
  }

  *renderSliced(conversation: readonly ChatMessage[], options: PromptOptions): Sliced<ChatPrompt> {
    const { thinking, tools = [] } = options;
    const messages = withStatedFormat(conversation, options.responseFormat);
    const tokenizer = this.#tokenizer;
    const version = this.#version;
    const usesTools = tools.length > 0;
    // "Toolcall is supported in non-thinking mode" (V3.1's card).
    const thinks = !usesTools && nearestThinkingMode(thinking, this.thinkingModes) === 'on';
    const write = new Writer(tokenizer, version);
    write.system(messages, tools);
    for (const [i, message] of messages.entries()) {
      yield;
      write.turn(message, messages[i - 1], messages[i + 1]);
    }
    write.opening(messages.at(-1), thinks);
    const ids = yield* tokenizer.encodeSliced(write.parts);
    return {
      ids,
      boundaries: messageBoundaries(ids, tokenizer.endIds),
      stops: tokenizer.endIds,
      stopStrings: [],
      plan: deepSeekPlan(version, options, thinks),
      closeThinking: tokenizer.encode('</think>', { special: 'parse' }),
      parser: () =>
        new DeepSeekParser(tokenizer, { version, insideThinking: thinks, tools: wantedCalls(options).tools }),
    };
  }
}

class Writer {
  readonly parts: PromptPart[] = [];
  readonly #tokenizer: Tokenizer;
  readonly #version: DeepSeekVersion;

  constructor(tokenizer: Tokenizer, version: DeepSeekVersion) {
    this.#tokenizer = tokenizer;
    this.#version = version;
  }

  system(messages: readonly ChatMessage[], tools: readonly Tool[]): void {
    this.#frame(this.#tokenizer.templateTokens.begin);
    const texts = messages.flatMap(({ role, content }) => (role === 'system' ? [content] : []));
    this.#text(texts.join('\n\n'));
    if (tools.length === 0) return;
    if (texts.length > 0) this.#text('\n\n');
    this.#text(toolList(tools));
    this.#frame(this.#version === 'v3' ? v3Instructions : v31Instructions);
  }

  turn(message: ChatMessage, before: ChatMessage | undefined, after: ChatMessage | undefined): void {
    switch (message.role) {
      case 'system':
        return;
      case 'user':
        this.#frame('<｜User｜>');
        this.#text(message.content);
        return;
      case 'tool':
        this.#result(message.content, before, after);
        return;
      case 'assistant':
        // The answer follows a tool's result directly. Thinking is never sent back.
        if (before?.role !== 'tool') this.#assistant(false);
        this.#text(message.content);
        this.#calls(message.toolCalls ?? []);
        this.#frame('<｜end▁of▁sentence｜>');
    }
  }

  /** The text that the model continues. */
  opening(last: ChatMessage | undefined, thinks: boolean): void {
    if (last?.role !== 'tool') this.#assistant(thinks);
  }

  #assistant(thinks: boolean): void {
    this.#frame('<｜Assistant｜>');
    if (this.#version === 'v3.1') this.#frame(thinks ? '<think>' : '</think>');
  }

  #calls(calls: readonly ToolCall[]): void {
    if (calls.length === 0) return;
    this.#frame('<｜tool▁calls▁begin｜>');
    for (const [i, { name, arguments: json }] of calls.entries()) {
      if (this.#version === 'v3') {
        this.#frame(`${i > 0 ? '\n' : ''}<｜tool▁call▁begin｜>function<｜tool▁sep｜>`);
        this.#text(`${name}\n\`\`\`json\n${json}\n\`\`\``);
      } else {
        this.#frame('<｜tool▁call▁begin｜>');
        this.#text(name);
        this.#frame('<｜tool▁sep｜>');
        this.#text(json);
      }
      this.#frame('<｜tool▁call▁end｜>');
    }
    this.#frame('<｜tool▁calls▁end｜>');
  }

  #result(content: string, before: ChatMessage | undefined, after: ChatMessage | undefined): void {
    const isV3 = this.#version === 'v3';
    if (isV3) this.#frame(before?.role === 'tool' ? '\n' : '<｜tool▁outputs▁begin｜>');
    this.#frame('<｜tool▁output▁begin｜>');
    this.#text(content);
    this.#frame('<｜tool▁output▁end｜>');
    if (isV3 && after?.role !== 'tool') this.#frame('<｜tool▁outputs▁end｜>');
  }

  /** Framing tokens in it are parsed. */
  #frame(text: string): void {
    for (const part of this.#tokenizer.split(text)) this.#add(part);
  }

  #text(text: string): void {
    if (text !== '') this.#add(text);
  }

  /** Consecutive texts are encoded together. */
  #add(part: PromptPart): void {
    const last = this.parts.at(-1);
    if (typeof part === 'string' && typeof last === 'string') this.parts[this.parts.length - 1] = last + part;
    else this.parts.push(part);
  }
}

function deepSeekPlan(version: DeepSeekVersion, options: PromptOptions, thinks: boolean): AnswerPlan {
  const { tools, required, afterCall } = wantedCalls(options);
  const call = (): readonly Step[] =>
    version === 'v3'
      ? [
          { kind: 'write', text: 'function<｜tool▁sep｜>' },
          ...callSteps(tools, '\n```json\n', `\n\`\`\`${marked('<｜tool▁call▁end｜>')}`),
          ...afterCall,
        ]
      : [...callSteps(tools, marked('<｜tool▁sep｜>'), marked('<｜tool▁call▁end｜>')), ...afterCall];
  const opened: Step = { kind: 'write', text: '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' };
  const answer = required ? [opened, ...call()] : answerSteps(options);
  return {
    steps: answer.length > 0 && thinks ? [{ kind: 'think' }, ...answer] : answer,
    ...(tools.length > 0 && { calls: { opener: '<｜tool▁call▁begin｜>', inHeader: false, steps: call } }),
    forbidden: { tokens: tools.length > 0 ? [] : ['<｜tool▁calls▁begin｜>', '<｜tool▁call▁begin｜>'] },
  };
}

function toolList(tools: readonly Tool[]): string {
  const shown = tools.map(
    ({ name, description, parameters }) =>
      `\n### ${name}\nDescription: ${description}\n\nParameters: ${pythonJson(parameters)}\n`,
  );
  return `## Tools\nYou have access to the following tools:\n${shown.join('')}`;
}

const v31Instructions = `
IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- \`tool_call_name\` must be an exact match to one of the available tools
- \`tool_call_arguments\` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
`;

/** V3 has no published instructions; these describe its calls as V3.1's describe theirs. */
const v3Instructions = `
IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>tool_call_name
\`\`\`json
tool_call_arguments
\`\`\`<｜tool▁call▁end｜><｜tool▁calls▁end｜>

Where:

- \`tool_call_name\` must be an exact match to one of the available tools
- \`tool_call_arguments\` must be valid JSON that strictly follows the tool's Parameters Schema
`;
