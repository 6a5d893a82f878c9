import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { HearthError } from '../../../engine/errors.ts';
import { readPreTokeniser } from '../../../engine/tokenizer/huggingFaceSteps.ts';
import { tokenizerFromDirectory, tokenizerFromJson } from '../../../engine/tokenizer/huggingFaceTokenizer.ts';
import { describeShared, fixtureFile, sharedFile } from '../shared.ts';
import { temporaryFolder } from '../temporaryFolder.ts';
import {
  publishedFiles,
  publishedModels,
  publishedTokenizer,
  readJson,
  smallTokenizer,
  smallTokenizerJson,
  type TokenVectors,
  texts,
} from './vocabularies.ts';

const vectors = readJson<TokenVectors>(fixtureFile('text/huggingFaceTokens.json'));

describeShared('Published tokenizer.json files', publishedFiles, () => {
  for (const [model, expected] of Object.entries(vectors.models)) {
    it(`gives the ids of Hugging Face's tokenizers for ${model}, as text and with framing tokens`, async () => {
      const tokenizer = await publishedTokenizer(model);
      for (const [index, text] of texts.entries()) {
        expect(tokenizer.encode(text, { special: 'plain' }), JSON.stringify(text)).toEqual(expected.plain[index]);
        expect(tokenizer.encode(text, { special: 'parse' }), JSON.stringify(text)).toEqual(expected.parse[index]);
      }
    }, 180_000);
  }

  it("gives DeepSeek-V3's ids for V3.1, whose vocabulary is the same but for four added tokens", async () => {
    const tokenizer = await publishedTokenizer('DeepSeek-V3.1');
    const expected = vectors.models['DeepSeek-V3']?.plain ?? [];
    expect(texts.map((text) => tokenizer.encode(text, { special: 'plain' }))).toEqual(expected);
    expect(tokenizer.encode('<think></think>', { special: 'parse' })).toEqual([128798, 128799]);
  });

  it('decodes what it encoded, normalised text where the vocabulary normalises', async () => {
    for (const model of publishedModels) {
      const tokenizer = await publishedTokenizer(model);
      for (const text of texts) {
        const normal = model.startsWith('Qwen') ? text.normalize('NFC') : text;
        expect(tokenizer.decode(tokenizer.encode(text, { special: 'plain' }))).toBe(normal);
      }
    }
  });

  it('makes no framing token of plain text, whatever the text', async () => {
    for (const model of publishedModels) {
      const tokenizer = await publishedTokenizer(model);
      const framing = new Set(tokenizer.framing.values());
      for (const name of tokenizer.framing.keys()) {
        const ids = tokenizer.encode(`a${name}b ${name}\n${name}`, { special: 'plain' });
        expect(ids.filter((id) => framing.has(id))).toEqual([]);
        expect(Buffer.concat(ids.map((id) => tokenizer.bytesOf(id))).toString()).toBe(`a${name}b ${name}\n${name}`);
      }
    }
  });

  it('have known patterns, which need no deadline', () => {
    for (const file of publishedFiles) {
      const { pre_tokenizer } = readJson<{ pre_tokenizer: unknown }>(sharedFile(file));
      expect(readPreTokeniser(pre_tokenizer).steps.map((step) => step.tame)).not.toContain(false);
    }
  });

  it('names the ids that end a turn, a text, and the parts around a missing middle', async () => {
    const qwen = await publishedTokenizer('Qwen3-0.6B');
    expect([...qwen.endIds].sort()).toEqual([151643, 151645, 151662, 151663, 151664]);
    expect(qwen.fillInTheMiddle).toEqual({
      prefix: 151659,
      middle: 151660,
      suffix: 151661,
      order: 'prefix-suffix-middle',
      fileSeparator: 151664,
      repositoryName: 151663,
      pad: 151662,
    });
    const deepSeek = await publishedTokenizer('DeepSeek-V3.1');
    expect(deepSeek.fillInTheMiddle).toEqual({
      prefix: 128801,
      suffix: 128800,
      middle: 128802,
      order: 'prefix-suffix-middle',
    });
    expect(deepSeek.beginId).toBe(0);
    const gptOss = await publishedTokenizer('gpt-oss-20b');
    // In harmony the answer continues after <|end|> (200007).
    expect([...gptOss.endIds].sort()).toEqual([199999, 200002, 200012]);
    expect(gptOss.beginId).toBeUndefined();
    const smolLm = await publishedTokenizer('SmolLM2-135M-Instruct');
    // It has StarCoder's repository tokens, but none for the middle.
    expect(smolLm.fillInTheMiddle).toBeUndefined();
    expect([...smolLm.endIds].sort()).toEqual([0, 2]);
    expect(smolLm.templateTokens).toEqual({ begin: '<|im_start|>', end: '<|im_end|>' });
  });

  it('encodes 16,000 tokens of source code in well under a second of processor time', async () => {
    const tokenizer = await publishedTokenizer('Qwen3-0.6B');
    const source = readFileSync(new URL('../../../package-lock.json', import.meta.url), 'utf8').slice(0, 40_000);
    const before = process.cpuUsage();
    expect(tokenizer.encode(source, { special: 'plain' }).length).toBeGreaterThan(10_000);
    expect(process.cpuUsage(before).user).toBeLessThan(1e6);
  });
});

