import { describe, expect, it } from 'vitest';
import type { Tool } from '../../../engine/prompt/conversation.ts';
import { compileChatTemplate, type ToolSyntax, toolSyntaxOf } from '../../../engine/prompt/formats/chatTemplate.ts';
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

function read(
  output: string,
  step: number,
  written: ToolSyntax = syntax,
): { text: string; calls: { name: string; arguments: string }[] } {
  const splitter = new ToolCallSplitter(written, tools);
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
  ])('keep values that contain tags: %s', (_, value) => {
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

  it('are not calls if the output ends before a required value', () => {
    const cut = whole.slice(0, whole.indexOf('<parameter=line>'));
    expect(JSON.parse.bind(null, read(cut, 1).calls[0]?.arguments ?? '')).toThrow(SyntaxError);
  });
});

describe("GLM's calls", () => {
  const glm: ToolSyntax = { ...syntax, kind: 'keyed', given: 'mapping' };
  // As its template writes them (llama.cpp models/templates/glm_4_5.jinja).
  const whole = `<tool_call>open
<arg_key>path</arg_key>
<arg_value>a b
c</arg_value>
<arg_key>line</arg_key>
<arg_value>3</arg_value>
</tool_call>`;
  const expectRead = (output: string, expected: ReturnType<typeof read>) => {
    for (const step of [1, 2, 7, output.length]) expect(read(output, step, glm)).toEqual(expected);
  };

  it('are read however the text is cut', () => {
    expectRead(`I look.\n${whole}`, { text: 'I look.', calls: [call] });
    expectRead(`${whole}<tool_call>now\n</tool_call>\n${whole}`, {
      text: '',
      calls: [call, { name: 'now', arguments: '{}' }, call],
    });
    expectRead(whole.replaceAll('\n<', '<').replace('open', '\nopen\n').replace('c</', 'c</'), {
      text: '',
      calls: [call],
    });
  });

  it('are complete without their closing tag once all required arguments are there', () => {
    expectRead(whole.replace('\n</tool_call>', ''), { text: '', calls: [call] });
    const cut = whole.slice(0, whole.indexOf('<arg_key>line'));
    expect(JSON.parse.bind(null, read(cut, 1, glm).calls[0]?.arguments ?? '')).toThrow(SyntaxError);
  });

  const dense = whole.replaceAll('\n<', '<');
  const damaged: Record<string, string> = {
    'nothing is missing': whole,
    'no line feeds stand between the tags (GLM-4.7)': dense,
    'the opening tag is missing': whole.replace('<tool_call>', ''),
    'the opening tag is missing, and line feeds': dense.replace('<tool_call>', ''),
    "a key's end is missing": whole.replace('</arg_key>', ''),
    "the first value's end is missing": whole.replace('</arg_value>', ''),
    "the first value's end is missing, and line feeds": dense.replace('</arg_value>', ''),
    "the last value's end is missing": whole.replace('3</arg_value>', '3'),
    "the last value's end is missing, and line feeds": dense.replace('3</arg_value>', '3'),
    "all values' ends are missing": whole.replaceAll('</arg_value>', ''),
    'both outer tags are missing': whole.replace('<tool_call>', '').replace('\n</tool_call>', ''),
  };
  for (const [name, output] of Object.entries(damaged)) {
    it(`are read where ${name}, however the text is cut`, () => {
      expectRead(`I look.\n${output}`, { text: 'I look.', calls: [call] });
      expectRead(`${output}\n${output}`, { text: '', calls: [call, call] });
    });
  }

  it('keep values that contain tags which end no call there', () => {
    const value = 'x </tool_call> y <arg_key>other</arg_key>';
    const output = whole.replace('a b\nc', value);
    const expected = `{"path": ${JSON.stringify(value)}, "line": 3}`;
    expectRead(output, { text: '', calls: [{ name: 'open', arguments: expected }] });
  });

  it('are JSON if the schema does not name the argument, and text if that JSON is invalid', () => {
    const output = [
      '<tool_call>open\n<arg_key>path</arg_key>\n<arg_value>12</arg_value>\n',
      '<arg_key>line</arg_key>\n<arg_value>all</arg_value>\n<arg_key>more</arg_key>\n<arg_value>[true, 1]</arg_value>\n',
      '</tool_call>',
    ].join('');
    const expected = '{"path": "12", "line": "all", "more": [true, 1]}';
    expectRead(output, { text: '', calls: [{ name: 'open', arguments: expected }] });
  });

  it('stream a text argument', () => {
    const splitter = new ToolCallSplitter(glm, tools);
    const pieces = splitter.push('<tool_call>open\n<arg_key>path</arg_key>\n<arg_value>a long te');
    expect(pieces.map(({ text }) => text).join('')).toBe('{"path": "a long te');
  });

  it('are text if no such tool was offered, or the form is not followed', () => {
    const text = '<tool_call>other\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>';
    expectRead(text, { text, calls: [] });
  });

  it('are found in a template that writes them', () => {
    const template = compileChatTemplate(
      [
        '{% for tool in tools %}{{ tool | tojson }}{% endfor %}',
        '{% for m in messages %}{{ m.content }}{% for tc in m.tool_calls or [] %}',
        '<tool_call>{{ tc.function.name }}\n{% for k, v in tc.function.arguments.items() %}',
        '<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}{% endfor %}',
      ].join(''),
    );
    const found = toolSyntaxOf(template, { templateTokens: { begin: '', end: '' } });
    expect(found).toMatchObject({ kind: 'keyed', given: 'mapping', inTemplate: true });
    expect(found).not.toHaveProperty('dense');
  });
});

