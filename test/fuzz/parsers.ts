/**
 * Splits and mutates model outputs of each prompt format. The parsed thinking, text and calls must not depend on the split. No
 * mutation may make a parser fail or show a special token. `npm run fuzz:parsers -- [ROUNDS] [SEED]`
 */

import type { OutputParser, OutputPiece, Tool } from '../../engine/prompt/conversation.ts';
import type { ToolSyntax } from '../../engine/prompt/formats/chatTemplate.ts';
import { DeepSeekParser } from '../../engine/prompt/formats/deepseek.ts';
import { ChannelParser } from '../../engine/prompt/parsers/channels.ts';
import { TaggedParser, ToolCallSplitter } from '../../engine/prompt/parsers/toolCallText.ts';
import { seededRandom } from '../../engine/sampling/random.ts';
import type { Tokenizer } from '../../engine/tokenizer/tokenizer.ts';
import { ByteTokenizer } from '../unit/scheduler/byteTokenizer.ts';

/** The name of a special token, or the bytes of one token. */
export type Token = string | Uint8Array;

export interface ParserCase {
  readonly name: string;
  readonly framing: readonly string[];
  readonly output: string;
  readonly parser: (tokenizer: Tokenizer) => OutputParser;
}

const tools: Tool[] = [
  {
    name: 'edit',
    description: '',
    parameters: { type: 'object', properties: { path: { type: 'string' }, line: { type: 'integer' } } },
  },
];
const json = '{"path": "a/é😀 \\"b\\".ts", "line": 12}';
const hermes: ToolSyntax = {
  kind: 'json',
  open: '<tool_call>',
  close: '</tool_call>',
  argumentsKey: 'arguments',
  given: 'json',
  inTemplate: true,
};
const tagged = (syntax: ToolSyntax) => (tokenizer: Tokenizer) =>
  new TaggedParser(tokenizer, false, new ToolCallSplitter(syntax, tools));
const deepSeek = (version: 'v3' | 'v3.1') => (tokenizer: Tokenizer) =>
  new DeepSeekParser(tokenizer, { version, insideThinking: false, tools });
const deepSeekFraming = ['calls▁begin', 'call▁begin', 'sep', 'call▁end', 'calls▁end'].map(
  (name) => `<｜tool▁${name}｜>`,
);

export const parserCases: readonly ParserCase[] = [
  {
    name: 'hermes',
    framing: ['<|im_end|>'],
    output: `<think>\nI wonder é.\n</think>\n\nI edit.\n<tool_call>\n{"name": "edit", "arguments": ${json}}\n</tool_call>\n<tool_call>\n{"arguments": ${json}, "name": "edit"}\n</tool_call><|im_end|>`,
    parser: tagged(hermes),
  },
  {
    name: 'coder',
    framing: ['<|im_end|>'],
    output:
      'I edit.\n<tool_call>\n<function=edit>\n<parameter=path>\na < "é😀" </p>\n\n</parameter>\n<parameter=line>\n12\n</parameter>\n</function>\n</tool_call><|im_end|>',
    parser: tagged({ ...hermes, kind: 'xml', given: 'texts' }),
  },
  {
    name: 'glm',
    framing: ['<|observation|>'],
    output:
      'I edit.<tool_call>edit<arg_key>path</arg_key><arg_value>a < "é😀" </p></arg_value><arg_key>line</arg_key><arg_value>12</arg_value></tool_call><|observation|>',
    parser: tagged({ ...hermes, kind: 'keyed', dense: true, given: 'mapping' }),
  },
  {
    name: 'minimax',
    framing: ['[e~['],
    output:
      'I edit.\n<minimax:tool_call>\n<invoke name="edit">\n<parameter name="path">a < "é😀" </p></parameter>\n<parameter name="line">12</parameter>\n</invoke>\n</minimax:tool_call>[e~[',
    parser: tagged({
      ...hermes,
      ...{ kind: 'invoke', open: '<minimax:tool_call>', close: '</minimax:tool_call>', given: 'mapping' },
    }),
  },
  {
    name: 'llama',
    framing: ['<|eot_id|>'],
    output: `{"name": "edit", "parameters": ${json}}<|eot_id|>`,
    parser: tagged({ ...hermes, open: '', close: '', argumentsKey: 'parameters' }),
  },
  {
    name: 'mistral',
    framing: ['</s>'],
    output: `I édit.[TOOL_CALLS]edit[ARGS]${json}[TOOL_CALLS]edit[CALL_ID]0000call1[ARGS]{}</s>`,
    parser: tagged({ ...hermes, kind: 'named', open: '[TOOL_CALLS]', close: '' }),
  },
  {
    name: 'mistral-v3',
    framing: ['</s>'],
    output: `[TOOL_CALLS] [{"name": "edit", "arguments": ${json}, "id": "0000call1"}, {"name": "edit", "arguments": {}}]</s>`,
    parser: tagged({ ...hermes, kind: 'listed', open: '[TOOL_CALLS]', close: '' }),
  },
  {
    name: 'deepseek-v3',
    framing: deepSeekFraming,
    output: `I édit.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>edit\n\`\`\`json\n${json}\n\`\`\`<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>edit\n\`\`\`json\n{}\n\`\`\`<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    parser: deepSeek('v3'),
  },
  {
    name: 'deepseek-v3.1',
    framing: deepSeekFraming,
    output: `<think>hm</think>I édit.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>edit<｜tool▁sep｜>${json}<｜tool▁call▁end｜><｜tool▁call▁begin｜>edit<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    parser: deepSeek('v3.1'),
  },
  {
    name: 'harmony',
    framing: ['start', 'end', 'message', 'channel', 'constrain', 'call', 'return'].map((name) => `<|${name}|>`),
    output: `<|channel|>analysis<|message|>I wonder é.<|end|><|start|>assistant<|channel|>commentary<|message|>I édit.<|end|><|start|>assistant<|channel|>commentary to=functions.edit <|constrain|>json<|message|>${json}<|call|><|start|>assistant to=functions.edit<|channel|>commentary json<|message|>{}<|call|>`,
    parser: (tokenizer) => new ChannelParser(tokenizer, tools),
  },
];

