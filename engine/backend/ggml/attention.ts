/**
 * Attention of a pass's tokens over a layer's cache, as two matmuls and a softmax. Their kernels sum every element in
 * the same order for any number of columns from two on, and cache columns that a token doesn't see only add zeros at
 * the end. So a prompt's logits have the same bits however it is split into passes. ggml's flash attention uses
 * different orders for one token, for a few and for 64 or more, and is slower in each case. Shapes are ggml's: the
 * row's length first.
 */
import type { GroupedQueryAttentionSpec } from '../../model/spec/spec.ts';
import type { CacheType } from '../processor/messages.ts';
import type { Ggml, Pointer } from './library.ts';

/** The part of a layer's cache that attention reads. */
export interface VisibleCache {
  /** `[kvHeads · headDim, columns]` */
  readonly keys: Pointer;
  /** `[columns, kvHeads · headDim]` */
  readonly values: Pointer;
  readonly columns: number;
  readonly type: CacheType;
  readonly blocks: readonly TokenBlock[];
  /** 0 where a token sees a column, −∞ elsewhere: for each block `[visible, maskRows(tokens)]`, one after the other. f32 */
  readonly mask: Pointer;
}

/** Tokens of a pass that are computed at once. */
export interface TokenBlock {
  /** Index of the first token in the pass. */
  readonly first: number;
  readonly tokens: number;
  /** Number of cache columns that these tokens read, from the first one on. */
  readonly visible: number;
  /** Offset of the block's mask, in elements. */
  readonly maskStart: number;
}

/** Rows of a block's mask: a single token may have two (`#ofSingles`). */
export const maskRows = (tokens: number): number => Math.max(2, tokens);

const mostTokens = 64;
/** The number of columns read is a multiple of this. */
const visibleStep = 64;

/**
 * Divides tokens into blocks of nearly equal size, so that none of several blocks is a single token. The number of
 * columns read depends on the tokens in the cache, not on its capacity.
 * @param start number of tokens in the cache before these.
 * @param columns columns of the cache.
 */
export function tokenBlocks(tokens: number, start: number, columns: number): TokenBlock[] {
  const step = Math.ceil(tokens / Math.ceil(tokens / mostTokens));
  const blocks: TokenBlock[] = [];
  for (let first = 0; first < tokens; first += step) {
    const own = Math.min(step, tokens - first);
    const visible = Math.min(columns, visibleStep * Math.ceil((start + first + own) / visibleStep));
    blocks.push({ first, tokens: own, visible, maskStart: maskLength(blocks) });
  }
  return blocks;
}

/** Elements of the blocks' masks. */
export const maskLength = (blocks: readonly TokenBlock[]): number =>
  blocks.reduce((sum, { tokens, visible }) => sum + visible * maskRows(tokens), 0);

/** Most bytes of scores at once, so that they stay in the CPU's cache; a single KV head may have more. */
const scoreBytes = 2 * 2 ** 20;

/** How many KV heads are computed at once. */
function headsAtOnce({ numAttentionHeads, numKeyValueHeads }: GroupedQueryAttentionSpec, block: TokenBlock): number {
  const headBytes = (4 * block.visible * block.tokens * numAttentionHeads) / numKeyValueHeads;
  return Math.min(numKeyValueHeads, Math.max(1, Math.floor(scoreBytes / headBytes)));
}

/** Most graph nodes of attention. */
export const attentionNodes = (spec: GroupedQueryAttentionSpec, blocks: readonly TokenBlock[]): number =>
  blocks.reduce((sum, block) => sum + 8 + 16 * Math.ceil(spec.numKeyValueHeads / headsAtOnce(spec, block)), 0);

/** KV heads `[head, head + count)` of some tokens. */
interface Part {
  readonly head: number;
  readonly count: number;
  readonly tokens: number;
  readonly visible: number;
  /** `[visible, tokens]` */
  readonly mask: Pointer;
}

export class Attention {
  readonly #ggml: Ggml;
  readonly #context: Pointer;
  readonly #spec: GroupedQueryAttentionSpec;
  readonly #cache: VisibleCache;
  readonly #sinks: Pointer;
  readonly #group: number;

  /** @param sinks `[heads]` f32, or null */
  constructor(ggml: Ggml, context: Pointer, spec: GroupedQueryAttentionSpec, cache: VisibleCache, sinks: Pointer) {
    this.#ggml = ggml;
    this.#context = context;
    this.#spec = spec;
    this.#cache = cache;
    this.#sinks = sinks;
    this.#group = spec.numAttentionHeads / spec.numKeyValueHeads;
  }

