/** Scenes with everything that the chat's page can show, for layout and contrast tests. */
import type { Locator } from 'playwright-core';
import type { Chip, Outcome, ToPage, Turn } from '../../extension/messages.ts';

/** The page, or its frame in an editor. */
export interface Root {
  locator(selector: string): Locator;
}

export interface Scene {
  messages: readonly ToPage[];
  /** Must appear before measuring. */
  shows: string;
  /** User actions to get there. */
  act?: (root: Root) => Promise<void>;
  /** The extension's messages after them. */
  after?: readonly ToPage[];
}

export const figures = {
  ...{ promptTokens: 3000, cachedTokens: 900, generatedTokens: 200 },
  ...{ timeToFirstTokenMs: 210, tokensPerSecond: 42 },
};
export const longPath = 'a/very/long/path/to/some/deeply/nested/file_with_a_long_name.ts';
const chips = [{ id: 'file:a', label: 'file_with_a_long_name.ts', detail: 'lines 1 to 20 of 9999', tokens: 1200 }];
const pin = `@file:${longPath}`;
const pinned = { id: pin, label: pin.slice(1), detail: '', tokens: 1200, mention: pin, pin, isPinned: true };
export const answeredTurn: Turn = {
  ...{ id: 'n', kind: 'chat', question: `Why does ${longPath} fail?`, chips, omitted: ['b.ts: no room'], model: 'M' },
  thinking: 'Hm.',
  steps: [],
  answer: `In \`${longPath}:12\` and gone.ts:1.\n\n\`\`\`ts\nconst a = '${'x'.repeat(90)}';\n\`\`\`\n\n| a | b |\n|---|---|\n| ${'y'.repeat(80)} | z |`,
  citations: [{ text: `${longPath}:12`, path: longPath, line: 12, endLine: 12 }],
  missing: ['gone.ts:1'],
  outcome: { kind: 'done', reason: 'stop', figures, dropped: 3 },
};

const conversation = (over: Partial<Turn>): ToPage => ({
  type: 'conversation',
  turns: [{ ...answeredTurn, ...over }],
});
const context: ToPage = {
  type: 'context',
  context: {
    chips: [pinned, ...chips.map((chip) => ({ ...chip, pin }))],
    addable: 'another_file_with_a_very_long_name.test.ts',
    restricted: true,
    pinnedTokens: 0,
  },
};
const controls: ToPage = {
  type: 'controls',
  controls: {
    ...{ model: 'A model with a long name', modelDetail: '', contextTokens: 8192 },
    ...{ thinking: 'Medium', thinkingOn: true, canThink: true, agent: 'on' },
  },
};
const quiet: ToPage = { type: 'notice', notice: { kind: 'none' } };
const problem: ToPage = {
  type: 'notice',
  notice: { kind: 'problem', text: 'The model does not fit.', actions: ['choose-model', 'show-log'] },
};

/** A finished answer with everything that it can show. */
export const everything: readonly ToPage[] = [conversation({}), problem, context, controls];

const failed: Outcome = {
  kind: 'failed',
  message: `The engine stopped while it read ${longPath}.`,
  actions: ['retry', 'restart', 'choose-model', 'show-log', 'new-chat', 'settings'],
};
const offers = ['SmolLM2 135M Instruct (98 MB)', 'Qwen3 Coder 30B A3B Instruct (18.6 GB)'];
const noModel: ToPage = {
  type: 'notice',
  notice: {
    kind: 'no-model',
    text: 'Hearth needs a model. It is downloaded once and stays on this computer.',
    offers: offers.map((label) => ({ id: label, label, detail: 'Slow here.' })),
  },
};

/** Search results: many chips of one kind with the same file name. */
export const passages = (count: number): Chip[] =>
  Array.from({ length: count }, (_, index) => ({
    id: `found:packages/${index}/src/index.ts:1`,
    label: `packages/${index}/src/index.ts:1–40`,
    detail: '',
    tokens: 250,
  }));

const coloured = [
  '# Heading',
  'Text with `code`, `other.ts:3`, **bold**, [a link](https://example.org) and ![a picture](x.png).',
  '> A quotation.',
  '```ts\n// A comment\nimport { a } from "b";\nexport class C extends D { f(x: number): string { return /r+/.test(`x`) ? "y" : null; } }\n```',
  '```html\n<a href="x">y</a>\n```',
  '```diff\n+ more\n- less\n```',
  '```css\n.a { color: red; }\n```',
  '```python\n@wraps\ndef f(a, *, b=1):\n    """Doc."""\n    raise ValueError(f"{a}")\n```',
].join('\n\n');

