/** Rules of a repository. The formats: https://agents.md, and VS Code's documentation of custom instructions. */
import { describe, expect, it } from 'vitest';
import { plan } from '../../../engine/index/question/planner.ts';
import { apply, emptyConversation, promptMessages } from '../../../extension/chat/conversation.ts';
import { namedPrompt, promptNames, promptOf, type RuleFiles, rulesFor } from '../../../extension/context/sources.ts';

const filesOf = (files: Readonly<Record<string, string>>): RuleFiles => ({
  read: async (path) => files[path],
  list: async (folder, ending) =>
    Object.keys(files).filter((path) => path.startsWith(`${folder}/`) && path.endsWith(ending)),
});
const rulesOf = async (file: string | undefined, files: Readonly<Record<string, string>>): Promise<string[]> =>
  (await rulesFor(file, filesOf(files))).map(({ path, text }) => `${path}: ${text}`);

describe('the rules for a file', () => {
  it('come from its folders only, the nearest last', async () => {
    const files = {
      'AGENTS.md': 'root',
      'packages/a/AGENTS.md': 'a',
      'packages/b/AGENTS.md': 'b',
      'packages/a/src/AGENTS.md': 'a/src\n',
    };
    expect(await rulesOf('packages/a/src/x.ts', files)).toEqual([
      'AGENTS.md: root',
      'packages/a/AGENTS.md: a',
      'packages/a/src/AGENTS.md: a/src',
    ]);
    expect(await rulesOf('packages/a.ts', files)).toEqual(['AGENTS.md: root']);
    expect(await rulesOf(undefined, files)).toEqual(['AGENTS.md: root']);
  });

  it('come from CLAUDE.md if a folder has no AGENTS.md', async () => {
    const files = { 'AGENTS.md': 'agents', 'CLAUDE.md': 'claude', 'src/CLAUDE.md': 'claude in src' };
    expect(await rulesOf('src/a.ts', files)).toEqual(['AGENTS.md: agents', 'src/CLAUDE.md: claude in src']);
  });

  it.each([
    ['**/*.ts', 'src/deep/a.ts', true],
    ['**/*.ts', 'src/deep/a.js', false],
    ['**', 'anything', true],
    ['src/**', 'src/a/b.py', true],
    ['src/**', 'lib/a.py', false],
    ['**/*.ts,**/*.tsx', 'a.tsx', true],
    ['**/*.{js, jsx}, docs/**', 'a/b.jsx', true],
    ['**/*.{js,jsx}, docs/**', 'docs/b.md', true],
    ['./src/*.c', 'src/a.c', true],
    ['', 'a.ts', false],
  ])('are instructions with applyTo %j for %s: %s', async (globs, file, applies) => {
    const path = '.github/instructions/style.instructions.md';
    const text = `---\r\ndescription: 'Style'\r\napplyTo: "${globs}"\r\n---\r\nUse tabs.`;
    expect(await rulesOf(file, { [path]: text })).toEqual(applies ? [`${path}: Use tabs.`] : []);
  });

  it('begin with those for the whole repository; empty files and files without front matter are ignored', async () => {
    const files = {
      'AGENTS.md': '  \n',
      '.github/copilot-instructions.md': 'Be brief.',
      '.github/instructions/none.instructions.md': 'Has no applyTo.',
    };
    expect(await rulesOf('a.ts', files)).toEqual(['.github/copilot-instructions.md: Be brief.']);
  });
});

describe('a named prompt', () => {
  const files = filesOf({
    '.github/prompts/review.prompt.md': '---\nmode: ask\n---\nReview it.',
    '.github/prompts/b/add-tests.prompt.md': 'x',
  });

  it('is named at the beginning of a question', () => {
    const named = (question: string) => namedPrompt.exec(question)?.[1];
    expect(['/review', '/review this', '/usr/bin is what?', 'a /review', '/'].map(named)).toEqual([
      'review',
      'review',
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('is the text of its file without front matter', async () => {
    expect(await promptOf('review', files)).toEqual({ path: '.github/prompts/review.prompt.md', text: 'Review it.' });
    expect(await promptOf('nothing', files)).toBeUndefined();
    expect(await promptNames(files)).toEqual(['add-tests', 'review']);
  });
});

describe('rules in a prompt', () => {
  const rule = { id: 'rules:file:///AGENTS.md', label: 'AGENTS.md', detail: '', tokens: 3, path: 'AGENTS.md' };
  const attachment = { ...rule, languageId: 'markdown', text: 'Use tabs.', firstLine: 0 };

  it('appear once, before the question, and not as code to cite', () => {
    const conversation = emptyConversation('c');
    const ask = { type: 'ask', at: 0, kind: 'chat', question: 'Why?' } as const;
    apply(conversation, { ...ask, turn: '1', attachments: [attachment], omitted: [] });
    apply(conversation, { type: 'delta', turn: '1', kind: 'text', text: 'Because.' });
    apply(conversation, { ...ask, turn: '2', attachments: [attachment], omitted: [] });
    const contents = promptMessages(conversation.turns, '', { parameters: 7e9 }).map(({ content }) => content);
    expect(contents[1]).toBe('Follow what the repository says in AGENTS.md:\n\nUse tabs.\n\nWhy?');
    expect(contents[3]).toBe('Why?');
  });

  it('take at most a quarter of the budget if there is other context', () => {
    const shape = { label: '', path: 'a', languageId: '', firstLine: 1, centre: 0, divisible: true };
    const candidate = (id: string, tier: 'rules' | 'asked') => ({
      ...{ id, tier, ...shape, lines: Array.from({ length: 100 }, () => 'abcdefghi') },
      ...{ fileLines: 100, tokens: 1000 },
    });
    const { chosen } = plan([candidate('r', 'rules'), candidate('a', 'asked')], 400);
    expect(chosen.map(({ candidate: { id }, tokens }) => [id, tokens <= (id === 'r' ? 100 : 400)])).toEqual([
      ['r', true],
      ['a', true],
    ]);
  });
});
