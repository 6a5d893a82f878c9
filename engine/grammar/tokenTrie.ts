/** A vocabulary as a tree of bytes, traversed once for each grammar state. */
import type { Machine, State } from './machine.ts';

/** The bytes of every token: `bytes[starts[id] … starts[id + 1]]`. */
export interface Vocabulary {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly starts: Uint32Array<ArrayBuffer>;
  /** 1: a framing token, never part of text. */
  readonly special: Uint8Array<ArrayBuffer>;
  readonly endIds: readonly number[];
}

const carriageReturn = 0x0d;

export class TokenTrie {
  /** Nodes in depth-first order: the byte that leads to the node, its depth, and the first node that is not below it. */
  readonly #byte: Uint8Array;
  readonly #depth: Uint16Array;
  readonly #end: Uint32Array;
  /** The tokens that end at the node: `#tokens[#first … #first + #ending]`. Several may have the same bytes. */
  readonly #first: Uint32Array;
  readonly #ending: Uint16Array;
  readonly #tokens: Uint32Array;
  /** If a character ends here and all below is text without JSON's special characters: the most characters, otherwise -1. */
  readonly #plain: Int16Array;
  readonly #nodes: number;
  readonly #vocabulary: Vocabulary;
  readonly #maxDepth: number;

  constructor(vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary;
    const size = vocabulary.special.length;
    const spelled = Array.from({ length: size }, (_, id) => this.spelled(id));
    const order = inOrder(spelled);
    const most = order.reduce((sum, id) => sum + (spelled[id]?.length ?? 0), 1);
    this.#byte = new Uint8Array(most);
    this.#depth = new Uint16Array(most);
    this.#end = new Uint32Array(most);
    this.#first = new Uint32Array(most);
    this.#ending = new Uint16Array(most);
    this.#tokens = Uint32Array.from(order);
    this.#maxDepth = spelled.reduce((longest, { length }) => Math.max(longest, length), 0);
    this.#nodes = this.#fill(order, spelled);
    this.#plain = this.#plainBelow();
  }