describeShared(
  'Published vectors',
  [...publishedFiles, 'reference/tokenizers/chktxt.json', 'reference/tokenizers/ggml-vocab-qwen2.gguf.inp'],
  () => {
    it("has the digests that llama.cpp's converter knows the vocabularies by", async () => {
      interface Check {
        readonly text: string;
        readonly models: Record<string, { readonly sha256: string; readonly ids: number[] }>;
      }
      const check = readJson<Check>(sharedFile('reference/tokenizers/chktxt.json'));
      for (const [model, { ids: expected, sha256 }] of Object.entries(check.models)) {
        const tokenizer = await publishedTokenizer(model);
        const begin = expected[0] === tokenizer.beginId ? expected.slice(0, 1) : [];
        const ids = [...begin, ...tokenizer.encode(check.text, { special: 'plain' })];
        expect(ids).toEqual(expected);
        expect(
          createHash('sha256')
            .update(`[${ids.join(', ')}]`)
            .digest('hex'),
        ).toBe(sha256);
      }
      expect(Object.keys(check.models).length).toBeGreaterThanOrEqual(4);
    });

    it("gives llama.cpp's 47 vectors of the Qwen2 vocabulary", async () => {
      const tokenizer = await publishedTokenizer('Qwen3-0.6B');
      const read = (name: string): string => readFileSync(sharedFile(`reference/tokenizers/${name}`), 'utf8');
      const inputs = read('ggml-vocab-qwen2.gguf.inp').split('\n__ggml_vocab_test__\n');
      const outputs = read('ggml-vocab-qwen2.gguf.out').split('\n');
      expect(inputs.length).toBe(47);
      for (const [index, text] of inputs.entries()) {
        const expected = (outputs[index] ?? '').split(' ').filter(Boolean).map(Number);
        expect(tokenizer.encode(text, { special: 'plain' }), JSON.stringify(text)).toEqual(expected);
      }
    });

    it('gives the published ids of SmolLM2', async () => {
      const tokenizer = await publishedTokenizer('SmolLM2-135M-Instruct');
      const { source, ...cases } = readJson<Record<string, number[]>>(sharedFile('reference/tokenizers/smollm2.json'));
      expect(source).toBeDefined();
      for (const [text, ids] of Object.entries(cases)) {
        expect(tokenizer.encode(text, { special: 'plain' })).toEqual(ids);
      }
    });
  },
);

