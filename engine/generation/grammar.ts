/**
 * Grammars over a model's vocabulary, by xgrammar. The vocabulary is read when a grammar is first needed; what was
 * compiled is kept, so that a tool costs its schema's compilation once.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { compileFunction } from 'node:vm';
import type * as XGrammar from '@mlc-ai/web-xgrammar';
import { HearthError, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import type { AnswerGrammar } from '../text/answerPlan.ts';
import { characterOfByte } from '../text/byteAlphabet.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** One walk through a grammar. */
export interface GrammarWalk {
  /** `[⌈vocabulary / 32⌉]`, a bit for every token that may come next. */
  allowed(): Promise<Int32Array>;
  /** Whether the grammar ended with this token. */
  take(token: number): boolean;
  close(): void;
}

type Library = typeof XGrammar;
type Compiler = Awaited<ReturnType<Library['GrammarCompiler']['createGrammarCompiler']>>;
type Compiled = Awaited<ReturnType<Compiler['compileGrammar']>>;
let library: Library | undefined;

/**
 * The package says that it is an ES module and is none, so it is run as the script it is. In a page, which has a
 * location and no process, it brings its WebAssembly along; elsewhere it imports what a script may not.
 */
function load(): Library {
  if (library) return library;
  // esbuild.mjs copies it beside the bundles.
  const file = import.meta.url.endsWith('.ts')
    ? createRequire(import.meta.url).resolve('@mlc-ai/web-xgrammar')
    : fileURLToPath(new URL('./xgrammar.js', import.meta.url));
  const module = { exports: {} as Library };
  const run = compileFunction(readFileSync(file, 'utf8'), ['module', 'exports', 'process', 'location', 'console']);
  // What it remarks on a schema would stand in the middle of an answer.
  const quiet = { log: () => {}, warn: () => {}, error: () => {} };
  run(module, module.exports, undefined, { href: '' }, quiet);
  library = module.exports;
  return library;
}

export class Grammars {
  readonly #tokenizer: Tokenizer;
  readonly #compiled = new Map<string, Promise<Compiled>>();
  #compiler: Promise<Compiler> | undefined;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @throws HearthError `invalid-input` for a schema that is none. */
  async walk(grammar: AnswerGrammar): Promise<GrammarWalk> {
    const compiled = await this.#compile(grammar);
    const ends = [...this.#tokenizer.endIds];
    const matcher = await load().GrammarMatcher.createGrammarMatcher(compiled, ends, grammar.last !== true);
    const hidden = this.#hidden(grammar);
    return {
      allowed: async () => {
        const mask = await matcher.getNextTokenBitmask();
        for (const id of hidden) mask[id >> 5] = (mask[id >> 5] ?? 0) & ~(1 << (id & 31));
        return mask;
      },
      take: (token) => {
        if (!matcher.acceptToken(token)) throw new Error(`The grammar does not take token ${token}.`);
        return matcher.isTerminated();
      },
      close: () => matcher.dispose(),
    };
  }

  /** Framing tokens that a free text of the grammar must not hold. */
  #hidden({ rules, last }: AnswerGrammar): number[] {
    const tokenizer = this.#tokenizer;
    const framing = [...tokenizer.framing].filter(([name, id]) => tokenizer.isSpecial(id) && !rules.includes(name));
    return framing.flatMap(([, id]) => (last && tokenizer.endIds.has(id) ? [] : [id]));
  }

  #compile(grammar: AnswerGrammar): Promise<Compiled> {
    const key = JSON.stringify([grammar.rules, grammar.schema]);
    const known = this.#compiled.get(key);
    if (known) return known;
    if (this.#compiled.size >= limits.generation.grammars) this.#compiled.clear();
    const compiled = this.#build(grammar);
    this.#compiled.set(key, compiled);
    return compiled;
  }

  async #build({ rules, schema }: AnswerGrammar): Promise<Compiled> {
    this.#compiler ??= this.#start();
    const compiler = await this.#compiler;
    try {
      return await compiler.compileGrammar(`${await schemaRules(schema)}\n${rules}\n`, 'top');
    } catch (error) {
      if (error instanceof HearthError) throw error;
      throw invalidInput('The JSON Schema of a tool or of the answer cannot be followed; simplify it.');
    }
  }

  async #start(): Promise<Compiler> {
    const { GrammarCompiler, TokenizerInfo } = load();
    const { vocabularySize, endIds } = this.#tokenizer;
    const spelled = Array.from({ length: vocabularySize }, (_, id) => this.#spell(id));
    const info = await TokenizerInfo.createTokenizerInfo(spelled, 'byte_level', false, vocabularySize, [...endIds]);
    // Ours is the cache that is bounded.
    return GrammarCompiler.createGrammarCompiler(info, false);
  }

  /** A text with a carriage return could pretend to be a framing token; as it is spelled here, no grammar takes it. */
  #spell(id: number): string {
    if (!this.#tokenizer.isSpecial(id) && this.#tokenizer.bytesOf(id).includes(carriageReturn)) return '';
    let spelled = this.#tokenizer.isSpecial(id) ? characterOfByte(carriageReturn) : '';
    for (const byte of this.#tokenizer.bytesOf(id)) spelled += characterOfByte(byte);
    return spelled;
  }
}

const carriageReturn = 0x0d;

/** A schema in one line, with the blanks that Python's JSON has, which most models were taught with. */
async function schemaRules(schema: unknown): Promise<string> {
  if (schema === undefined) return '';
  const json = JSON.stringify(schema);
  if (json.length > limits.generation.schemaChars) {
    throw invalidInput(
      `A JSON Schema has ${json.length} characters; at most ${limits.generation.schemaChars} are followed.`,
    );
  }
  const rules = await load().Testings._jsonSchemaToEBNF(json, false, -1, [', ', ': '], true);
  // Texts of a given length would else hold control characters, which JSON does not allow.
  return rules.replaceAll('[^"\\\\\\r\\n]', '[^\\0-\\x1f\\"\\\\\\r\\n]');
}
