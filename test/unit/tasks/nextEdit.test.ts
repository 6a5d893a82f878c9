import { describe, expect, it } from 'vitest';
import type { NextEditParams } from '../../../engine/protocol/engineProtocol.ts';
import type { TokenRequest } from '../../../engine/scheduler/job.ts';
import type { Submitter } from '../../../engine/scheduler/scheduler.ts';
import { editModelOf, firstChange, foreseeEdit, linePrompt } from '../../../engine/tasks/nextEdit.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';
import { replying, schedulerOf } from '../scheduler/setUp.ts';

describe('the prompt of one line', () => {
  const place = { line: 7, above: 'b();', text: 'old(2);' };
  const edit = { path: 'a.ts', line: 1, above: 'a();', before: 'old(1);', after: 'new(1);' };

  it('shows the last edits as a diff and ends behind the mark of an added line', () => {
    expect(linePrompt({ path: 'a.ts', edits: [edit] }, place)).toBe(
      '--- a/a.ts\n+++ b/a.ts\n@@ @@\n a();\n-old(1);\n+new(1);\n@@ @@\n b();\n-old(2);\n+',
    );
  });

  it('names a file once for consecutive edits, and again when the file changes', () => {
    const edits = [edit, edit, { ...edit, path: 'c.ts' }];
    const titles = linePrompt({ path: 'a.ts', edits }, place).match(/^--- .*$/gm);
    expect(titles).toEqual(['--- a/a.ts', '--- a/c.ts', '--- a/a.ts']);
  });

  it('begins the same for all places, so that the edits are prefilled once', () => {
    const prompt = (text: string) => linePrompt({ path: 'a.ts', edits: [edit] }, { ...place, text });
    expect(prompt('x').slice(0, 60)).toBe(prompt('y').slice(0, 60));
  });
});

describe('the first change of a rewritten window', () => {
  it.each([
    ['one line', 'a\nb\nc', 'a\nB\nc', { line: 1, lines: 1, text: 'B' }],
    ['lines that were added', 'a\nb\nc', 'a\nB\nB2\nc', { line: 1, lines: 1, text: 'B\nB2' }],
    ['the last line', 'a\nb', 'a\nB', { line: 1, lines: 1, text: 'B' }],
    ['the first of two', 'a\nb\nc\nd\ne', 'a\nB\nc\nD\ne', { line: 1, lines: 1, text: 'B' }],
    ['nothing', 'a\nb', 'a\nb', undefined],
    ['lines before another', 'a\nb', 'a\nX\nY\nb', { line: 1, lines: 1, text: 'X\nY\nb' }],
    ['a line that went away', 'a\nb\nc', 'a\nc', { line: 1, lines: 1, text: '' }],
    ['a line that went away before an empty one', 'a\nb\n\nc', 'a\n\nc', { line: 1, lines: 1, text: '' }],
    ['the last lines, which went away', 'a\nb\nc', 'a', { line: 1, lines: 2, text: '' }],
    ['several lines at once', 'a\nb\nc\nd', 'a\nX\nY\nd', { line: 1, lines: 2, text: 'X\nY' }],
    ['several that became one', 'a\nb\nc\nd', 'a\nX\nd', { line: 1, lines: 2, text: 'X' }],
    ['no change at an empty line', 'a\nb\n\nc\n\nd', 'a\nB\nC\n\nd', { line: 1, lines: 3, text: 'B\nC' }],
    ['no line that became an empty one', 'a\nb\nc', 'a\n\nc', undefined],
  ])('finds %s', (_, before, after, change) => {
    expect(firstChange(before, after)).toEqual(change);
  });
});

