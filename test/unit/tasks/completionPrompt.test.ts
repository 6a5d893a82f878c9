import { describe, expect, it } from 'vitest';
import { importsIn } from '../../../engine/index/question/planner.ts';
import { bitsOf, onlyAllowed, tokensTowards } from '../../../engine/sampling/logitsProcessor.ts';
import { completionPrompt } from '../../../engine/tasks/completionPrompt.ts';
import { ByteTokenizer } from '../scheduler/byteTokenizer.ts';

const framing = ['<P>', '<S>', '<M>', '<F>', '<B>'];
const names = new ByteTokenizer({ framing });
const markers = { prefix: names.require('<P>'), suffix: names.require('<S>'), middle: names.require('<M>') };
const fim = new ByteTokenizer({
  framing,
  fillInTheMiddle: { ...markers, order: 'prefix-suffix-middle', fileSeparator: names.require('<F>') },
});
const plain = new ByteTokenizer({ framing, words: ['turn', 'return'] });
const source = { prefix: 'a = ', suffix: '\nb', snippets: [] };

/** The prompt as text, framing tokens by name. */
const show = (tokenizer: ByteTokenizer, ids: readonly number[]): string =>
  Buffer.concat(ids.map((id) => tokenizer.bytesOf(id))).toString();

describe('a prompt that fills the middle', () => {
  it('has prefix, suffix and middle in the order of the vocabulary', () => {
    expect(show(fim, completionPrompt(fim, source, 100).ids)).toBe('<P>a = <S>\nb<M>');
    const swapped = new ByteTokenizer({
      framing,
      fillInTheMiddle: { ...markers, order: 'suffix-prefix-middle' },
    });
    expect(show(swapped, completionPrompt(swapped, source, 100).ids)).toBe('<S>\nb<P>a = <M>');
  });

  it('begins with the snippets and names files as the vocabulary does', () => {
    const prompt = completionPrompt(
      fim,
      { ...source, path: 'a.ts', snippets: [{ path: 'b.ts', text: 'let b;' }] },
      100,
    );
    expect(show(fim, prompt.ids)).toBe('<F>b.ts\nlet b;\n<F>a.ts\n<P>a = <S>\nb<M>');
  });

  it('names the repository first for a model that knows its token', () => {
    const named = new ByteTokenizer({
      framing,
      fillInTheMiddle: { ...markers, order: 'prefix-suffix-middle', repositoryName: names.require('<B>') },
    });
    const ofShop = { ...source, repository: 'shop' };
    expect(show(named, completionPrompt(named, ofShop, 100).ids)).toBe('<B>shop\n<P>a = <S>\nb<M>');
    expect(show(fim, completionPrompt(fim, ofShop, 100).ids)).toBe('<P>a = <S>\nb<M>');
  });

  it('removes only the word that is being typed, which is sampled again', () => {
    const words = new ByteTokenizer({
      framing,
      words: ['turn', 'return'],
      fillInTheMiddle: { ...markers, order: 'prefix-suffix-middle' },
    });
    const typed = completionPrompt(words, { ...source, prefix: 'x return' }, 100);
    expect([show(words, typed.ids), Buffer.from(typed.healing).toString()]).toEqual(['<P>x <S>\nb<M>', 'return']);
    expect(completionPrompt(words, { ...source, prefix: 'x return ' }, 100).healing).toHaveLength(0);
  });

  it('takes framing tokens in the file as text', () => {
    const { ids } = completionPrompt(fim, { ...source, prefix: '<M>', suffix: '' }, 100);
    expect(ids).toEqual([markers.prefix, ...Buffer.from('<M>'), markers.suffix, markers.middle]);
  });

  it('drops the far ends of the file and keeps the text near the cursor', () => {
    const long = { prefix: `${'p'.repeat(5000)}NEAR `, suffix: `SOON${'s'.repeat(5000)}`, snippets: [] };
    const { ids } = completionPrompt(fim, long, 200);
    expect(ids.length).toBeLessThanOrEqual(200);
    expect(ids.length).toBeGreaterThan(140);
    expect(show(fim, ids)).toMatch(/^<P>p+NEAR <S>SOONs+<M>$/);
  });

  it('leaves out snippets that do not fit, never part of one', () => {
    const snippets = [
      { path: 'big.ts', text: 'x'.repeat(150) },
      { path: 'small.ts', text: 'let small;' },
    ];
    const prompt = show(fim, completionPrompt(fim, { ...source, snippets }, 100).ids);
    expect(prompt).toContain('<F>small.ts\nlet small;\n');
    expect(prompt).not.toContain('big');
  });
});