  #fill(order: readonly number[], spelled: readonly Uint8Array[]): number {
    let count = 1;
    const path = [0];
    let previous: Uint8Array = new Uint8Array();
    for (const [place, id] of order.entries()) {
      const bytes = spelled[id] ?? previous;
      let shared = 0;
      while (shared < previous.length && shared < bytes.length && previous[shared] === bytes[shared]) shared++;
      for (let depth = path.length - 1; depth > shared; depth--) this.#end[path[depth] ?? 0] = count;
      path.length = shared + 1;
      for (let depth = shared; depth < bytes.length; depth++) {
        this.#byte[count] = bytes[depth] ?? 0;
        this.#depth[count] = depth + 1;
        this.#first[count] = place;
        path.push(count++);
      }
      const last = path[bytes.length] ?? 0;
      this.#ending[last] = (this.#ending[last] ?? 0) + 1;
      previous = bytes;
    }
    for (const node of path) this.#end[node] = count;
    return count;
  }

  /**
   * The bytes of a token as the grammar sees them. Text with a carriage return could imitate a framing token, which is
   * written with one, so no grammar allows it.
   */
  spelled(id: number): Uint8Array {
    const { bytes, starts, special } = this.#vocabulary;
    const own = bytes.subarray(starts[id], starts[id + 1]);
    if (special[id] === 1) return Uint8Array.of(carriageReturn, ...own);
    return own.includes(carriageReturn) ? own.subarray(0, 0) : own;
  }

  /** `[⌈vocabulary / 32⌉]`, one bit for each token that the grammar allows next. */
  mask(machine: Machine, from: State): Int32Array<ArrayBuffer> {
    const start = machine.abstracted(from);
    const mask = new Int32Array(Math.ceil(this.#vocabulary.special.length / 32));
    const states: State[] = new Array(this.#maxDepth + 1);
    states[0] = start;
    for (let node = 1; node < this.#nodes; ) {
      const depth = this.#depth[node] ?? 1;
      const above = states[depth - 1] ?? start;
      const byte = this.#byte[node] ?? 0;
      const known = above.next[byte];
      const next = known === undefined ? machine.step(above, byte) : known;
      if (next === null) {
        node = this.#end[node] ?? this.#nodes;
        continue;
      }
      states[depth] = next;
      const plain = this.#plain[node] ?? -1;
      const end = this.#end[node] ?? this.#nodes;
      const free = plain >= 0 && plain <= next.room;
      this.#allow(this.#first[node] ?? 0, free ? this.#firstAfter(end) : this.#ends(node), mask);
      node = free ? end : node + 1;
    }
    return mask;
  }

  #ends(node: number): number {
    return (this.#first[node] ?? 0) + (this.#ending[node] ?? 0);
  }

  #firstAfter(node: number): number {
    return node < this.#nodes ? (this.#first[node] ?? 0) : this.#tokens.length;
  }

  #allow(first: number, end: number, mask: Int32Array): void {
    for (let place = first; place < end; place++) {
      const id = this.#tokens[place] ?? 0;
      mask[id >> 5] = (mask[id >> 5] ?? 0) | (1 << (id & 31));
    }
  }

  #plainBelow(): Int16Array {
    const plain = new Int16Array(this.#nodes);
    // The UTF-8 state of the path to each node.
    const states: Utf8[] = new Array(this.#maxDepth + 1);
    states[0] = { left: 0, lo: 0, hi: 0 };
    const at: Utf8[] = new Array(this.#nodes);
    for (let node = 1; node < this.#nodes; node++) {
      const depth = this.#depth[node] ?? 1;
      const own = plainStep(states[depth - 1], this.#byte[node] ?? 0);
      states[depth] = own;
      at[node] = own;
    }
    for (let node = this.#nodes - 1; node > 0; node--) {
      // A character counts at its first byte, even if it does not end within the token.
      const begins = at[node]?.left === 0 ? 1 : 0;
      let most = 0;
      for (let child = node + 1; child < (this.#end[node] ?? 0); child = this.#end[child] ?? this.#nodes) {
        const below = plain[child] ?? impossible;
        most = most < 0 || at[child] === broken || below < 0 ? impossible : Math.max(most, below + begins);
      }
      plain[node] = most;
    }
    // Within a character, asks the machine.
    for (let node = 1; node < this.#nodes; node++) if (at[node]?.left !== 0) plain[node] = impossible;
    return plain;
  }
}

/** The UTF-8 bytes that must follow. */
interface Utf8 {
  readonly left: number;
  readonly lo: number;
  readonly hi: number;
}

const impossible = -1;
const broken: Utf8 = { left: -1, lo: 0, hi: 0 };
const whole: Utf8 = { left: 0, lo: 0, hi: 0 };

function plainStep(from: Utf8 | undefined, byte: number): Utf8 {
  if (!from || from === broken) return broken;
  if (from.left > 0) {
    if (byte < from.lo || byte > from.hi) return broken;
    return from.left === 1 ? whole : { left: from.left - 1, lo: 0x80, hi: 0xbf };
  }
  if (byte < 0x20 || byte === 0x22 || byte === 0x5c) return broken;
  if (byte < 0x80) return whole;
  if (byte >= 0xc2 && byte <= 0xdf) return { left: 1, lo: 0x80, hi: 0xbf };
  // The second byte excludes overlong forms and surrogates.
  if (byte >= 0xe0 && byte <= 0xef)
    return { left: 2, lo: byte === 0xe0 ? 0xa0 : 0x80, hi: byte === 0xed ? 0x9f : 0xbf };
  if (byte >= 0xf0 && byte <= 0xf4)
    return { left: 3, lo: byte === 0xf0 ? 0x90 : 0x80, hi: byte === 0xf4 ? 0x8f : 0xbf };
  return broken;
}

/** Ids sorted by their bytes, without tokens that have none. Sorts strings, which takes V8 a tenth of the time. */
function inOrder(spelled: readonly Uint8Array[]): number[] {
  const end = '\0';
  const texts = spelled.flatMap((bytes, id) => {
    if (bytes.length === 0) return [];
    let text = '';
    for (const byte of bytes) text += String.fromCharCode(byte + 1);
    return [text + end + id];
  });
  return texts.sort().map((text) => Number(text.slice(text.indexOf(end) + 1)));
}
