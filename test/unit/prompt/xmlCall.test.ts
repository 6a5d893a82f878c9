import { describe, expect, it } from 'vitest';
import type { Tool } from '../../../engine/prompt/conversation.ts';
import type { ToolSyntax } from '../../../engine/prompt/formats/toolSyntax.ts';
import { ToolCallSplitter } from '../../../engine/prompt/parsers/toolCallText.ts';

const syntax: ToolSyntax = {
  ...{ kind: 'xml', open: '<tool_call>', close: '</tool_call>', argumentsKey: 'arguments' },
  ...{ given: 'texts', inTemplate: true },
};
const parameters = {
  type: 'object',
  properties: { path: { type: 'string' }, line: { type: 'integer' } },
  required: ['path', 'line'],
};
const tools: Tool[] = [
  { name: 'open', description: '', parameters },
  { name: 'now', description: '', parameters: { type: 'object' } },
];

function read(output: string, step: number): { text: string; calls: { name: string; arguments: string }[] } {
  const splitter = new ToolCallSplitter(syntax, tools);
  const pieces = [];
  for (let at = 0; at < output.length; at += step) pieces.push(...splitter.push(output.slice(at, at + step)));
  pieces.push(...splitter.end());
  const calls: { name: string; arguments: string }[] = [];
  let text = '';
  for (const piece of pieces) {
    if (piece.kind === 'tool-call') {
      calls[piece.index] ??= { name: piece.name, arguments: '' };
      const call = calls[piece.index];
      if (call !== undefined) call.arguments += piece.text;
    } else text += piece.text;
  }
  return { text, calls };
}

const whole = `<tool_call>
<function=open>
<parameter=path>
a b
c
</parameter>
<parameter=line>
3
</parameter>
</function>
</tool_call>`;
const call = { name: 'open', arguments: '{"path": "a b\\nc", "line": 3}' };

describe("Qwen3-Coder's calls", () => {
  const without = (...tags: string[]) => tags.reduce((text, tag) => text.replace(`${tag}\n`, ''), whole);
  const damaged: Record<string, string> = {
    'nothing is missing': whole,
    'the opening tag is missing': without('<tool_call>'),
    "the first value's end is missing": without('</parameter>'),
    "the last value's end is missing": whole.replace('3\n</parameter>', '3'),
    "all values' ends are missing": whole.replaceAll('</parameter>\n', ''),
    "the function's end is missing": without('</function>'),
    "the values' and the function's ends are missing": whole
      .replaceAll('</parameter>\n', '')
      .replace('</function>\n', ''),
    'the closing tag is missing': whole.replace('\n</tool_call>', ''),
    'both outer tags are missing': without('<tool_call>').replace('\n</tool_call>', ''),
    'the output ends after the last value': without('<tool_call>').replace('\n</function>\n</tool_call>', ''),
    "the last value's end and the closing tag are missing": whole
      .replace('3\n</parameter>', '3')
      .replace('\n</tool_call>', ''),
  };
  for (const [name, output] of Object.entries(damaged)) {
    it(`are read where ${name}, however the text is cut`, () => {
      for (const step of [1, 2, 7, output.length]) {
        expect(read(`I look.\n${output}`, step)).toEqual({ text: 'I look.', calls: [call] });
      }
    });
  }

  it('follow each other without their opening tags', () => {
    const output = `${damaged['both outer tags are missing']}\n<function=now>\n</function>\n${whole}`;
    const expected = { text: '', calls: [call, { name: 'now', arguments: '{}' }, call] };
    for (const step of [1, 5, output.length]) expect(read(output, step)).toEqual(expected);
  });

  it.each([
    ['a </function> within a line', 'x </function> y'],
    ["a function's end that text follows", 'a\n</function>\nb'],
    ['a parameter that the tool does not have', 'a\n<parameter=other>\nb'],
    ['a parameter that was given', 'a\n<parameter=path>\nb'],
  ])('keep values that hold tags: %s', (_, value) => {
    const output = `<tool_call>\n<function=open>\n<parameter=path>\n${value}\n</parameter>\n<parameter=line>\n3\n</parameter>\n</function>\n</tool_call>`;
    for (const step of [1, 4, output.length]) {
      expect(read(output, step).calls).toEqual([
        {
          name: 'open',
          arguments: JSON.stringify({ path: value, line: 3 }).replaceAll(
            /(?<=[":]),(?=")|:(?=["\d])/g,
            (mark) => `${mark} `,
          ),
        },
      ]);
    }
  });

  it('are text where no such tool was offered', () => {
    const text = 'Write <function=other> and <parameter=x>.';
    for (const step of [1, text.length]) expect(read(text, step)).toEqual({ text, calls: [] });
  });

  it('are no calls where the output breaks off before a required value', () => {
    const cut = whole.slice(0, whole.indexOf('<parameter=line>'));
    expect(JSON.parse.bind(null, read(cut, 1).calls[0]?.arguments ?? '')).toThrow(SyntaxError);
  });
});
