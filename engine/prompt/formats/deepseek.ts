/**
 * The prompts of DeepSeek-V3 and V3.1. V3's published template doesn't finish a turn with one call and opens the results
 * only once in a conversation; V3.1's doesn't show tools. Therefore both are implemented here, after the correct parts of
 * V3's template and after V3.1's model card ("Chat Template", "ToolCall").
 */
import { type PromptPart, runWhole, type Sliced, type Tokenizer, TokenTextStream } from '../../tokenizer/tokenizer.ts';
import {
  type ChatMessage,
  messageBoundaries,
  type OutputParser,
  type OutputPiece,
  type Tool,
  type ToolCall,
  withStatedFormat,
} from '../conversation.ts';
import { JsonObjectScanner } from '../parsers/callJson.ts';
import { type AnswerPlan, answerSteps, callSteps, marked, type Step, wantedCalls } from '../plans/answerPlan.ts';
import { nearestThinkingMode, type ThinkingMode, ThinkingSplitter } from '../thinking.ts';
import { pythonJson } from './chatTemplate.ts';
import type { ChatPrompt, PromptFormat, PromptOptions } from './promptFormat.ts';

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

// DeepSeek's output: tags around thinking, framing tokens around calls.

interface DeepSeekOutput {
  readonly version: DeepSeekVersion;
  readonly insideThinking: boolean;
  /** A call to any other tool becomes text. */
  readonly tools: readonly Tool[];
}

interface Call {
  /** The parsed text of the call, without framing. */
  text: string;
  /** Number of characters of `text` that are parsed. */
  at: number;
  state: 'kind' | 'name' | 'arguments' | 'done';
  name: string;
  readonly index: number;
  readonly json: JsonObjectScanner;
}

export class DeepSeekParser implements OutputParser {
  readonly #options: DeepSeekOutput;
  readonly #text: TokenTextStream;
  readonly #names: ReadonlyMap<number, string>;
  readonly #splitter: ThinkingSplitter;
  #call: Call | undefined;
  #calls = 0;
  /** A call has ended and no text followed it yet. */
  #called = false;

  constructor(tokenizer: Tokenizer, options: DeepSeekOutput) {
    this.#options = options;
    this.#text = new TokenTextStream(tokenizer);
    this.#names = new Map([...tokenizer.framing].map(([name, id]) => [id, name]));
    this.#splitter = new ThinkingSplitter(options.insideThinking);
  }

  get isThinking(): boolean {
    return this.#splitter.isThinking;
  }

  push(id: number): OutputPiece[] {
    const pieces = this.#take(this.#text.push(id));
    const name = this.#options.tools.length > 0 ? this.#names.get(id) : undefined;
    if (name === '<｜tool▁call▁begin｜>') {
      pieces.push(...this.#endCall());
      const state = this.#options.version === 'v3' ? 'kind' : 'name';
      this.#call = { text: '', at: 0, state, name: '', index: this.#calls, json: new JsonObjectScanner() };
    } else if (name === '<｜tool▁sep｜>') pieces.push(...this.#separate());
    else if (name?.startsWith('<｜')) pieces.push(...this.#endCall());
    return pieces;
  }

  end(): OutputPiece[] {
    const pieces = this.#take(this.#text.end());
    // The output was cut off. Its pieces were already delivered, so they are not repeated as text.
    if (this.#call?.state === 'arguments') this.#call.state = 'done';
    return [...pieces, ...this.#endCall(), ...this.#splitter.end()];
  }

  #take(text: string): OutputPiece[] {
    const call = this.#call;
    if (!call) return this.#say(text);
    call.text += text;
    if (call.state === 'name' && this.#options.version === 'v3') {
      const fence = /^([^\n]+)\n```(?:json)?\n/.exec(call.text.slice(call.at));
      return fence ? [...this.#nameCall(call, fence[1] ?? '', fence[0].length), ...this.#read(call)] : [];
    }
    return call.state === 'arguments' ? this.#read(call) : [];
  }

  /** Whitespace after a call is framing. */
  #say(text: string): OutputPiece[] {
    const said = this.#called ? text.trimStart() : text;
    if (said !== '') this.#called = false;
    return this.#splitter.push(said);
  }

  /** V3 writes the type of the call before the name; V3.1 only the name. */
  #separate(): OutputPiece[] {
    const call = this.#call;
    if (call?.state === 'kind') {
      call.state = 'name';
      call.at = call.text.length;
      return [];
    }
    return call?.state === 'name' ? this.#nameCall(call, call.text, call.text.length) : this.#endCall();
  }

  #nameCall(call: Call, name: string, length: number): OutputPiece[] {
    call.name = name.trim();
    if (!this.#options.tools.some((tool) => tool.name === call.name)) return this.#endCall();
    call.at += length;
    call.state = 'arguments';
    this.#calls++;
    return [{ kind: 'tool-call', index: call.index, name: call.name, text: '' }];
  }

  #read(call: Call): OutputPiece[] {
    const start = call.at;
    while (call.at < call.text.length) {
      const state = call.json.push(call.text.charAt(call.at));
      if (state === 'invalid') return [...this.#piece(call, start), ...this.#endCall()];
      call.at++;
      if (state === 'more') continue;
      call.state = 'done';
      break;
    }
    return this.#piece(call, start);
  }

  #piece({ text, at, index, name }: Call, start: number): OutputPiece[] {
    return at === start ? [] : [{ kind: 'tool-call', index, name, text: text.slice(start, at) }];
  }

  /** An incomplete call becomes text. */
  #endCall(): OutputPiece[] {
    const call = this.#call;
    this.#call = undefined;
    if (call) this.#called = call.state === 'done';
    return call && call.state !== 'done' ? this.#splitter.push(call.text) : [];
  }
}
