import { describe, expect, it } from 'vitest';
import { importsIn } from '../../../engine/index/question/planner.ts';
import { bitsOf, onlyAllowed, tokensTowards } from '../../../engine/sampling/logitsProcessor.ts';
import { type CompletionPrompt, completionPrompt } from '../../../engine/tasks/completionPrompt.ts';
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

/** The same with the text that is sampled again. */
const showHealed = (tokenizer: ByteTokenizer, { ids, healing }: CompletionPrompt): string =>
  show(tokenizer, ids) + Buffer.from(healing);

describe('a prompt that fills the middle', () => {
  it('has prefix, suffix and middle in the order of the vocabulary', () => {
    const below = { ...source, prefix: `${'\n'.repeat(12)}a = ` };
    const expected = `<P>${'\n'.repeat(8)}<S>\nb<M>${'\n'.repeat(4)}a = `;
    expect(showHealed(fim, completionPrompt(fim, below, 200))).toBe(expected);
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
    expect(showHealed(fim, prompt)).toBe('<F>b.ts\nlet b;\n<F>a.ts\n<P><S>\nb<M>a = ');
  });

  it('names the repository first for a model that knows its token', () => {
    const named = new ByteTokenizer({
      framing,
      fillInTheMiddle: { ...markers, order: 'prefix-suffix-middle', repositoryName: names.require('<B>') },
    });
    const ofShop = { ...source, repository: 'shop' };
    expect(showHealed(named, completionPrompt(named, ofShop, 100))).toBe('<B>shop\n<P><S>\nb<M>a = ');
    expect(showHealed(fim, completionPrompt(fim, ofShop, 100))).toBe('<P><S>\nb<M>a = ');
  });

  it('names the file within the prefix, and ends the name of the repository without a line break, for StarCoder2', () => {
    const fillInTheMiddle = {
      ...markers,
      order: 'prefix-suffix-middle',
      fileSeparator: names.require('<F>'),
      repositoryName: names.require('<B>'),
      namesFileInPrefix: true,
    } as const;
    const starcoder = new ByteTokenizer({ framing, fillInTheMiddle });
    const snippets = [{ path: 'b.ts', text: 'let b;' }];
    const prompt = completionPrompt(starcoder, { ...source, path: 'a.ts', repository: 'shop', snippets }, 100);
    // StarCoder2's paper, section 5.1: <repo_name>reponame<file_sep>filepath0\ncode0<file_sep><fim_prefix>filepath1\n…
    expect(showHealed(starcoder, prompt)).toBe('<B>shop<F>b.ts\nlet b;\n<F><P>a.ts\n<S>\nb<M>a = ');
    const { ids } = completionPrompt(starcoder, source, 100);
    expect(show(starcoder, ids)).toBe('<P><S>\nb<M>a =');
  });

  it('heals the end of a begun middle like any text, and of a prefix only the word being typed', () => {
    const words = new ByteTokenizer({
      framing,
      words: ['turn', 'return'],
      fillInTheMiddle: { ...markers, order: 'prefix-suffix-middle' },
    });
    const shown = (prefix: string) => {
      const { ids, healing } = completionPrompt(words, { ...source, prefix }, 100);
      return [show(words, ids), Buffer.from(healing).toString()];
    };
    expect(shown('x return')).toEqual(['<P><S>\nb<M>x ', 'return']);
    expect(shown('x return ')).toEqual(['<P><S>\nb<M>x return', ' ']);
    const tooLong = 'x'.repeat(60);
    expect(shown(`${tooLong} return`)).toEqual([`<P>${tooLong} <S>\nb<M>`, 'return']);
    expect(shown(`${tooLong} return `)).toEqual([`<P>${tooLong} return <S>\nb<M>`, '']);
  });

  it('takes framing tokens in the file as text', () => {
    const prompt = completionPrompt(fim, { ...source, prefix: '<M>', suffix: '' }, 100);
    expect([...prompt.ids, ...prompt.healing]).toEqual([
      markers.prefix,
      markers.suffix,
      markers.middle,
      ...Buffer.from('<M>'),
    ]);
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

describe('a prompt that fills the middle, while lines are typed', () => {
  const above = Array.from({ length: 40 }, (_, i) => `line ${i};`).join('\n');
  const typed = Array.from({ length: 24 }, (_, i) => `typed ${i};`).join('\n');

  /** What stands before the typed text, at every sixteenth key. */
  function beginnings(text: string): string[] {
    return Array.from({ length: Math.ceil(text.length / 16) }, (_, i) => {
      const prefix = `${above}\n${text.slice(0, 16 * i + 1)}`;
      const prompt = showHealed(fim, completionPrompt(fim, { ...source, prefix }, 8_000));
      const [beginning = '', begun = ''] = prompt.split('<M>');
      expect(prefix.endsWith(begun)).toBe(true);
      expect(`${beginning.slice('<P>'.length, beginning.indexOf('<S>'))}${begun}`).toBe(prefix);
      return beginning;
    });
  }

  it('has the text after the cursor in the part that stays for eight lines', () => {
    // Lines 40 to 63: four lines behind 40, then 48, then 56.
    expect(new Set(beginnings(typed)).size).toBe(4);
  });

  it('has it there for four lines if eight are too long', () => {
    const long = typed.replaceAll('typed', 'typed '.repeat(15));
    // The first lines still have room beside eight short ones above; later ones begin at 44, 48, 52, 56 and 60.
    expect(new Set(beginnings(long)).size).toBeLessThanOrEqual(8);
  });

  it('marks where the typed text begins as a place from which later prompts differ', () => {
    const { ids, boundaries } = completionPrompt(fim, { ...source, prefix: `${above}\nx` }, 8_000);
    expect(ids[(boundaries[1] ?? 0) - 1]).toBe(markers.middle);
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

  it('starts with the begin token if the model expects one, and never removes it', () => {
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
