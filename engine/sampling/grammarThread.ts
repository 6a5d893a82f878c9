/**
 * The thread that follows grammars, by xgrammar: to read a vocabulary and to compile a schema take up to a second, in which
 * the engine has others to answer. What was compiled is kept, so that a tool costs its schema's compilation once.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { compileFunction } from 'node:vm';
import { type MessagePort, parentPort } from 'node:worker_threads';
import type * as XGrammar from '@mlc-ai/web-xgrammar';
import { HearthError, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';
import { characterOfByte } from '../tokenizer/byteAlphabet.ts';
import type { FromGrammarThread, ToGrammarThread, Vocabulary } from './grammarMessages.ts';

type Library = typeof XGrammar;
type Compiler = Awaited<ReturnType<Library['GrammarCompiler']['createGrammarCompiler']>>;
type Compiled = Awaited<ReturnType<Compiler['compileGrammar']>>;
type Matcher = Awaited<ReturnType<Library['GrammarMatcher']['createGrammarMatcher']>>;
type Opening = Extract<ToGrammarThread, { readonly kind: 'open' }>;

/**
 * The package says that it is an ES module and is none, so it is run as the script it is. In a page, which has a
 * location and no process, it brings its WebAssembly along; elsewhere it imports what a script may not.
 */
function load(): Library {
  // esbuild.mjs copies it beside the bundles.
  const file = import.meta.url.endsWith('.ts')
    ? createRequire(import.meta.url).resolve('@mlc-ai/web-xgrammar')
    : fileURLToPath(new URL('./xgrammar.js', import.meta.url));
  const module = { exports: {} as Library };
  const run = compileFunction(readFileSync(file, 'utf8'), ['module', 'exports', 'process', 'location', 'console']);
  // What it remarks on a schema would stand in the middle of an answer.
  const quiet = { log: () => {}, warn: () => {}, error: () => {} };
  run(module, module.exports, undefined, { href: '' }, quiet);
  return module.exports;
}

class GrammarThread {
  readonly #library = load();
  readonly #compiler: Promise<Compiler>;
  readonly #endIds: readonly number[];
  readonly #compiled = new Map<string, Promise<Compiled>>();
  readonly #walks = new Map<number, { readonly matcher: Matcher; readonly hidden: readonly number[] }>();

  constructor(vocabulary: Vocabulary) {
    this.#endIds = vocabulary.endIds;
    this.#compiler = this.#start(vocabulary);
  }

  async answer(
    message: Exclude<ToGrammarThread, { readonly kind: 'vocabulary' }>,
  ): Promise<FromGrammarThread | undefined> {
    switch (message.kind) {
      case 'open':
        return this.#open(message);
      case 'take':
        return this.#take(message.walk, message.token);
      case 'close':
        this.#walks.get(message.walk)?.matcher.dispose();
        this.#walks.delete(message.walk);
        return undefined;
    }
  }

  async #open({ walk, rules, schema, last, hidden }: Opening): Promise<FromGrammarThread> {
    const compiled = await this.#compile(rules, schema);
    const { GrammarMatcher } = this.#library;
    const matcher = await GrammarMatcher.createGrammarMatcher(compiled, [...this.#endIds], !last);
    this.#walks.set(walk, { matcher, hidden });
    return this.#allowed(walk);
  }

  async #take(walk: number, token: number): Promise<FromGrammarThread> {
    const matcher = this.#walks.get(walk)?.matcher;
    if (!matcher?.acceptToken(token)) throw new Error(`The grammar does not take token ${token}.`);
    return matcher.isTerminated() ? { kind: 'ended', walk } : this.#allowed(walk);
  }

  async #allowed(walk: number): Promise<FromGrammarThread> {
    const open = this.#walks.get(walk);
    if (!open) throw new Error(`There is no walk ${walk}.`);
    const mask = Int32Array.from(await open.matcher.getNextTokenBitmask());
    for (const id of open.hidden) mask[id >> 5] = (mask[id >> 5] ?? 0) & ~(1 << (id & 31));
    return { kind: 'allowed', walk, mask };
  }

  #compile(rules: string, schema: unknown): Promise<Compiled> {
    const key = JSON.stringify([rules, schema]);
    const known = this.#compiled.get(key);
    if (known) return known;
    if (this.#compiled.size >= limits.generation.grammars) this.#compiled.clear();
    const compiled = this.#build(rules, schema);
    this.#compiled.set(key, compiled);
    return compiled;
  }

  async #build(rules: string, schema: unknown): Promise<Compiled> {
    const compiler = await this.#compiler;
    try {
      return await compiler.compileGrammar(`${await this.#schemaRules(schema)}\n${rules}\n`, 'top');
    } catch (error) {
      if (error instanceof HearthError) throw error;
      throw invalidInput('The JSON Schema of a tool or of the answer cannot be followed; simplify it.');
    }
  }

  async #start(vocabulary: Vocabulary): Promise<Compiler> {
    const { GrammarCompiler, TokenizerInfo } = this.#library;
    const size = vocabulary.special.length;
    const spelled = Array.from({ length: size }, (_, id) => spell(vocabulary, id));
    const info = await TokenizerInfo.createTokenizerInfo(spelled, 'byte_level', false, size, [...this.#endIds]);
    // Ours is the cache that is bounded.
    return GrammarCompiler.createGrammarCompiler(info, false);
  }

  /** A schema in one line, with the blanks that Python's JSON has, which most models were taught with. */
  async #schemaRules(schema: unknown): Promise<string> {
    if (schema === undefined) return '';
    const json = JSON.stringify(schema);
    if (json.length > limits.generation.schemaChars) {
      throw invalidInput(
        `A JSON Schema has ${json.length} characters; at most ${limits.generation.schemaChars} are followed.`,
      );
    }
    const rules = await this.#library.Testings._jsonSchemaToEBNF(json, false, -1, [', ', ': '], true);
    // Texts of a given length would else hold control characters, which JSON does not allow.
    return rules.replaceAll('[^"\\\\\\r\\n]', '[^\\0-\\x1f\\"\\\\\\r\\n]');
  }
}

/** A text with a carriage return could pretend to be a framing token; as it is spelled here, no grammar takes it. */
function spell({ bytes, starts, special }: Vocabulary, id: number): string {
  const own = bytes.subarray(starts[id], starts[id + 1]);
  if (special[id] === 0 && own.includes(carriageReturn)) return '';
  let spelled = special[id] === 1 ? characterOfByte(carriageReturn) : '';
  for (const byte of own) spelled += characterOfByte(byte);
  return spelled;
}

const carriageReturn = 0x0d;

function listen(port: MessagePort): void {
  let thread: GrammarThread | undefined;
  // A message is handled when the ones before it are.
  let previous: Promise<void> = Promise.resolve();
  const handle = async (message: ToGrammarThread): Promise<FromGrammarThread | undefined> => {
    if (message.kind === 'vocabulary') thread = new GrammarThread(message.vocabulary);
    else return thread?.answer(message);
    return undefined;
  };
  port.on('message', (message: ToGrammarThread) => {
    previous = previous.then(async () => {
      const answer = await handle(message).catch((error: unknown): FromGrammarThread => {
        const walk = message.kind === 'vocabulary' ? 0 : message.walk;
        const text = error instanceof Error ? error.message : String(error);
        return { kind: 'failed', walk, message: text, invalid: error instanceof HearthError };
      });
      if (answer) port.postMessage(answer, answer.kind === 'allowed' ? [answer.mask.buffer] : []);
    });
  });
}

if (parentPort) listen(parentPort);