const changedFiles = (
  [
    ['change', 'proposed', longPath],
    ['create', 'accepted', 'fresh.py'],
    ['delete', 'rejected', 'gone.bin'],
    ['rename', 'proposed', 'old.txt'],
  ] as const
).map(([kind, state, path], index) => ({
  ...{ id: String(index), kind, state, path, added: 12, removed: 3 },
  ...(kind === 'rename' && { to: 'new.txt' }),
}));
const changes: ToPage = { type: 'changes', turn: 'n', changes: { files: changedFiles, isRestorable: true } };

const running = (note: string, share?: number): Outcome => ({
  kind: 'running',
  note,
  ...(share !== undefined && { share }),
});

export const scenes: Readonly<Record<string, Scene>> = {
  welcome: {
    messages: [{ type: 'conversation', turns: [] }, noModel, context, controls],
    shows: '.example',
  },
  answer: { messages: everything, shows: '.citation' },
  markdown: {
    messages: [
      conversation({
        answer: coloured,
        citations: [{ text: 'other.ts:3', path: 'other.ts', line: 3, endLine: 3 }],
      }),
      quiet,
      { type: 'context', context: { chips: [], restricted: false, pinnedTokens: 0 } },
      { ...controls, controls: { ...controls.controls, canThink: false, thinkingOn: false } },
    ],
    shows: '.hljs-keyword',
    act: (root) => root.locator('.thoughts summary').click(),
  },
  drawings: {
    messages: [
      conversation({
        answer: `A formula $\\sum_{i=1}^n x_i$ in a line.\n\n$$${'a_1 + '.repeat(30)}b$$\n\n\`\`\`mermaid\nflowchart LR\n  A[Start] --> B[End]\n\`\`\``,
        citations: [],
        missing: [],
      }),
      quiet,
      context,
      controls,
    ],
    shows: '.diagram img',
  },
  changes: {
    messages: [conversation({}), changes, quiet, context, controls],
    shows: '.changes li',
  },
  steps: {
    messages: [
      conversation({
        answer: 'I read it.',
        citations: [],
        outcome: running(''),
        steps: (['done', 'refused', 'failed', 'running', 'asks'] as const).map((state, index) => ({
          ...{ id: String(index), title: `Read ${longPath}`, state },
          text: state === 'asks' ? `npm test -- ${'x'.repeat(200)} && echo done` : '',
          result: 'The lines of the file.',
        })),
      }),
      quiet,
      context,
      controls,
    ],
    shows: '.request',
    act: (root) => root.locator('.step-list summary').first().click(),
  },
  passages: {
    messages: [conversation({ chips: [...chips, ...passages(21)] }), quiet, context, controls],
    shows: '.passages',
    act: (root) => root.locator('.passages summary').click(),
  },
  reading: {
    messages: [
      conversation({ answer: '', thinking: '', citations: [], outcome: running('Reading the prompt', 0.4) }),
      { type: 'notice', notice: { kind: 'progress', text: 'Loading A model with a long name (40%)', share: 0.4 } },
      context,
      controls,
    ],
    shows: '.progress-note',
  },
  thinking: {
    messages: [conversation({ answer: '', citations: [], outcome: running('') }), quiet, context, controls],
    shows: '.answer-now',
    act: (root) => root.locator('.thoughts summary').click(),
  },
  queue: {
    messages: [
      {
        type: 'conversation',
        turns: [
          { ...answeredTurn, outcome: running('') },
          { ...answeredTurn, id: 'q1', answer: '', thinking: '', outcome: { kind: 'queued', held: false } },
          { ...answeredTurn, id: 'q2', answer: '', thinking: '', outcome: { kind: 'queued', held: true } },
        ],
      },
      quiet,
      context,
      controls,
    ],
    shows: '.queue-line [data-action=send]',
    act: (root) => root.locator('#question').fill('Why?'),
  },
  failed: { messages: [conversation({ outcome: failed }), quiet, context, controls], shows: '.card.error' },
  interrupted: {
    messages: [conversation({ outcome: { kind: 'interrupted' } }), quiet, context, controls],
    shows: '[data-action=retry]',
  },
  mentions: {
    messages: [conversation({}), quiet, context, controls],
    shows: '.citation',
    act: (root) => root.locator('#question').fill('Why @f'),
    after: [
      {
        type: 'suggestions',
        query: 'f',
        items: [
          { kind: 'file', label: 'file.ts', detail: longPath, text: '@file:file.ts', open: false },
          { kind: 'folder', label: 'folder', detail: 'a folder', text: '@folder:', open: true },
        ],
      },
    ],
  },
  editing: {
    messages: everything,
    shows: '.edit',
    act: async (root) => {
      await root.locator('.edit').focus();
      await root.locator('.edit').press('Enter');
      await root.locator('.question-edit').waitFor();
    },
  },
};
