import { describe, expect, it } from 'vitest';
import { HearthError } from '../../../engine/errors.ts';
import { limits } from '../../../engine/limits.ts';
import { compileChatTemplate, type TemplateMessage } from '../../../engine/prompt/formats/chatTemplate.ts';
import { describeShared, sharedFile } from '../shared.ts';
import { publishedTemplate, readJson } from '../tokenizer/vocabularies.ts';

interface Context {
  readonly messages: TemplateMessage[];
  readonly add_generation_prompt?: boolean;
  readonly bos_token?: string;
  readonly eos_token?: string;
  readonly [variable: string]: unknown;
}
type Renders = Record<string, Record<string, { readonly context: Context; readonly rendered: string }>>;

/** The date in the recorded renders. */
const now = new Date(2025, 5, 28, 13, 7, 9);

function render(
  source: string,
  messages: readonly TemplateMessage[] = [],
  variables: Record<string, unknown> = {},
): string {
  const options = { addGenerationPrompt: true, bosToken: '<s>', eosToken: '</s>', now };
  return compileChatTemplate(source).render({ ...options, messages, variables });
}

describeShared(
  'Published chat templates',
  ['reference/template_renders.json', 'models/gpt-oss-20b/chat_template.jinja'],
  () => {
    const renders = readJson<Renders>(sharedFile('reference/template_renders.json'));
    for (const [model, cases] of Object.entries(renders)) {
      for (const [name, { context, rendered }] of Object.entries(cases)) {
        it(`render as recorded: ${model}, ${name}`, () => {
          const { messages, add_generation_prompt, bos_token, eos_token, ...variables } = context;
          const text = compileChatTemplate(publishedTemplate(model)).render({
            messages,
            addGenerationPrompt: add_generation_prompt ?? false,
            bosToken: bos_token ?? '',
            eosToken: eos_token ?? '',
            variables,
            now,
          });
          expect(text).toBe(rendered);
        });
      }
    }
  },
);

describeShared('Long conversations', ['models/gpt-oss-20b/chat_template.jinja'], () => {
  for (const model of ['SmolLM2-135M-Instruct', 'Qwen3-0.6B', 'DeepSeek-V3', 'DeepSeek-V3.1', 'gpt-oss-20b']) {
    it(`stay within the bounds: a thousand messages and a megabyte, ${model}`, () => {
      const template = compileChatTemplate(publishedTemplate(model));
      const messages = Array.from({ length: 1000 }, (_, index) => ({
        role: index % 2 === 0 ? 'user' : 'assistant',
        content: `${index} ${'x'.repeat(index === 500 ? 1_000_000 : 20)}`,
      }));
      const text = template.render({ messages, addGenerationPrompt: true, bosToken: '', eosToken: '', now });
      expect(text.length).toBeGreaterThan(1_000_000);
      expect(text).toContain('998 x');
    });
  }
});

describe('compileChatTemplate', () => {
  it('gives templates the names they expect', () => {
    expect(render('{{ bos_token }}{{ messages[0].content }}{{ eos_token }}', [{ role: 'user', content: 'a' }])).toBe(
      '<s>a</s>',
    );
    expect(
      render('{% if add_generation_prompt and True and not none %}x{% endif %}{{ tools | tojson }}', [], {
        tools: [{ a: 'é' }],
      }),
    ).toBe('x[{"a": "é"}]');
    expect(render('{{ range(2, 8, 3) | join(",") }} {{ range(3) | list }}')).toBe('2,5 [0, 1, 2]');
    expect(render("{{ strftime_now('%Y-%m-%d %H:%M:%S %B %b %A %a %y %% %Q') }}")).toBe(
      '2025-06-28 13:07:09 June Jun Saturday Sat 25 % %Q',
    );
  });

  it("trims blocks as transformers' environment does", () => {
    expect(render('a\n  {% if true %}\nb\n  {% endif %}\nc')).toBe('a\nb\nc');
  });

  // docs.python.org, str.strip: only the characters that are named.
  it('strips what a template names and nothing else', () => {
    expect(render("{{ '\\n\\n  a \\n'.strip('\\n') }}|")).toBe('  a |');
    expect(render("{{ '\\n  a'.lstrip('\\n') }}|{{ 'abcba'.rstrip('ab') }}|{{ ' a '.strip() }}|")).toBe('  a|abc|a|');
  });

  it("passes on a template's own refusal", () => {
    expect(() => render("{{ raise_exception('Roles must alternate') }}")).toThrow(/Roles must alternate/);
  });

  it('keeps nothing from one rendering to the next', () => {
    const template = compileChatTemplate('{% if x is defined %}again{% endif %}{% set x = 1 %}');
    const options = { messages: [], addGenerationPrompt: false, bosToken: '', eosToken: '', now };
    expect([template.render(options), template.render(options)]).toEqual(['', '']);
  });
});

/** Doubles a text or list `times` over. */
const doubled = (start: string, times: number): string =>
  `{% set n = namespace(s=${start}) %}{% for i in range(${times}) %}{% set n.s = n.s + n.s %}{% endfor %}`;
const long = doubled("'a'", 22);
const nested = `{% set n = namespace(s=['x']) %}{% for i in range(40) %}{% set n.s = [n.s, n.s, n.s, n.s, n.s] %}{% endfor %}`;

