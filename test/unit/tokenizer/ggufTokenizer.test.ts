import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultStoreDirectory } from '../../../engine/catalogue/files.ts';
import { HearthError } from '../../../engine/errors.ts';
import { openGguf } from '../../../engine/formats/gguf.ts';
import type { GgufValue } from '../../../engine/formats/ggufMetadata.ts';
import { tokenizerFromGguf } from '../../../engine/tokenizer/ggufTokenizer.ts';
import { tokenizerFromJson } from '../../../engine/tokenizer/huggingFaceTokenizer.ts';
import { namedPreTokenisers, preTokenise, regexStep } from '../../../engine/tokenizer/preTokenise.ts';
import type { Tokenizer } from '../../../engine/tokenizer/tokenizer.ts';
import { describeShared, describeUnless, fixtureFile, sharedFile } from '../shared.ts';
import {
  ggufMetadata,
  ggufStrings,
  publishedFiles,
  readJson,
  smallTokenizerJson,
  type TokenizerJson,
  type TokenVectors,
  texts,
} from './vocabularies.ts';

const llamaCpp = readJson<{ count: number; models: Record<string, number[][]> }>(
  fixtureFile('text/llamaCppTokens.json'),
);

const huggingFace = readJson<TokenVectors>(fixtureFile('text/huggingFaceTokens.json'));

async function openTokenizer(path: string): Promise<Tokenizer> {
  const tokenizer = tokenizerFromGguf((await openGguf(path)).metadata);
  if (tokenizer === undefined) throw new Error(`${path} has no vocabulary`);
  return tokenizer;
}

function expectLlamaCppIds(tokenizer: Tokenizer, model: string): void {
  const expected = llamaCpp.models[model] ?? [];
  expect(expected.length).toBe(llamaCpp.count);
  for (const [index, ids] of expected.entries()) {
    expect(tokenizer.encode(texts[index] ?? '', { special: 'plain' }), JSON.stringify(texts[index])).toEqual(ids);
  }
}

describeShared('A SentencePiece vocabulary in a GGUF', ['models/stories260K/stories260K-f32.gguf'], () => {
  const file = sharedFile('models/stories260K/stories260K-f32.gguf');

  it('gives the ids of llama.cpp', async () => {
    expectLlamaCppIds(await openTokenizer(file), 'stories260K-f32.gguf');
  });

  it('encodes every byte, and decodes back to the text', async () => {
    const tokenizer = await openTokenizer(file);
    for (let byte = 0; byte < 256; byte++) expect([...tokenizer.bytesOf(byte + 3)]).toEqual([byte]);
    for (const text of texts.filter((text) => !text.includes('▁'))) {
      expect(tokenizer.decode(tokenizer.encode(text, { special: 'plain' }))).toBe(text);
    }
  });

  it('begins with <s> and ends with </s>, which text cannot imitate', async () => {
    const tokenizer = await openTokenizer(file);
    expect(tokenizer.beginId).toBe(1);
    expect([...tokenizer.endIds]).toEqual([2]);
    expect(tokenizer.templateTokens).toEqual({ begin: '<s>', end: '</s>' });
    expect(tokenizer.encode('</s>', { special: 'plain' })).not.toContain(2);
    expect(tokenizer.encode('</s>', { special: 'parse' })).toEqual([2]);
  });
});

describeShared('A published byte-level vocabulary in a GGUF', publishedFiles, () => {
  const families: [model: string, pre: string][] = [
    ['SmolLM2-135M-Instruct', 'smollm'],
    ['Qwen3-0.6B', 'qwen2'],
    ['DeepSeek-V3', 'deepseek-v3'],
    ['gpt-oss-20b', 'gpt-4o'],
  ];
  for (const [model, pre] of families) {
    it(`gives the ids of Hugging Face's tokenizers for ${model}, as text and with framing tokens`, () => {
      const json = readJson<TokenizerJson>(sharedFile(`models/${model}/tokenizer.json`));
      const tokenizer = tokenizerFromGguf(ggufMetadata(json, pre));
      const expected = huggingFace.models[model];
      for (const [index, text] of texts.entries()) {
        expect(tokenizer?.encode(text, { special: 'plain' }), JSON.stringify(text)).toEqual(expected?.plain[index]);
        expect(tokenizer?.encode(text, { special: 'parse' }), JSON.stringify(text)).toEqual(expected?.parse[index]);
      }
      expect(tokenizer?.framing).toEqual(new Map(json.added_tokens.map(({ id, content }) => [content, id])));
      expect(tokenizer?.fillInTheMiddle?.middle).toBe(
        tokenizer?.idOf('<|fim_middle|>') ?? tokenizer?.idOf('<｜fim▁end｜>'),
      );
    }, 180_000);
  }
});