describe('the beginning of a prompt', () => {
  it('stays the same while many characters are typed, so that the cache holds it', () => {
    const file = Array.from({ length: 400 }, (_, i) => `line ${i}`).join('\n');
    const beginnings = new Set<string>();
    for (let typed = 0; typed < 60; typed++) {
      const { ids } = completionPrompt(fim, { prefix: file + 'x'.repeat(typed), suffix: '', snippets: [] }, 500);
      expect(ids.length).toBeLessThanOrEqual(500);
      beginnings.add(show(fim, ids).slice(0, 40));
    }
    // 60 characters cross at most one step of 125 tokens.
    expect(beginnings.size).toBeLessThanOrEqual(2);
  });

  it('is the beginning of a line when the file is cut', () => {
    const file = Array.from({ length: 400 }, (_, i) => `line ${i}`).join('\n');
    const { ids } = completionPrompt(fim, { prefix: file, suffix: '', snippets: [] }, 500);
    expect(show(fim, ids)).toMatch(/^<P>line \d+\n/);
  });
});

describe('a file whose beginning is cut off', () => {
  const rows = Array.from({ length: 400 }, (_, i) => `row ${i}`).join('\n');

  it.each([
    ['import { a } from "./a";\nimport {\n  b,\n} from "./b";', 'const x = 1;'],
    ['from a import b\nimport c', 'x = import_all()'],
    ['use a::b;\nmod c;', 'mod tests {'],
    ['#include <a.h>', '#define A 1'],
    ['package a\n\nimport (\n\t"b"\n)', 'var x = 1'],
    ["const a = require('a');", "const b = 'require';"],
  ])('keeps its imports: %j', (imports, other) => {
    const kept = imports.split('\n').filter((line) => line !== '');
    expect(importsIn(`${imports}\n${other}\n`)).toEqual(kept);
    const { ids } = completionPrompt(fim, { ...source, prefix: `${imports}\n${other}\n${rows}`, suffix: '' }, 600);
    expect(ids.length).toBeLessThanOrEqual(600);
    expect(
      show(fim, ids)
        .slice(3)
        .startsWith(`${kept.join('\n')}\nrow `),
    ).toBe(true);
  });
});

describe('the prefix that later prompts share', () => {
  it.each([fim, plain])('is marked where the file itself begins (%#)', (tokenizer) => {
    const snippets = [{ path: 'b.ts', text: 'let b;' }];
    const prompts = ['x = 1', 'y'].map((prefix) =>
      completionPrompt(tokenizer, { prefix, suffix: '', path: 'a.ts', languageId: 'typescript', snippets }, 100),
    );
    const preambles = prompts.map(({ ids, boundaries }) => show(tokenizer, ids.slice(0, boundaries[0])));
    expect(preambles[0]).toMatch(/b\.ts\nlet b;\n.*a\.ts\n$/s);
    expect(preambles[1]).toBe(preambles[0]);
  });
});

describe('a plain continuation', () => {
  it('names files in comments of the language and ends with the prefix', () => {
    const prompt = completionPrompt(
      plain,
      { prefix: 'x = 1', suffix: 'y', path: 'a.py', languageId: 'python', snippets: [{ path: 'b.py', text: 'z' }] },
      100,
    );
    expect(show(plain, prompt.ids) + Buffer.from(prompt.healing)).toBe('# b.py\nz\n\n# a.py\nx = 1');
  });

  it('removes the last token, which is sampled again', () => {
    const { ids, healing } = completionPrompt(plain, { prefix: 'x return', suffix: '', snippets: [] }, 100);
    expect(show(plain, ids)).toBe('x ');
    expect(Buffer.from(healing).toString()).toBe('return');
  });

  it('starts with the begin token where the model expects one, and never takes that off', () => {
    const begun = new ByteTokenizer({ framing, begin: '<B>' });
    expect(show(begun, completionPrompt(begun, { ...source, prefix: 'xy' }, 100).ids)).toBe('<B>x');
    const empty = completionPrompt(begun, { ...source, prefix: '' }, 100);
    expect(show(begun, empty.ids)).toBe('<B>');
    expect(empty.healing).toHaveLength(0);
  });
});

describe('token healing', () => {
  it('allows tokens that begin with the bytes, and tokens that begin them', () => {
    const allowed = tokensTowards(plain, Buffer.from('tu'));
    expect(allowed.map((id) => show(plain, [id])).sort()).toEqual(['t', 'turn']);
  });

  it('never allows a framing token', () => {
    expect(tokensTowards(plain, Buffer.from('<')).map((id) => show(plain, [id]))).toEqual(['<']);
  });

  it('masks every other logit', () => {
    expect([...onlyAllowed(Float32Array.from([1, 2, 3]), bitsOf([2, 0], 3))]).toEqual([1, Number.NEGATIVE_INFINITY, 3]);
  });
});
