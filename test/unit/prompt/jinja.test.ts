/**
 * Templates against Python's jinja2 3.1 with transformers' settings. Its results are in `fixtures/text/jinja`:
 * its texts for templates of our own, digests of them for published ones. `npm run templates` fetches those of llama.cpp
 * and records everything again.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { compileTemplate, runTemplate } from '../../../engine/prompt/formats/chatTemplate.ts';
import { fixtureFile } from '../shared.ts';
import { readJson } from '../tokenizer/vocabularies.ts';
import { conversations, digest, type RecordedTemplate, templateCache, templatesHere } from './publishedTemplates.ts';

/** The time in `render.py`. */
const now = new Date(2025, 5, 28, 13, 7, 9);

interface Case {
  readonly template: string;
  readonly text?: string;
  readonly error?: string;
}
const { variables, cases } = readJson<{ variables: Record<string, unknown>; cases: Case[] }>(
  fixtureFile('text/jinja/expressions.json'),
);
/** Python refuses these, and we do not: a length of nothing is none. */
const lenient = ['{{ none|length }}'];

describe('Jinja', () => {
  it.each(cases)('renders $template like Python', ({ template, text }) => {
    const render = () => runTemplate(compileTemplate(template), variables, now);
    if (text !== undefined) expect(render()).toBe(text);
    else if (lenient.includes(template)) expect(render()).toBe('0');
    else expect(render).toThrow("The model's chat template");
  });

  const hasPython = spawnSync('python3', ['-c', 'import jinja2; assert jinja2.__version__ >= "3.1"']).status === 0;
  it.skipIf(!hasPython)(
    `is recorded as Python renders it${hasPython ? '' : ': skipped, python3 has no jinja2 3.1'}`,
    () => {
      const templates = Object.fromEntries(cases.map(({ template }) => [template, template]));
      const input = JSON.stringify({ templates, conversations: { all: variables } });
      const output = execFileSync('python3', [fixtureFile('text/jinja/render.py')], { input, encoding: 'utf8' });
      const renders: Record<string, Record<string, Omit<Case, 'template'>>> = JSON.parse(output);
      for (const { template, text } of cases) expect(renders[template]?.['all']?.text, template).toBe(text);
    },
  );
});

const recorded = readJson<Record<string, RecordedTemplate>>(fixtureFile('text/jinja/renders.json'));
/** `safe` marks a text in Python, and what is added to it is escaped as HTML; here it marks nothing. */
const escapes = 'llama.cpp/meetkai-functionary-medium-v3.1.jinja';

describe('Published templates', () => {
  const here = templatesHere();
  for (const [name, { source, renders }] of Object.entries(recorded)) {
    const template = here.get(name);
    if (template === undefined) {
      it.skip(`${name}: skipped, it is not here (../shared/models or, by \`npm run templates\`, ${templateCache})`);
      continue;
    }
    it(`render as Python renders them: ${name}`, () => {
      expect(digest(template)).toBe(source);
      const program = compileTemplate(template);
      for (const [conversation, text] of Object.entries(renders)) {
        const render = () => runTemplate(program, conversations[conversation] ?? {}, now);
        if (text === null) expect(render, conversation).toThrow("The model's chat template");
        else if (name !== escapes || !('tools' in (conversations[conversation] ?? {})))
          expect(digest(render()), conversation).toBe(text);
      }
    });
  }

  it('are at least 60, of 16 conversations each', () => {
    expect(Object.keys(recorded).length).toBeGreaterThanOrEqual(60);
    for (const { renders } of Object.values(recorded)) expect(Object.keys(renders)).toEqual(Object.keys(conversations));
  });
});