describe('StarCoder2', () => {
  // Its added_tokens.
  const tokens = [
    '<|endoftext|>',
    '<fim_prefix>',
    '<fim_middle>',
    '<fim_suffix>',
    '<fim_pad>',
    '<repo_name>',
    '<file_sep>',
  ];
  const added_tokens = tokens.map((content, index) => ({ id: 300 + index, content, special: true }));
  const json = smallTokenizerJson({ added_tokens });
  const both = {
    'a tokenizer.json': tokenizerFromJson(json, {}),
    'a GGUF': tokenizerFromGguf(ggufMetadata(json, 'starcoder')),
  };
  it.each(Object.entries(both))(
    'of %s fills in between names of files, and ends before the next one',
    (_, tokenizer) => {
      expect(tokenizer?.fillInTheMiddle).toEqual({
        prefix: 301,
        middle: 302,
        suffix: 303,
        order: 'prefix-suffix-middle',
        fileSeparator: 306,
        repositoryName: 305,
        pad: 304,
        namesFileInPrefix: true,
      });
      expect([...(tokenizer?.endIds ?? [])].sort()).toEqual([300, 304, 305, 306]);
    },
  );
});

describe("Mistral's marks of thinking and calls", () => {
  const marks = ['[TOOL_CALLS]', '[ARGS]', '[THINK]', '[/THINK]'];
  const added_tokens = [...marks, '[INST]', '</s>'].map((content, i) => ({ id: 300 + i, content, special: true }));
  const json = smallTokenizerJson({ added_tokens });
  it.each([
    ['a tokenizer.json', tokenizerFromJson(json, {})],
    ['a GGUF', tokenizerFromGguf(ggufMetadata(json, 'tekken'))],
  ])('of %s are part of answers, though flagged special; its other framing is not', (_, tokenizer) => {
    const special = added_tokens.filter(({ id }) => tokenizer?.isSpecial(id)).map(({ content }) => content);
    expect(special).toEqual(['[INST]', '</s>']);
    // In a user's text they stay text.
    expect(tokenizer?.encode('[TOOL_CALLS]', { special: 'plain' })).not.toContain(300);
  });
});

describeShared('The dummy vocabularies of the golden checkpoints', ['goldens/gguf/llama-bf16.gguf'], () => {
  it('have a token for every byte, after three special ones', async () => {
    for (const family of ['llama', 'qwen2', 'qwen3', 'qwen3-moe', 'qwen3-yarn', 'gpt-oss', 'deepseek-v3']) {
      const tokenizer = await openTokenizer(sharedFile(`goldens/gguf/${family}-bf16.gguf`));
      expect(tokenizer.vocabularySize).toBe(512);
      for (let byte = 0; byte < 256; byte++) expect([...tokenizer.bytesOf(byte + 3)]).toEqual([byte]);
      const ids = tokenizer.encode('hello {}\n é', { special: 'plain' });
      expect(tokenizer.decode(ids)).toBe('hello {}\n é');
      expect([...tokenizer.endIds]).toEqual([1]);
      expect(tokenizer.beginId).toBeUndefined();
    }
  });
});

const store = defaultStoreDirectory();
const models = join(store, 'models');
const installed = (existsSync(models) ? readdirSync(models) : [])
  .map((folder) => join(models, folder, 'SmolLM2-135M-Instruct.Q4_1.gguf'))
  .find((file) => existsSync(file));
