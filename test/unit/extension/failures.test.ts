import { afterEach, describe, expect, it } from 'vitest';
import { mentionSources } from '../../../extension/context/sources.ts';
import { limits } from '../../../extension/limits.ts';
import { FailureWatch, failureQuestion } from '../../../extension/terminal.ts';
import { log } from './support.ts';
import { terminals, user, workspace } from './vscode.ts';

async function ran(command: string, exitCode: number | undefined, ...output: string[]): Promise<void> {
  async function* read() {
    yield* output;
  }
  const execution = { commandLine: { value: command }, read };
  terminals.started.fire({ execution } as never);
  terminals.ended.fire({ execution, exitCode } as never);
  await new Promise((resolve) => setTimeout(resolve, 5));
}

describe('the last failed command', () => {
  const watch = new FailureWatch(log);
  afterEach(() => {
    workspace.isTrusted = true;
  });

  it('is not kept for a folder that is not trusted', async () => {
    workspace.isTrusted = false;
    await ran('cat secret', 1, 'key');
    expect(watch.last).toBeUndefined();
    expect(failureQuestion(watch)).toBeUndefined();
    expect(user.asked.at(-1)?.message).toBe('Hearth reads terminals only in trusted folders.');
  });

  it('is kept with the end of its output, without colours, until another one fails', async () => {
    await ran('npm test', 1, '\u001b[31mExpected 1', '\u001b[0m\r\n', 'x'.repeat(limits.agent.outputChars), ' the end');
    await ran('ls', 0, 'a');
    await ran('sleep 9', 130, '^C');
    await ran('odd', undefined, 'no code');
    expect(watch.last).toMatchObject({ command: 'npm test', exitCode: 1 });
    expect(watch.last?.output.endsWith('x the end')).toBe(true);
    expect(watch.last?.output.length).toBeLessThanOrEqual(limits.agent.outputChars + 1);
    await ran('make', 2, '\u001b[1mmake:\u001b[0m nothing\r\n');
    expect(watch.last).toEqual({ command: 'make', exitCode: 2, output: 'make: nothing' });
  });

  it('is attached unchanged to a question that mentions it', async () => {
    expect(failureQuestion(watch)).toMatch(/ @failure$/);
    const [source] = await mentionSources(
      { kind: 'failure', value: '', text: '@failure' },
      undefined,
      undefined,
      watch.last,
    );
    expect(source?.label).toBe('make');
    expect(source?.lines.join('\n')).toBe('$ make\nmake: nothing\n(exit code 2)');
    expect(
      await mentionSources({ kind: 'failure', value: '', text: '@failure' }, undefined, undefined, undefined),
    ).toEqual([]);
  });
});