const hostile: Record<string, string> = {
  'a range of a thousand million': '{% for i in range(10**9) %}x{% endfor %}',
  'a range backwards': '{% for i in range(0, -1000000000000, -1) %}x{% endfor %}',
  'a range that never ends': '{% for i in range(0, 10, 0) %}x{% endfor %}',
  'a range of nothing in particular': "{% for i in range('x') %}x{% endfor %}",
  'loops in loops': '{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}',
  'loops that write nothing': '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}',
  'loops over messages in loops': `{% for a in range(999) %}{% for b in range(999) %}{{ messages | length }}{% endfor %}{% endfor %}`,
  'a filtered loop in a loop': '{% for i in range(9999) %}{% for j in range(9999) if j > i %}x{% endfor %}{% endfor %}',
  'a repeated text': "{{ 'a' * 10**9 }}",
  'a text that doubles': `${doubled("'a'", 60)}{{ n.s }}`,
  'a text that doubles by ~':
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
  'a text that doubles by join':
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] | join(n.s) %}{% endfor %}",
  'a text that doubles by replace':
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}",
  'a list that doubles': `${doubled('[1]', 60)}{{ n.s | length }}`,
  'a list in a list in a list, as JSON': `${nested}{{ n.s | tojson }}`,
  'a list in a list in a list, as text': `${nested}{{ n.s }}`,
  'a list in a list in a list, compared': `${nested}{% set a = n.s %}${nested}{{ a == n.s }}`,
  'a namespace in itself': '{% set n = namespace() %}{% set n.n = n %}{{ n }}',
  'a namespace in itself, as JSON': '{% set n = namespace() %}{% set n.n = n %}{{ n | tojson }}',
  'a macro that calls itself': '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}',
  'macros that call each other':
    '{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}',
  'a macro that calls itself twice':
    '{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}',
  'a caller that calls itself':
    '{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}',
  'a wide indent': "{{ 'a\n\nb' | indent(10**9, true, true) }}",
  'a wide indent by name': "{{ 'a\n\nb' | indent(width=10**9, blank=true) }}",
  'a wide indent of a block': '{% filter indent(999999) %}a\nb{% endfilter %}',
  'a wide indent of JSON': '{{ [1, 2, 3] | tojson(indent=10**8) }}',
  'a wide indent of JSON in a mapping': "{{ [1, 2, 3] | tojson(**{'indent': 10**8}) }}",
  'a long separator': `${long}{{ range(90000) | join(n.s) }}`,
  'a long replacement': `${long}{{ n.s.replace('a', n.s) }}`,
  'long texts over and over': `${long}{% for i in range(99999) %}{{ (n.s | upper)[0] }}{% endfor %}`,
  'a long text cut into characters': `${doubled("'a'", 23)}{{ n.s.split('a') | length }}`,
  'long texts turned round': `${long}{% for i in range(999) %}{{ n.s[::-1] | length }}{% endfor %}`,
  'a power of powers': '{{ 10 ** 10 ** 10 ** 10 }}',
  'deep brackets': `{{ ${'('.repeat(20_000)}1${')'.repeat(20_000)} }}`,
  'deep lists': `{{ ${'['.repeat(20_000)}${']'.repeat(20_000)} }}`,
  'deep conditions': `${'{% if 1 %}'.repeat(5000)}x${'{% endif %}'.repeat(5000)}`,
  'deep negation': `{{ ${'not '.repeat(20_000)}1 }}`,
  'a long sum': `{{ ${'1 + '.repeat(20_000)}1 }}`,
  'a long chain of filters': `{{ 'a'${' | upper'.repeat(20_000)} }}`,
  'a block without end': '{% if 1 %}',
  'a text without end': "{{ 'abc",
  'a comment without end': `{# ${'x'.repeat(50_000)}`,
  'an unknown statement': '{% import os %}',
  'an unknown filter': "{{ 'a' | nothing }}",
  'a call of nothing': '{{ nothing() }}',
  'a template without measure': 'x'.repeat(limits.text.templateChars + 1),
  // How a template that is run by Python reaches its interpreter (CVE-2026-5760).
  "Python's way out": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
  "JavaScript's way out": "{{ ''.constructor.constructor('return process')() }}",
};

describe('Hostile templates', () => {
  const message: TemplateMessage = { role: 'user', content: 'x' };
  for (const [name, source] of Object.entries(hostile)) {
    it(`end in a typed error: ${name}`, () => {
      const start = performance.now();
      let error: unknown;
      try {
        render(source, [message]);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(HearthError);
      expect((error as HearthError).code).toBe('invalid-input');
      // A second on an idle machine; what runs beside the test takes its share.
      expect(performance.now() - start).toBeLessThan(4000);
    });
  }

  it('see nothing of JavaScript', () => {
    for (const name of ['constructor', '__proto__', 'prototype', 'process', 'globalThis', 'require']) {
      const source = `[{{ ${name} }}{{ messages.${name} }}{{ messages[0].${name} }}{{ 'a'.${name} }}{{ 'a' | attr('${name}') }}]`;
      expect(render(source, [message])).toBe('[]');
    }
  });
});
