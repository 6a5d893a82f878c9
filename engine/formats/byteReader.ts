/** Reads untrusted bytes sequentially through one bounded buffer. Every read is checked against the end first. */
import { HearthError, invalidInput } from '../errors.ts';
import { limits } from '../limits.ts';

/** Bytes with random access. Reads are synchronous: only headers are read this way, and parsing them takes longer. */
export interface ByteSource {
  /** For messages. */
  readonly name: string;
  readonly byteLength: number;
  /** Fills `destination` from `position`. The range lies inside the source. */
  read(position: number, destination: Uint8Array): void;
}

/** An untrusted name, quoted and shortened for a message. */
export const quoted = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);

export class ByteReader {
  readonly #source: ByteSource;
  /** Reads must end here; `#endReason` explains it in messages. Undefined: the file ends. */
  #end: number;
  #endReason: string | undefined;
  readonly #chunk: Buffer<ArrayBuffer>;
  readonly #view: DataView;
  #chunkStart = 0;
  #chunkLength = 0;
  #position = 0;
  #contextKind = 'header';
  #contextName: string | number | undefined;

  constructor(source: ByteSource) {
    this.#source = source;
    this.#end = source.byteLength;
    this.#chunk = Buffer.alloc(Math.min(limits.formats.headerChunkBytes, source.byteLength));
    this.#view = new DataView(this.#chunk.buffer, this.#chunk.byteOffset, this.#chunk.byteLength);
  }

  get position(): number {
    return this.#position;
  }

  get remainingBytes(): number {
    return this.#end - this.#position;
  }

  /** Moves the end forward. `reason` completes 'reason inside tensor "x"'. */
  endAt(position: number, reason: string): void {
    if (position > this.#end) return;
    this.#end = position;
    this.#endReason = reason;
  }

  /** Sets the context for messages: `within('tensor', 'output.weight')`. The text is built only when needed. */
  within(kind: string, name?: string | number): void {
    this.#contextKind = kind;
    this.#contextName = name;
  }

  fail(problem: string): HearthError {
    return invalidInput(this.#message(problem));
  }

  failUnsupported(problem: string): HearthError {
    return new HearthError('unsupported', this.#message(problem));
  }

  /** Runs `compute`; adds the context to its HearthErrors. */
  checked<T>(compute: () => T): T {
    try {
      return compute();
    } catch (error) {
      throw error instanceof HearthError ? this.fail(error.message) : error;
    }
  }

  failAtEnd(): HearthError {
    const reason = this.#endReason;
    return reason === undefined ? this.failIncomplete('it ends inside it') : this.fail(`${reason} inside it`);
  }

  failIncomplete(problem: string): HearthError {
    return this.fail(`the file is incomplete: ${problem}. Download or copy it again`);
  }

  uint8(): number {
    return this.#chunk[this.#take(1)] ?? 0;
  }

  int8(): number {
    return this.#view.getInt8(this.#take(1));
  }

  uint16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  int16(): number {
    return this.#view.getInt16(this.#take(2), true);
  }

  uint32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  int32(): number {
    return this.#view.getInt32(this.#take(4), true);
  }

  float32(): number {
    return this.#view.getFloat32(this.#take(4), true);
  }

  float64(): number {
    return this.#view.getFloat64(this.#take(8), true);
  }

  uint64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  int64(): bigint {
    return this.#view.getBigInt64(this.#take(8), true);
  }

  /** Reads a u64 count, at most `max`. */
  count(what: string, max: number): number {
    const at = this.#take(8);
    const value = this.#view.getUint32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true);
    if (value > max) throw this.fail(`${what} is ${value}, at most ${max} is allowed`);
    return value;
  }

  /** The next byte without consuming it; -1 at the end. */
  peek(): number {
    if (this.#position >= this.#end) return -1;
    return this.#chunk[this.#load(1)] ?? -1;
  }

  /** Reads `length` bytes into a new buffer, allocated only after the length is checked. */
  bytes(length: number): Uint8Array<ArrayBuffer> {
    this.#need(length);
    const bytes = new Uint8Array(length);
    if (length <= this.#chunk.byteLength) {
      const at = this.#load(length);
      bytes.set(this.#chunk.subarray(at, at + length));
    } else {
      this.#source.read(this.#position, bytes);
    }
    this.#position += length;
    return bytes;
  }

  /** Rereads the bytes from `begin` to the current position. */
  bytesSince(begin: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#position - begin);
    this.#source.read(begin, bytes);
    return bytes;
  }

  /**
   * The ASCII bytes from here on for which `accepted` isn't 0, up to the end of the buffer. May be empty although more
   * follow.
   */
  asciiRun(accepted: Uint8Array): string {
    const length = this.#run(accepted);
    const stop = this.#position - this.#chunkStart;
    return this.#chunk.toString('latin1', stop - length, stop);
  }

  /** Skips all bytes for which `accepted` isn't 0. */
  skipRun(accepted: Uint8Array): void {
    while (this.#run(accepted) > 0);
  }

  skip(length: number): void {
    this.#need(length);
    this.#position += length;
  }

  /** Reads UTF-8; fails if it is invalid. */
  text(length: number, what: string): string {
    const bytes = this.bytes(length);
    try {
      return utf8.decode(bytes);
    } catch {
      throw this.fail(`${what} is not UTF-8`);
    }
  }

  /** Skips accepted bytes within the buffer. @returns their number. */
  #run(accepted: Uint8Array): number {
    if (this.#position >= this.#end) return 0;
    const chunk = this.#chunk;
    const start = this.#load(1);
    const limit = Math.min(this.#chunkLength, start + this.#end - this.#position);
    let stop = start;
    while (stop < limit && accepted[chunk[stop] ?? 0] !== 0) stop++;
    this.#position += stop - start;
    return stop - start;
  }

  #message(problem: string): string {
    const name = typeof this.#contextName === 'string' ? quoted(this.#contextName) : this.#contextName;
    return `${this.#source.name}: ${this.#contextKind}${name === undefined ? '' : ` ${name}`}: ${problem}.`;
  }

  #need(length: number): void {
    if (length > this.remainingBytes) throw this.failAtEnd();
  }

  #take(length: number): number {
    this.#need(length);
    const at = this.#load(length);
    this.#position += length;
    return at;
  }

  /**
   * Buffers `length` bytes from the position.
   * @returns their offset in the buffer. The caller has checked that they exist.
   */
  #load(length: number): number {
    const at = this.#position - this.#chunkStart;
    if (at >= 0 && at + length <= this.#chunkLength) return at;
    this.#chunkStart = this.#position;
    this.#chunkLength = Math.min(this.#chunk.byteLength, this.#source.byteLength - this.#position);
    this.#source.read(this.#position, this.#chunk.subarray(0, this.#chunkLength));
    return 0;
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