  /** @param query `[headDim, heads, 1]` @returns `[headDim · heads, 1]` */
  ofOne(query: Pointer): Pointer {
    const { ggml_reshape_2d, ggml_reshape_3d } = this.#ggml;
    const { numAttentionHeads: heads, numKeyValueHeads: count, headDim } = this.#spec;
    const byHead = ggml_reshape_3d(this.#context, query, headDim, this.#group, count);
    const [block] = this.#cache.blocks;
    if (!block) throw new Error('A pass of one token has one block.');
    const { visible } = block;
    const output =
      this.#group === 1
        ? this.#ofSingles(byHead, { head: 0, count, tokens: 2, visible, mask: this.#maskOf(block, 2) })
        : this.#ofHeads(byHead, { head: 0, count, tokens: 1, visible, mask: this.#maskOf(block, 1) });
    return ggml_reshape_2d(this.#context, output, headDim * heads, 1);
  }

  /**
   * @param query `[headDim, heads, tokens]`
   * @param output what the nodes write, `[headDim · heads, tokens]` f32
   * @returns nodes to compute before `output` is read.
   */
  *ofSeveral(query: Pointer, output: Pointer): Generator<Pointer> {
    const { ggml_cont, ggml_cpy, ggml_permute, ggml_reshape_3d, ggml_view_3d } = this.#ggml;
    const context = this.#context;
    const { numAttentionHeads: heads, numKeyValueHeads, headDim } = this.#spec;
    const [rowBytes, tokenBytes] = [4 * headDim, 4 * headDim * heads];
    for (const block of this.#cache.blocks) {
      const { first, tokens, visible } = block;
      const headStep = headsAtOnce(this.#spec, block);
      const mask = this.#maskOf(block, tokens);
      const own = ggml_view_3d(context, query, headDim, heads, tokens, rowBytes, tokenBytes, first * tokenBytes);
      const byHead = ggml_cont(context, ggml_permute(context, own, 0, 2, 1, 3));
      const columns = tokens * this.#group;
      for (let head = 0; head < numKeyValueHeads; head += headStep) {
        const count = Math.min(headStep, numKeyValueHeads - head);
        const bytes = rowBytes * columns;
        const part = ggml_view_3d(context, byHead, headDim, columns, count, rowBytes, bytes, head * bytes);
        const mixed = this.#ofHeads(part, { head, count, tokens, visible, mask });
        const rows = ggml_reshape_3d(context, mixed, headDim, tokens, count * this.#group);
        const offset = first * tokenBytes + head * this.#group * rowBytes;
        const place = ggml_view_3d(context, output, headDim, count * this.#group, tokens, rowBytes, tokenBytes, offset);
        yield ggml_cpy(context, ggml_permute(context, rows, 0, 2, 1, 3), place);
      }
    }
  }

  #maskOf({ visible, maskStart }: TokenBlock, rows: number): Pointer {
    return this.#ggml.ggml_view_2d(this.#context, this.#cache.mask, visible, rows, 4 * visible, 4 * maskStart);
  }

  /**
   * `[headDim, 1, count]` to the same shape. A single column would be summed in another order than several, so each
   * column is duplicated.
   */
  #ofSingles(query: Pointer, part: Part): Pointer {
    const { ggml_cont, ggml_repeat_4d, ggml_view_3d } = this.#ggml;
    const { headDim } = this.#spec;
    const twice = ggml_repeat_4d(this.#context, query, headDim, 2, part.count, 1);
    const output = this.#ofHeads(twice, part);
    const bytes = 4 * headDim;
    return ggml_cont(this.#context, ggml_view_3d(this.#context, output, headDim, 1, part.count, bytes, 2 * bytes, 0));
  }

  /** `[headDim, tokens · group, count]` to the same shape: the query heads of a KV head are columns of one matmul. */
  #ofHeads(query: Pointer, { head, count, tokens, visible, mask }: Part): Pointer {
    const { ggml_mul_mat, ggml_reshape_3d, ggml_soft_max_ext, ggml_soft_max_add_sinks, ggml_view_1d } = this.#ggml;
    const context = this.#context;
    const heads = this.#group * count;
    const scores = ggml_mul_mat(context, this.#keysOf(head, count, visible), query);
    const byHead = ggml_reshape_3d(context, scores, visible, tokens, heads);
    const weights = ggml_soft_max_ext(context, byHead, mask, this.#spec.softmaxScale, 0);
    if (this.#sinks !== null) {
      ggml_soft_max_add_sinks(weights, ggml_view_1d(context, this.#sinks, heads, 4 * this.#group * head));
    }
    const columns = ggml_reshape_3d(context, weights, visible, tokens * this.#group, count);
    return ggml_mul_mat(context, this.#valuesOf(head, count, visible), columns);
  }

  /** `[headDim, visible, count]` */
  #keysOf(head: number, count: number, visible: number): Pointer {
    const { numKeyValueHeads, headDim } = this.#spec;
    const bytes = headDim * this.#elementBytes;
    const rowBytes = numKeyValueHeads * bytes;
    return this.#ggml.ggml_view_3d(
      this.#context,
      this.#cache.keys,
      headDim,
      visible,
      count,
      rowBytes,
      bytes,
      head * bytes,
    );
  }

  /** `[visible, headDim, count]` */
  #valuesOf(head: number, count: number, visible: number): Pointer {
    const { headDim } = this.#spec;
    const { values, columns } = this.#cache;
    const rowBytes = columns * this.#elementBytes;
    const bytes = headDim * rowBytes;
    return this.#ggml.ggml_view_3d(this.#context, values, visible, headDim, count, rowBytes, bytes, head * bytes);
  }

  get #elementBytes(): number {
    return this.#cache.type === 'float16' ? 2 : 4;
  }
}