/** Splits into one-byte tokens and special tokens. */
export function tokensOf({ framing, output }: ParserCase): Token[] {
  const names = framing.map((name) => name.replace(/[|[\]]/g, '\\$&')).join('|');
  return output
    .split(new RegExp(`(${names})`))
    .flatMap((part): Token[] =>
      framing.includes(part) ? [part] : [...Buffer.from(part)].map((byte) => Uint8Array.of(byte)),
    );
}

export interface Read {
  readonly text: string;
  readonly thinking: string;
  readonly calls: readonly { readonly name: string; readonly json: string }[];
}

/** @throws Error if the deltas violate the invariants that consumers rely on. */
export function read({ framing, parser }: ParserCase, tokens: readonly Token[]): Read {
  const table = tokens.filter((token) => typeof token !== 'string');
  const base = new ByteTokenizer({ framing });
  const tokenizer: Tokenizer = Object.create(base, {
    framing: { value: base.framing },
    isSpecial: { value: (id: number) => id < 1000 },
    bytesOf: { value: (id: number) => table[id - 1000] ?? base.bytesOf(id) },
  });
  const reader = parser(tokenizer);
  let next = 1000;
  const pieces = tokens.flatMap((token) =>
    reader.push(typeof token === 'string' ? (base.framing.get(token) ?? 0) : next++),
  );
  return joined([...pieces, ...reader.end()]);
}

function joined(pieces: readonly OutputPiece[]): Read {
  const calls: { name: string; json: string }[] = [];
  let [text, thinking] = ['', ''];
  for (const piece of pieces) {
    if (piece.kind === 'tool-call') {
      if (piece.index > calls.length) throw new Error(`Call ${piece.index} came after ${calls.length} calls.`);
      calls[piece.index] ??= { name: piece.name, json: '' };
      const call = calls[piece.index];
      if (call?.name !== piece.name) throw new Error(`Call ${piece.index} changed its name.`);
      call.json += piece.text;
    } else if (piece.text === '') throw new Error('An empty piece.');
    else if (piece.kind === 'text') text += piece.text;
    else thinking += piece.text;
  }
  return { text, thinking, calls };
}

/** Randomly joins adjacent tokens. */
export function recut(tokens: readonly Token[], random: () => number): Token[] {
  const cut: Token[] = [];
  for (const token of tokens) {
    const last = cut.at(-1);
    if (typeof token === 'string' || last === undefined || typeof last === 'string' || random() < 0.3) cut.push(token);
    else cut[cut.length - 1] = Buffer.concat([last, token]);
  }
  return cut;
}

function mutate(tokens: readonly Token[], framing: readonly string[], random: () => number): Token[] {
  const mutant = [...tokens];
  const at = (): number => Math.floor(random() * mutant.length);
  for (let count = 1 + Math.floor(4 * random()); count > 0; count--) {
    const choice = Math.floor(5 * random());
    if (choice === 0) mutant.splice(at(), 1 + Math.floor(8 * random()));
    else if (choice === 1) mutant.splice(at(), 0, Uint8Array.of(Math.floor(256 * random())));
    else if (choice === 2) mutant.splice(at(), 0, framing[Math.floor(framing.length * random())] ?? '');
    else if (choice === 3) mutant.length = at();
    else mutant.splice(at(), 0, ...mutant.slice(at(), at()));
  }
  return mutant;
}

/** @throws Error with the case, seed and round of a failure. */
export function fuzzParsers(rounds: number, seed: number): number {
  const random = seededRandom(seed);
  let outputs = 0;
  for (const parserCase of parserCases) {
    const tokens = tokensOf(parserCase);
    for (let round = 0; round < rounds; round++) {
      const mutant = mutate(tokens, parserCase.framing, random);
      const whole = read(parserCase, mutant);
      const cut = read(parserCase, recut(mutant, random));
      const shown = whole.text + whole.thinking;
      const leaked = parserCase.framing.find((name) => shown.includes(name));
      if (leaked !== undefined) throw new Error(`${parserCase.name}, seed ${seed}, round ${round}: shows ${leaked}`);
      if (JSON.stringify(cut) !== JSON.stringify(whole)) {
        throw new Error(
          `${parserCase.name}, seed ${seed}, round ${round}: cut otherwise it is read otherwise:\n${JSON.stringify(whole)}\n${JSON.stringify(cut)}`,
        );
      }
      outputs += 2;
    }
  }
  return outputs;
}

if (import.meta.main) {
  const [rounds = '20000', seed = '1'] = process.argv.slice(2);
  const started = performance.now();
  const outputs = fuzzParsers(Number(rounds), Number(seed));
  console.log(
    `${outputs} outputs of ${parserCases.length} formats read in ${Math.round((performance.now() - started) / 1000)} s.`,
  );
}