const absent = installed === undefined ? `it is not installed in ${store}` : undefined;
describeUnless(absent, "SmolLM2's own GGUF", () => {
  it('gives the ids of llama.cpp', async () => {
    expectLlamaCppIds(await openTokenizer(installed ?? ''), 'SmolLM2-135M-Instruct.Q4_1.gguf');
  });
});

describe('tokenizerFromGguf', () => {
  const metadata = (changes: Iterable<[string, GgufValue]> = []): Map<string, GgufValue> =>
    new Map([...ggufMetadata(smallTokenizerJson(), 'gpt-2'), ...changes]);
  const failure = (changes: Iterable<[string, GgufValue]>): HearthError => {
    try {
      tokenizerFromGguf(metadata(changes));
    } catch (error) {
      if (error instanceof HearthError) return error;
      throw error;
    }
    throw new Error('nothing was thrown');
  };

  it('gives none if the file has no vocabulary', () => {
    expect(tokenizerFromGguf(new Map())).toBeUndefined();
    expect(tokenizerFromGguf(metadata([['tokenizer.ggml.model', 'none']]))).toBeUndefined();
  });

  it('names the vocabulary or pre-tokeniser that it does not know', () => {
    expect(failure([['tokenizer.ggml.pre', 'nobody-s']])).toMatchObject({ code: 'unsupported' });
    expect(failure([['tokenizer.ggml.pre', 'nobody-s']]).message).toContain('nobody-s');
    expect(failure([['tokenizer.ggml.model', 'bert']]).message).toContain('bert');
  });

  it('names the key that is missing or malformed', () => {
    const strings = ggufStrings(['a b c d', 'x y']);
    const cases: [key: string, value: GgufValue][] = [
      ['tokenizer.ggml.tokens', ggufStrings([])],
      ['tokenizer.ggml.tokens', 'a'],
      ['tokenizer.ggml.token_type', new Int32Array(2)],
      ['tokenizer.ggml.merges', strings],
      ['tokenizer.ggml.merges', 5],
      ['tokenizer.ggml.bos_token_id', 'x'],
      ['tokenizer.chat_template', 5],
    ];
    for (const [key, value] of cases) {
      expect(failure([[key, value]])).toMatchObject({ code: 'invalid-input', message: expect.stringContaining(key) });
    }
    const scores = failure([
      ['tokenizer.ggml.model', 'llama'],
      ['tokenizer.ggml.scores', new Float32Array(3)],
    ]);
    expect(scores).toMatchObject({ code: 'invalid-input', message: expect.stringContaining('tokenizer.ggml.scores') });
  });

  it('reads the roles of tokens, and ignores invalid ids', () => {
    const tokenizer = tokenizerFromGguf(
      metadata([
        ['tokenizer.ggml.bos_token_id', 300],
        ['tokenizer.ggml.eos_token_id', 303],
        ['tokenizer.ggml.eot_token_id', 4294967295],
        ['tokenizer.ggml.add_bos_token', true],
        ['tokenizer.ggml.fim_pre_token_id', 10],
        ['tokenizer.ggml.fim_suf_token_id', 11],
        ['tokenizer.ggml.fim_mid_token_id', 12],
        ['tokenizer.chat_template', 'T'],
      ]),
    );
    expect(tokenizer?.beginId).toBe(300);
    expect([...(tokenizer?.endIds ?? [])].sort()).toEqual([301, 303]);
    expect(tokenizer?.templateTokens).toEqual({ begin: '<|im_start|>', end: '</think>' });
    expect(tokenizer?.fillInTheMiddle).toEqual({ prefix: 10, suffix: 11, middle: 12, order: 'prefix-suffix-middle' });
    expect(tokenizer?.chatTemplate).toBe('T');
  });

  it('appends the end token if the file says so, as for embedding models', () => {
    const appended = (add: boolean) =>
      tokenizerFromGguf(
        metadata([
          ['tokenizer.ggml.eos_token_id', 303],
          ['tokenizer.ggml.add_eos_token', add],
        ]),
      )?.appendedId;
    expect([appended(true), appended(false)]).toEqual([303, undefined]);
  });

  it('refuses at once a vocabulary whose splits would take minutes', () => {
    // 15,000 tokens of 4,000 characters: 60 million splits, each of which is hashed.
    const tokens = Array.from({ length: 15_000 }, (_, id) => `${id}`.padEnd(4000, 'x'));
    const read = (tokens: readonly string[]) =>
      tokenizerFromGguf(
        new Map<string, GgufValue>([
          ['tokenizer.ggml.model', 'llama'],
          ['tokenizer.ggml.tokens', ggufStrings(tokens)],
          ['tokenizer.ggml.scores', new Float32Array(tokens.length)],
        ]),
      );
    expect(() => read(tokens)).toThrow(/tokenizer\.ggml\.tokens": the tokens have 60000000 characters/);
    expect(() => read(tokens.slice(0, 2000))).toThrow(/tokenizer\.ggml\.tokens": too many long tokens/);
  });

  it('merges by the score of the merged token, the leftmost of equals', () => {
    // llama.cpp, llm_tokenizer_spm: "aaaa" has equal pairs everywhere.
    const tokens = ['<unk>', 'a', 'aa', 'aaa', '▁', 'b', 'ab'];
    const tokenizer = tokenizerFromGguf(
      new Map<string, GgufValue>([
        ['tokenizer.ggml.model', 'llama'],
        ['tokenizer.ggml.tokens', ggufStrings(tokens)],
        ['tokenizer.ggml.scores', Float32Array.of(0, -9, -2, -3, -9, -9, -1)],
        ['tokenizer.ggml.token_type', Int32Array.of(2, 1, 1, 1, 1, 1, 1)],
        ['tokenizer.ggml.add_space_prefix', false],
      ]),
    );
    const encode = (text: string): (string | undefined)[] =>
      (tokenizer?.encode(text, { special: 'plain' }) ?? []).map((id) => tokens[id]);
    expect(encode('aaaaa')).toEqual(['aa', 'aaa']);
    expect(encode('aab')).toEqual(['a', 'ab']);
    // What it cannot spell is unknown, once for neighbours.
    expect(encode('aééa')).toEqual(['a', '<unk>', 'a']);
  });
});

describe('Named pre-tokenisers', () => {
  const cut = (name: string, text: string): readonly string[] =>
    [
      ...preTokenise(
        text,
        (namedPreTokenisers.get(name)?.patterns ?? []).map((pattern) => regexStep(pattern)),
      ),
    ].flat();

  it('keep every character, wherever they cut', () => {
    for (const name of namedPreTokenisers.keys()) for (const text of texts) expect(cut(name, text).join('')).toBe(text);
  });

  it("report a text that overflows a pattern's stack, and split long texts like short ones", () => {
    // Two bytes a character, as a conversation is once its framing is disguised.
    const run = '\ufdd0|'.repeat(7e6);
    try {
      expect(cut('qwen2', run).join('').length).toBe(run.length);
    } catch (error) {
      expect(error).toMatchObject({ code: 'invalid-input' });
    }
    const line = "I'LL add 12345 §§\n\n  x\n";
    const once = cut('qwen2', line);
    expect(cut('qwen2', line.repeat(10_000))).toEqual(Array.from({ length: 10_000 }, () => once).flat());
  });

  it('cut digits, words and line ends as their families do', () => {
    const text = "I'LL add 12345 §§\n\n  x";
    expect(cut('gpt-2', text)).toEqual(['I', "'", 'LL', ' add', ' 12345', ' §§', '\n\n ', ' x']);
    expect(cut('llama-bpe', text)).toEqual(['I', "'LL", ' add', ' ', '123', '45', ' §§\n\n', ' ', ' x']);
    expect(cut('qwen2', text)).toEqual(['I', "'LL", ' add', ' ', '1', '2', '3', '4', '5', ' §§\n\n', ' ', ' x']);
    expect(cut('gpt-4o', "camelCase HTTPServer's a/b/")).toEqual(['camel', 'Case', " HTTPServer's", ' a', '/b', '/']);
  });
});