describe("MiniMax's calls", () => {
  const tags = { open: '<minimax:tool_call>', close: '</minimax:tool_call>' };
  const miniMax: ToolSyntax = { ...syntax, ...tags, kind: 'invoke', given: 'mapping' };
  // As its template writes them (llama.cpp models/templates/MiniMax-M2.jinja).
  const invoked = `<invoke name="open">
<parameter name="path">a b
c</parameter>
<parameter name="line">3</parameter>
</invoke>
`;
  const whole = `<minimax:tool_call>\n${invoked}</minimax:tool_call>`;
  const expectRead = (output: string, expected: ReturnType<typeof read>) => {
    for (const step of [1, 2, 7, output.length]) expect(read(output, step, miniMax)).toEqual(expected);
  };

  const damaged: Record<string, string> = {
    'nothing is missing': whole,
    'the opening tag is missing': whole.replace('<minimax:tool_call>\n', ''),
    "the first value's end is missing": whole.replace('</parameter>', ''),
    "the last value's end is missing": whole.replace('3</parameter>', '3'),
    "the call's end is missing": whole.replace('</invoke>\n', ''),
    "all values' and the call's ends are missing": whole.replaceAll('</parameter>', '').replace('</invoke>\n', ''),
    'the closing tag is missing': whole.replace('</minimax:tool_call>', ''),
  };
  for (const [name, output] of Object.entries(damaged)) {
    it(`are read where ${name}, however the text is cut`, () => {
      expectRead(`I look.\n${output}`, { text: 'I look.', calls: [call] });
    });
  }

  it('follow each other between one pair of outer tags', () => {
    const now = '<invoke name="now">\n</invoke>\n';
    const output = `<minimax:tool_call>\n${invoked}${now}${invoked}</minimax:tool_call>`;
    expectRead(output, { text: '', calls: [call, { name: 'now', arguments: '{}' }, call] });
  });

  it('keep line feeds around a text, which are its own', () => {
    const output = whole.replace('a b\nc', '\na b\nc\n');
    const expected = '{"path": "\\na b\\nc\\n", "line": 3}';
    expectRead(output, { text: '', calls: [{ name: 'open', arguments: expected }] });
  });

  it('are text where no such tool was offered', () => {
    const text = 'Write <invoke name="other"> and <parameter name="x">.';
    expectRead(text, { text, calls: [] });
  });

  it('are found in a template that writes them', () => {
    const template = compileChatTemplate(
      [
        '{% for tool in tools %}{{ tool | tojson }}{% endfor %}',
        '{% for m in messages %}{{ m.content }}{% for tc in m.tool_calls or [] %}',
        '<minimax:tool_call>\n<invoke name="{{ tc.function.name }}">\n{% for k, v in tc.function.arguments.items() %}',
        '<parameter name="{{ k }}">{{ v }}</parameter>\n{% endfor %}</invoke>\n</minimax:tool_call>{% endfor %}{% endfor %}',
      ].join(''),
    );
    const found = toolSyntaxOf(template, { templateTokens: { begin: '', end: '' } });
    expect(found).toMatchObject({ kind: 'invoke', ...tags, given: 'mapping', inTemplate: true });
  });
});