describe('a predicted edit', () => {
  const tokenizer = new ByteTokenizer({ framing: ['<|file_sep|>', '<end>'], end: ['<end>'] });
  const source: NextEditParams = {
    path: 'a.ts',
    edits: [{ path: 'a.ts', line: 4, above: '', before: 'old(1);', after: 'new(1);' }],
    window: {
      firstLine: 4,
      text: 'new(1);\nx();\nold(2);\ny();',
      before: 'old(1);\nx();\nold(2);\ny();',
      cursor: 'new(1);'.length,
    },
    places: [
      { line: 6, above: 'x();', text: 'old(2);' },
      { line: 9, above: 'z();', text: 'old(3);' },
    ],
  };

  /** @param through changes what the scheduler is asked. */
  async function run(
    answer: (prompt: string) => string,
    { trained = '', through = (request: TokenRequest) => request, signal = new AbortController().signal } = {},
  ) {
    const asked: TokenRequest[] = [];
    const { decoder, prompts } = replying(tokenizer, (prompt) => [...Buffer.from(answer(prompt))]);
    const scheduler = schedulerOf(decoder);
    const submitter: Submitter = {
      decoder: scheduler.decoder,
      submit: (request) => {
        asked.push(request);
        return scheduler.submit(through(request));
      },
    };
    const writer = { scheduler: submitter, tokenizer, contextTokens: 4096 };
    const foreseen = await foreseeEdit(
      writer,
      { ...source, random: Math.random, signal },
      editModelOf(trained, tokenizer),
    );
    return { ...foreseen, asked, prompts };
  }

  it('completes a diff if a place changes', async () => {
    const { edit } = await run((prompt) => (prompt.endsWith('-old(2);\n+') ? 'new(2);\n@@' : 'old(3);\n'));
    expect(edit).toMatchObject({ line: 6, text: 'new(2);' });
  });

  it('is absent if every place stays unchanged or would become empty', async () => {
    const same = await run((prompt) => `${/-(.*)\n\+$/.exec(prompt)?.[1]}\n`);
    expect(same).not.toHaveProperty('edit');
    expect(await run(() => '\n')).not.toHaveProperty('edit');
  });

  it('is absent if the line does not end', async () => {
    expect(await run(() => 'new('.repeat(100))).not.toHaveProperty('edit');
  });

  it('is absent if the model is not sure', async () => {
    // Logits that lie close together.
    const through = (request: TokenRequest): TokenRequest => {
      const { sampling: _, ...rest } = request;
      return { ...rest, choose: (logits) => request.choose(logits.map((logit) => logit / 100)) };
    };
    expect(await run(() => 'new(2);\n', { through })).not.toHaveProperty('edit');
  });

  it('is computed in the lowest-priority class, once for each place', async () => {
    const { asked } = await run(() => 'new(2);\n');
    expect(asked.map(({ requestClass }) => requestClass)).toEqual(['warm-up', 'warm-up']);
  });

  it('asks for no further place once it is cancelled', async () => {
    const controller = new AbortController();
    controller.abort();
    const { finish, asked } = await run(() => 'new(2);\n', { signal: controller.signal });
    expect([finish, asked.length]).toEqual(['cancelled', 1]);
  });

  it('is the first change of the window that a trained model writes, in the format it was trained on', async () => {
    const written = 'new(1);\nx();\nnew(2);\ny();\n';
    const { edit, prompts } = await run(() => written, { trained: 'sweep-next-edit' });
    expect(edit).toMatchObject({ line: 6, text: 'new(2);' });
    expect(prompts[0]).toBe(
      '<|file_sep|>a.ts.diff\noriginal:\n\nold(1);\nupdated:\n\nnew(1);\n' +
        `<|file_sep|>original/a.ts\n${source.window.before}\n<|file_sep|>current/a.ts\n${source.window.text}\n<|file_sep|>updated/a.ts\n`,
    );
  });

  it('is what Zeta writes before the end of its region', async () => {
    const written = 'new(1);\nx();\nnew(2);<|user_cursor_is_here|>\ny();\n<|editable_region_end|>\n```';
    const { edit, asked } = await run(() => written, { trained: 'zeta' });
    expect(edit).toMatchObject({ line: 6, text: 'new(2);' });
    expect(asked).toHaveLength(1);
  });
});
