import { describe, expect, it } from 'vitest';
import { DraftedMessage, messageOf, subjectFormat, subjectOf } from '../../../extension/describe.ts';
import { accepts, machineOf } from '../grammar/schemaSuite.ts';

describe('a commit message', () => {
  it.each([
    ['Rename `a` to `b`', 'Rename `a` to `b`'],
    ['`a` becomes `b`', '`a` becomes `b`'],
    ['Add "foo"', 'Add "foo"'],
    ['"foo" and "bar"', '"foo" and "bar"'],
    ['**Fix** the parser', '**Fix** the parser'],
    ['**Fix** the **parser**', '**Fix** the **parser**'],
    ["Don't count 'x'", "Don't count 'x'"],
    ['Fix: a\n\n* one\n* two', 'Fix: a\n\n* one\n* two'],
    ['Fix the message:\n\n```\na\n```', 'Fix the message:\n\n```\na\n```'],
    ['# 12: add a test', '# 12: add a test'],
  ])('keeps its own Markdown: %j', (answer, message) => {
    expect(messageOf(answer)).toBe(message);
  });

  it.each([
    ['"Add a test"', 'Add a test'],
    ['“Add a test”', 'Add a test'],
    ['`Add a test`', 'Add a test'],
    ['**Add a test**', 'Add a test'],
    ['"Add "foo""', 'Add "foo"'],
    ['```\nAdd a test\n```', 'Add a test'],
    ['```text\nRename `a`\n\nBecause.\n```\nThis message says it all.', 'Rename `a`\n\nBecause.'],
    ['Here is the commit message:\n\n```\nAdd a test\n```', 'Add a test'],
    ['Here is a message:\nAdd a test', 'Add a test'],
    ['# Commit message\n\nAdd a test', 'Add a test'],
    ['**Commit message:**\n\nAdd a test', 'Add a test'],
    ['Commit message: Add a test', 'Add a test'],
    ['', ''],
  ])('is extracted from what a model writes around it: %j', (answer, message) => {
    expect(messageOf(answer)).toBe(message);
  });
});

describe('a subject', () => {
  it.each([
    ['{"subject": "Add a test"}', 'Add a test'],
    ['{"subject":"Rename \\"a\\" to \\u0062"}', 'Rename "a" to b'],
    // As it streams.
    ['{"sub', ''],
    ['{ "subject": "Add a', 'Add a'],
    ['{"subject": "Say \\', 'Say'],
    ['{"subject": "Say \\u00e', 'Say'],
    // A server that does not enforce the form.
    ['Here is the commit message:\n\n```\nAdd a test\n\nBecause.\n```', 'Add a test'],
  ])('is read from %j', (answer, subject) => {
    expect(subjectOf(answer)).toBe(subject);
  });

  it('is one line of at most 72 characters, which the engine enforces', () => {
    if (subjectFormat.kind !== 'json-schema') throw new Error('The form is a schema.');
    const machine = machineOf(subjectFormat.schema);
    const isAccepted = (subject: string) => accepts(machine, JSON.stringify({ subject }));
    const subjects = ['Add a test', 'x'.repeat(72), 'x'.repeat(73), 'Add\na', ' Add', '.'];
    expect(subjects.map(isAccepted)).toEqual([true, true, false, false, false, false]);
  });
});

describe("the user's draft", () => {
  const boxWith = (value: string) => {
    const box = { value };
    return { box, drafted: new DraftedMessage(box) };
  };

  it('stays until the model writes', () => {
    const { box, drafted } = boxWith('my draft');
    drafted.write('');
    expect(box.value).toBe('my draft');
    drafted.write('Add');
    drafted.write('Add a test');
    expect(box.value).toBe('Add a test');
  });

  it('comes back if no message is accepted', () => {
    const { box, drafted } = boxWith('my draft');
    drafted.write('Add');
    drafted.restore();
    expect(box.value).toBe('my draft');
  });

  it('keeps what the user types meanwhile', () => {
    const { box, drafted } = boxWith('my draft');
    drafted.write('Add');
    box.value = 'I know better';
    drafted.write('Add a test');
    drafted.restore();
    expect(box.value).toBe('I know better');
  });
});