describe('tokenizerFromJson', () => {
  it('merges by rank within the pieces of the pattern', () => {
    const tokenizer = smallTokenizer();
    expect(tokenizer.encode('hello world', { special: 'plain' })).toEqual([259, 262, 0x6c, 0x64]);
    expect(tokenizer.decode([259, 262, 0x6c, 0x64])).toBe('hello world');
  });

  it('removes special tokens from decoded text, except those that are part of an answer', () => {
    const tokenizer = smallTokenizer();
    const ids = tokenizer.encode('<|im_start|><think>hello</think><|im_end|>', { special: 'parse' });
    expect(ids).toEqual([300, 302, 259, 303, 301]);
    expect(tokenizer.decode(ids)).toBe('<think>hello</think>');
    expect(ids.map((id) => tokenizer.isSpecial(id))).toEqual([true, false, false, false, true]);
  });

  it('gives the exact bytes of every token, and none for unused ids', () => {
    const tokenizer = smallTokenizer();
    for (let byte = 0; byte < 256; byte++) expect([...tokenizer.bytesOf(byte)]).toEqual([byte]);
    expect(Buffer.from(tokenizer.bytesOf(262)).toString()).toBe(' wor');
    expect(Buffer.from(tokenizer.bytesOf(301)).toString()).toBe('<|im_end|>');
    expect([...tokenizer.bytesOf(299), ...tokenizer.bytesOf(9999)]).toEqual([]);
    expect(tokenizer.vocabularySize).toBe(304);
    expect(tokenizer.idOf('Ġwor')).toBe(262);
    expect(tokenizer.idOf('<|im_end|>')).toBe(301);
    expect(tokenizer.idOf('nope')).toBeUndefined();
  });

  it('finds the longest framing token, and text after half of one', () => {
    const json = smallTokenizerJson({
      added_tokens: [
        { id: 300, content: '<a>', special: true },
        { id: 301, content: '<a>b>', special: true },
      ],
    });
    const tokenizer = tokenizerFromJson(json);
    expect(tokenizer.split('<<a><a>b><a><a')).toEqual(['<', 300, 301, 300, '<a']);
  });

  it('lets framing tokens include adjacent blanks if the file says so', () => {
    const added = [{ id: 300, content: '<m>', special: true, lstrip: true, rstrip: true }];
    expect(tokenizerFromJson(smallTokenizerJson({ added_tokens: added })).split('a  <m> \n b')).toEqual([
      'a',
      300,
      'b',
    ]);
  });

  it('keeps added letters and blanks in plain text, which cannot imitate framing', () => {
    const added = [
      { id: 300, content: 'ü', special: false },
      { id: 301, content: '    ', special: false },
      { id: 302, content: '<x>', special: false },
    ];
    const tokenizer = tokenizerFromJson(smallTokenizerJson({ added_tokens: added }));
    expect(tokenizer.encode('ü    <x>', { special: 'plain' })).toEqual([300, 301, 0x3c, 0x78, 0x3e]);
    expect([...tokenizer.framing.keys()]).toEqual(['<x>']);
  });

  it('takes a whole piece as its token only with ignore_merges', () => {
    const vocab = { ...smallTokenizerJson().model.vocab, xyz: 280 };
    const encode = (ignore: boolean): number[] =>
      tokenizerFromJson(smallTokenizerJson({}, { vocab, ignore_merges: ignore })).encode('xyz', { special: 'plain' });
    expect(encode(true)).toEqual([280]);
    expect(encode(false)).toEqual([0x78, 0x79, 0x7a]);
  });

  it('knows every digit of Unicode', () => {
    const digits = { type: 'Digits', individual_digits: true };
    const level = { type: 'ByteLevel', add_prefix_space: false, use_regex: true };
    const json = smallTokenizerJson({ pre_tokenizer: { type: 'Sequence', pretokenizers: [digits, level] } });
    const vocab = { ...json.model.vocab, 'Â½': 280, 'ĠÂ½': 281 };
    const model = { ...json.model, vocab, merges: ['Â ½', 'Ġ Â½'] };
    // Rust's char::is_numeric: ½ is a digit of its own, so the blank before it is not part of its piece.
    expect(tokenizerFromJson({ ...json, model }).encode(' ½', { special: 'plain' })).toEqual([0x20, 280]);
  });

  it('falls back to bytes in vocabularies that spell blanks as ▁', () => {
    const bytes = Object.fromEntries(
      Array.from({ length: 256 }, (_, byte) => [`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, byte + 3]),
    );
    const vocab = { '<unk>': 0, '<s>': 1, '</s>': 2, ...bytes, '▁': 259, a: 260, b: 261, '▁a': 262 };
    const normalizers = [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ];
    const tokenizer = tokenizerFromJson(
      {
        added_tokens: [
          { id: 0, content: '<unk>', special: true },
          { id: 1, content: '<s>', special: true },
          { id: 2, content: '</s>', special: true },
        ],
        normalizer: { type: 'Sequence', normalizers },
        model: { type: 'BPE', vocab, merges: ['▁ a'], byte_fallback: true, unk_token: '<unk>', fuse_unk: true },
      },
      { bos_token: '<s>', eos_token: '</s>', tokenizer_class: 'LlamaTokenizer' },
    );
    const ids = tokenizer.encode('a é\n', { special: 'plain' });
    expect(ids).toEqual([262, 259, 3 + 0xc3, 3 + 0xa9, 3 + 0x0a]);
    expect(tokenizer.decode(ids)).toBe('a é\n');
    expect([...tokenizer.bytesOf(3 + 0xc3)]).toEqual([0xc3]);
    expect(Buffer.from(tokenizer.bytesOf(262)).toString()).toBe(' a');
    expect([tokenizer.beginId, ...tokenizer.endIds]).toEqual([1, 2]);
  });

  it('finds the fill-in-the-middle tokens of CodeLlama and Codestral', () => {
    const named = (...names: string[]) =>
      tokenizerFromJson(
        smallTokenizerJson({
          added_tokens: names.map((content, index) => ({ id: 300 + index, content, special: true })),
        }),
      );
    expect(named('▁<PRE>', '▁<SUF>', '▁<MID>', '▁<EOT>').fillInTheMiddle).toEqual({
      prefix: 300,
      suffix: 301,
      middle: 302,
      order: 'prefix-suffix-middle',
    });
    expect(named('<[fim-suffix]>', '<[fim-prefix]>', '<[fim-middle]>').fillInTheMiddle).toEqual({
      prefix: 301,
      suffix: 300,
      middle: 302,
      order: 'suffix-prefix-middle',
    });
    expect(named('[SUFFIX]', '[PREFIX]').fillInTheMiddle).toEqual({
      prefix: 301,
      suffix: 300,
      order: 'suffix-prefix-middle',
    });
    expect(named('<fim_prefix>', '<fim_suffix>').fillInTheMiddle).toBeUndefined();
  });

  it('takes the template and the end tokens from the files beside it', () => {
    const config = {
      chat_template: [
        { name: 'default', template: 'A' },
        { name: 'tool_use', template: 'B' },
      ],
      eos_token: { content: '<|im_end|>' },
    };
    const tokenizer = tokenizerFromJson(smallTokenizerJson(), config, { eos_token_id: [7, 300] });
    expect(tokenizer.chatTemplate).toBe('A');
    expect([...tokenizer.endIds].sort()).toEqual([300, 301, 7]);
    expect(tokenizerFromJson(smallTokenizerJson(), config, {}, 'C').chatTemplate).toBe('C');
  });
});

describe('Malformed tokenizer files', () => {
  const small = smallTokenizerJson();
  const split = (pattern: unknown, behavior = 'Isolated') => ({
    pre_tokenizer: { type: 'Split', pattern, behavior, invert: false },
  });
  const cases: [name: string, json: unknown, code: string, message: RegExp][] = [
    ['no object', 'x', 'invalid-input', /tokenizer\.json/],
    ['no model', {}, 'invalid-input', /model/],
    ['another model', smallTokenizerJson({}, { type: 'Unigram' }), 'unsupported', /Unigram/],
    ['a vocabulary that is a list', smallTokenizerJson({}, { vocab: [] }), 'invalid-input', /vocab/],
    ['an id that is no number', smallTokenizerJson({}, { vocab: { a: 'b' } }), 'invalid-input', /vocab/],
    ['an id that would make a huge list', smallTokenizerJson({}, { vocab: { a: 2 ** 40 } }), 'invalid-input', /vocab/],
    [
      'an added id that would',
      smallTokenizerJson({ added_tokens: [{ id: 2 ** 31, content: 'x' }] }),
      'invalid-input',
      /added_tokens/,
    ],
    ['merges of unknown tokens', smallTokenizerJson({}, { merges: ['a nope'] }), 'invalid-input', /merges\[0\]/],
    ['merges of other things', smallTokenizerJson({}, { merges: [5, null] }), 'invalid-input', /merges\[0\]/],
    ['merges that are no list', smallTokenizerJson({}, { merges: 'a b' }), 'invalid-input', /merges/],
    [
      'an unknown normaliser',
      smallTokenizerJson({ normalizer: { type: 'Precompiled' } }),
      'unsupported',
      /Precompiled/,
    ],
    ['an unknown step', smallTokenizerJson({ pre_tokenizer: { type: 'Punctuation' } }), 'unsupported', /Punctuation/],
    ['another behaviour', smallTokenizerJson(split({ Regex: 'a' }, 'MergedWithNext')), 'unsupported', /MergedWithNext/],
    ['a pattern that is none', smallTokenizerJson(split({ Regex: '(' })), 'unsupported', /pattern/],
    ['a pattern without end', smallTokenizerJson(split({ Regex: `a{9}`.repeat(9999) })), 'invalid-input', /characters/],
    [
      'a pattern of exponential time',
      smallTokenizerJson(split({ Regex: '(a+)+$' })),
      'invalid-input',
      /nests repetitions/,
    ],
    [
      'one more of those',
      smallTokenizerJson(split({ Regex: '(?:a|(?:b*|c))*d' })),
      'invalid-input',
      /nests repetitions/,
    ],
    [
      'a replacement that fills the memory',
      smallTokenizerJson({ normalizer: { type: 'Replace', pattern: { String: ' ' }, content: 'x'.repeat(1e6) } }),
      'invalid-input',
      /makes texts 1000000 times as long/,
    ],
    [
      'replacements that do so together',
      smallTokenizerJson({
        normalizer: {
          type: 'Sequence',
          normalizers: Array.from({ length: 5 }, () => ({
            type: 'Sequence',
            normalizers: [{ type: 'Replace', pattern: { String: 'x' }, content: 'xx' }],
          })),
        },
      }),
      'invalid-input',
      /makes texts 32 times as long/,
    ],
    [
      'normalisers within normalisers without end',
      smallTokenizerJson({
        normalizer: Array.from({ length: 5000 }).reduce<unknown>(
          (inner) => ({ type: 'Sequence', normalizers: [inner] }),
          null,
        ),
      }),
      'invalid-input',
      /nested too deeply/,
    ],
    [
      'a vocabulary of more characters than any has',
      smallTokenizerJson(
        {},
        { vocab: Object.fromEntries(Array.from({ length: 3000 }, (_, id) => [`${id}`.padEnd(4000, 'x'), id])) },
      ),
      'invalid-input',
      /12000000 characters together/,
    ],
    [
      'the name of a step that fills a screen',
      smallTokenizerJson({ normalizer: { type: 'x'.repeat(1e6) } }),
      'unsupported',
      /^The tokenizer's normalizer "x{1400,1500} … x{400,500}" is not supported\.$/,
    ],
    ['an empty separator', smallTokenizerJson(split({ String: '' })), 'invalid-input', /empty/],
  ];
  for (const [name, json, code, message] of cases) {
    it(`are refused by a typed error: ${name}`, () => {
      let error: unknown;
      try {
        tokenizerFromJson(json);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(HearthError);
      expect((error as HearthError).code).toBe(code);
      expect((error as HearthError).message).toMatch(message);
    });
  }

  it('are stopped when a pattern takes too long on a text', () => {
    const tokenizer = tokenizerFromJson(smallTokenizerJson(split({ Regex: '\\s*\\s*\\s*\\s*\\s*x' })));
    expect(tokenizer.encode('a x', { special: 'plain' })).toHaveLength(3);
    expect(() => tokenizer.encode(' '.repeat(20_000), { special: 'plain' })).toThrow(/took more than/);
  });

  it('are refused if they are not JSON; missing ones are no error', async () => {
    const directory = temporaryFolder();
    expect(await tokenizerFromDirectory(directory)).toBeUndefined();
    writeFileSync(join(directory, 'tokenizer.json'), '{');
    await expect(tokenizerFromDirectory(directory)).rejects.toMatchObject({ code: 'invalid-input' });
    writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(small));
    writeFileSync(join(directory, 'chat_template.jinja'), 'T');
    expect((await tokenizerFromDirectory(directory))?.chatTemplate).toBe('T');
  });
});
