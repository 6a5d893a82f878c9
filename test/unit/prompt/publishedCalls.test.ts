/** The call syntax of published templates, and the calls that it forces a model to write. */
import { describe, expect, it } from 'vitest';
import type { Tool } from '../../../engine/prompt/conversation.ts';
import { compileChatTemplate, type ToolSyntax, toolSyntaxOf } from '../../../engine/prompt/formats/chatTemplate.ts';
import type { PromptOptions } from '../../../engine/prompt/formats/promptFormat.ts';
import { ToolCallSplitter } from '../../../engine/prompt/parsers/toolCallText.ts';
import { type Step, taggedPlan } from '../../../engine/prompt/plans/answerPlan.ts';
import { probeThinking, thinkingModes } from '../../../engine/prompt/thinking.ts';
import { templateCache, templatesHere } from './publishedTemplates.ts';

const tokenizer = { templateTokens: { begin: '', end: '' } };
const tagged = { open: '<tool_call>', close: '</tool_call>' };
const miniMax = { open: '<minimax:tool_call>', close: '</minimax:tool_call>' };

const published: Record<string, { syntax: Partial<ToolSyntax>; modes: string[]; endings: [off: string, on: string] }> =
  {
    'GLM-4.6': {
      syntax: { kind: 'keyed', ...tagged, given: 'mapping' },
      modes: ['off', 'on'],
      endings: ['<think></think>', '<|assistant|>'],
    },
    'GLM-4.7-Flash': {
      syntax: { kind: 'keyed', dense: true, ...tagged, given: 'mapping' },
      modes: ['off', 'on'],
      endings: ['</think>', '<think>'],
    },
    'MiniMax-M2': {
      syntax: { kind: 'invoke', ...miniMax, given: 'mapping' },
      modes: ['on'],
      endings: ['<think>\n', '<think>\n'],
    },
  };

describe('Published templates', () => {
  for (const [name, { syntax, modes, endings }] of Object.entries(published)) {
    it(`say how calls are written and thinking is switched: ${name}`, ({ skip }) => {
      const source = templatesHere().get(`llama.cpp/${name}.jinja`);
      if (source === undefined) return skip(`not here (\`npm run templates\`: ${templateCache})`);
      const template = compileChatTemplate(source);
      expect(toolSyntaxOf(template, tokenizer)).toMatchObject({ ...syntax, inTemplate: true });
      expect(thinkingModes(template, tokenizer)).toEqual(modes);
      const [off, on] = (['off', 'on'] as const).map((mode) => probeThinking(template, tokenizer, mode));
      expect(off?.endsWith(endings[0]), off).toBe(true);
      expect(on?.endsWith(endings[1]), on).toBe(true);
    });
  }
});

describe('A call that is required', () => {
  const parameters = {
    type: 'object',
    properties: { path: { type: 'string' }, line: { type: 'integer' } },
    required: ['path'],
  };
  const tools: Tool[] = [
    { name: 'open', description: '', parameters },
    { name: 'open_all', description: '', parameters: { type: 'object' } },
  ];
  const options: PromptOptions = { thinking: 'off', now: new Date(0), tools, toolChoice: 'required' };
  const common = { argumentsKey: 'arguments', given: 'mapping', inTemplate: true } as const;

  /** What may be written at each step, if the first possibility is written each time, with `3` or `a` as values. */
  function written(syntax: ToolSyntax): { text: string; choices: string[][] } {
    const choices: string[][] = [];
    let text = '';
    const queue: Step[] = [...taggedPlan(syntax, options, { thinks: false, insideThinking: false }).steps];
    for (let step = queue.shift(); step; step = queue.shift()) {
      if (step.kind === 'write') text += step.text;
      if (step.kind !== 'choose') continue;
      const shown = step.grammar.form.map((parts) =>
        parts.map((part) => (part.kind === 'literal' ? part.text : part.kind === 'json' ? '3' : 'a')).join(''),
      );
      choices.push(shown);
      text += shown[0] ?? '';
      queue.unshift(...(step.follow?.(shown[0] ?? '') ?? []));
    }
    return { text, choices };
  }

  const cases: [string, ToolSyntax, string[]][] = [
    ['GLM-4.6', { ...common, ...tagged, kind: 'keyed' }, ['open\n', 'open_all\n']],
    [
      'GLM-4.7',
      { ...common, ...tagged, kind: 'keyed', dense: true },
      ['open<arg_key>path</arg_key><arg_value>', 'open_all</tool_call>'],
    ],
    ['MiniMax-M2', { ...common, ...miniMax, kind: 'invoke' }, ['open">\n', 'open_all">\n']],
  ];
  for (const [name, syntax, first] of cases) {
    it(`has the model's form and is read back: ${name}`, () => {
      const { text, choices } = written(syntax);
      expect(choices[0]).toEqual(first);
      const splitter = new ToolCallSplitter(syntax, tools);
      const pieces = [...splitter.push(text), ...splitter.end()];
      expect(pieces.map((piece) => piece.text).join('')).toBe('{"path": "a", "line": 3}');
    });
  }
});
