import { describe, expect, it } from 'vitest';
import { renderNearest } from '../../../engine/prompt/formats/chatPrompt.ts';
import { compileChatTemplate, type TemplateMessage } from '../../../engine/prompt/formats/chatTemplate.ts';

/** As Gemma's and Mistral's templates refuse what they were not trained on. */
const noSystem = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}";
const alternating =
  "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}";
const systemFirst =
  "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('System message must be at the beginning.') }}{% endif %}{% endfor %}";
const shown = '{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}';

function rendered(source: string, messages: readonly TemplateMessage[]): string {
  const template = compileChatTemplate(source + shown);
  const options = { addGenerationPrompt: true, bosToken: '', eosToken: '', now: new Date(0) };
  return renderNearest(messages, (turns) => template.render({ ...options, messages: turns }));
}

const turns = (...texts: string[]): TemplateMessage[] =>
  texts.map((text) => ({
    role: { s: 'system', u: 'user', a: 'assistant' }[text.charAt(0)] ?? '',
    content: text.slice(2),
  }));

describe('A conversation that its template refuses', () => {
  it.each([
    [
      'no system role',
      noSystem,
      turns('s be brief', 'u hi', 'a yes', 'u why'),
      '[user: be brief\n\nhi][assistant: yes][user: why]',
    ],
    ['no system role, and no question yet', noSystem, turns('s be brief'), '[user: be brief]'],
    [
      'no two questions in a row',
      alternating,
      turns('u hi', 'u are you there?', 'a yes'),
      '[user: hi\n\nare you there?][assistant: yes]',
    ],
    [
      'no two answers in a row',
      alternating,
      turns('u hi', 'a one', 'a two', 'u why'),
      '[user: hi][assistant: one\n\ntwo][user: why]',
    ],
    [
      'no late instructions',
      systemFirst,
      turns('s one', 'u hi', 'a yes', 's two', 'u why'),
      '[system: one\n\ntwo][user: hi][assistant: yes][user: why]',
    ],
    ['none of it', noSystem + alternating, turns('u hi', 's be brief', 'u why'), '[user: be brief\n\nhi\n\nwhy]'],
  ])('is adapted: %s', (_, source, messages, text) => {
    expect(rendered(source, messages)).toBe(text);
  });

  it('is unchanged if the template accepts it', () => {
    expect(rendered('', turns('s a', 'u b', 'u c', 's d'))).toBe('[system: a][user: b][user: c][system: d]');
  });

  it('keeps calls and their results as turns of their own', () => {
    const call = { role: 'assistant', content: '', tool_calls: [{}] };
    const result = { role: 'tool', content: '1' };
    const messages = [...turns('s one', 'u hi'), call, result, ...turns('s two'), call, result];
    expect(rendered(systemFirst, messages)).toBe(
      '[system: one\n\ntwo][user: hi][assistant: ][tool: 1][assistant: ][tool: 1]',
    );
  });

  it("fails with the template's own error if no adaptation helps", () => {
    expect(() => rendered("{{ raise_exception('never') }}", turns('u hi'))).toThrow('never');
  });
});
