/**
 * Vocabularies in llama.cpp's repository, with the ids that the publishers' own tokenizers gave for its test texts
 * (`models/ggml-vocab-*.gguf.inp` and `.out`, written by `convert_hf_to_gguf_update.py`).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openGguf } from '../../../engine/formats/gguf.ts';
import { tokenizerFromGguf } from '../../../engine/tokenizer/ggufTokenizer.ts';
import { vocabularyCache } from '../prompt/publishedTemplates.ts';

const separator = '\n__ggml_vocab_test__\n';
/** WordPiece, and SentencePiece over unencoded bytes, which no supported model uses. */
const others = ['bert-bge', 'gemma-4'];
const names = existsSync(vocabularyCache)
  ? readdirSync(vocabularyCache).flatMap((file) => /^ggml-vocab-(.+)\.gguf\.out$/.exec(file)?.[1] ?? [])
  : [];

describe("llama.cpp's vocabularies", () => {
  if (names.length === 0) it.skip(`skipped: ${vocabularyCache} is empty; \`npm run templates\` fills it`);
  for (const name of names.filter((each) => !others.includes(each))) {
    it(`give the published ids: ${name}`, async () => {
      const path = join(vocabularyCache, `ggml-vocab-${name}.gguf`);
      const tokenizer = tokenizerFromGguf((await openGguf(path)).metadata);
      const texts = readFileSync(`${path}.inp`, 'utf8').split(separator);
      const ids = readFileSync(`${path}.out`, 'utf8').split('\n');
      expect(texts.length).toBeGreaterThan(40);
      for (const [index, text] of texts.entries()) {
        const expected = (ids[index] ?? '').match(/\d+/g) ?? [];
        expect(tokenizer?.encode(text, { special: 'plain' }), JSON.stringify(text)).toEqual(expected.map(Number));
      }
    });
  }
});
