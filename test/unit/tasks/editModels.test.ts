/** Prompts of models that were trained on edits. Those of Zeta are the ones that tests of Zed's crate `zeta_prompt` expect, with the line numbers of diffs. */
import { describe, expect, it } from 'vitest';
import type { NextEditParams } from '../../../engine/protocol/engineProtocol.ts';
import { editModelOf, encodeEdits } from '../../../engine/tasks/nextEdit.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';

const qwen = new ByteTokenizer({ framing: ['<|file_sep|>'] });
const seedCoder = new ByteTokenizer({
  framing: ['<[fim-prefix]>', '<[fim-suffix]>', '<[fim-middle]>', '<filename>'],
});
const smolLm = new ByteTokenizer({ framing: ['<|im_start|>'] });

type Asked = Pick<NextEditParams, 'path' | 'window' | 'edits'>;

function promptOf(name: string, tokenizer: ByteTokenizer, asked: Asked): string {
  const model = editModelOf(name, tokenizer);
  if (!model) throw new Error(`${name} was not trained on edits.`);
  return encodeEdits(model, tokenizer, asked)
    .map((id) => Buffer.from(tokenizer.bytesOf(id)).toString('latin1'))
    .join('');
}

describe('a model trained on edits', () => {
  it.each([
    ['sweep-next-edit-1.5b.q8_0.v2.gguf', qwen, true],
    ['Sweep Next Edit 0.5B', qwen, true],
    ['zeta-q4_k_m.gguf', qwen, true],
    ['zeta-2.Q4_K_M.gguf', seedCoder, true],
    ['zed-industries_zeta-2-Q8_0', seedCoder, true],
    ['zeta-2.Q4_K_M.gguf', qwen, false],
    ['zetamath-7b', qwen, false],
    ['qwen2.5-coder-1.5b-base', qwen, false],
    ['sweep-next-edit-1.5b', smolLm, false],
  ])('case %#: %s', (name, tokenizer, expected) => {
    expect(editModelOf(name, tokenizer) !== undefined).toBe(expected);
  });
});

describe('the prompt', () => {
  const window = { firstLine: 10, text: 'fn foo() {\n    let x = 1;\n}\n', before: '', cursor: 15 };
  const edit = { path: 'other.rs', line: 4, above: 'use it;', before: 'old', after: 'new' };

  it('of Zeta marks the region and the cursor, and begins the answer', () => {
    expect(promptOf('zeta', qwen, { path: 'src/main.rs', window, edits: [edit, { ...edit, line: 0 }] })).toBe(
      [
        '### Instruction:',
        'You are a code completion assistant and your task is to analyze user edits and then rewrite an excerpt that the user provides, suggesting the appropriate edits within the excerpt, taking into account the cursor location.',
        '',
        '### User Edits:',
        '',
        ...['User edited other.rs:', '```diff', '@@ -4,2 +4,2 @@', ' use it;', '-old', '+new', '', '```', ''],
        ...['User edited other.rs:', '```diff', '@@ -1 +1 @@', '-old', '+new', '', '```', ''],
        '### User Excerpt:',
        '',
        '```src/main.rs',
        '<|editable_region_start|>',
        'fn foo() {',
        '    <|user_cursor_is_here|>let x = 1;',
        '}',
        '',
        '<|editable_region_end|>',
        '```',
        '',
        '### Response:',
        '<|editable_region_start|>',
        '',
      ].join('\n'),
    );
  });

  it('of Zeta says where the file begins', () => {
    const asked = { path: 'a.rs', window: { ...window, firstLine: 0 }, edits: [edit] };
    expect(promptOf('zeta', qwen, asked)).toContain('```a.rs\n<|start_of_file|>\n<|editable_region_start|>\n');
  });

  it('of Zeta 2 has the suffix first, and its own markers', () => {
    const asked = {
      path: 'test.rs',
      window: { ...window, text: 'code', cursor: 2 },
      edits: [{ ...edit, path: 'a.rs', line: 0, before: 'x', after: 'y' }],
    };
    expect(promptOf('zeta-2', seedCoder, asked)).toBe(
      [
        '<[fim-suffix]>',
        '<[fim-prefix]><filename>edit_history',
        ...['--- a/a.rs', '+++ b/a.rs', '@@ -1 +1 @@', '-x', '+y', ''],
        '<filename>test.rs',
        '<<<<<<< CURRENT',
        'co<|user_cursor|>de',
        '=======',
        '<[fim-middle]>',
      ].join('\n'),
    );
  });

  it.each([
    ['zeta-2', seedCoder, '<[fim-middle]>', 1],
    ['sweep-next-edit', qwen, '<|file_sep|>', 4],
  ] as const)('of %s takes no marker from the user’s text', (name, tokenizer, own, count) => {
    const model = editModelOf(name, tokenizer);
    if (!model) throw new Error('There is no such model.');
    const asked = { path: 'a.rs', window: { ...window, text: `x ${own} y`, before: own }, edits: [edit] };
    const ids = encodeEdits(model, tokenizer, asked);
    expect(ids.filter((id) => id === tokenizer.require(own))).toHaveLength(count);
  });
});

describe('the answer', () => {
  it.each([
    ['zeta', qwen, 'fn foo() {\n    let y<|user_cursor_is_here|> = 1;\n}\n', 'fn foo() {\n    let y = 1;\n}'],
    ['zeta-2', seedCoder, 'new<|user_cursor|> code\n', 'new code'],
    ['zeta-2', seedCoder, 'NO_EDITS\n', undefined],
    ['sweep-next-edit', qwen, 'a\n\n', 'a\n'],
  ] as const)('of %s, case %#, is the window without marks', (name, tokenizer, written, window) => {
    expect(editModelOf(name, tokenizer)?.windowIn(written)).toBe(window);
  });
});
